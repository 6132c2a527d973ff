"""Synthetic workloads: an arrival process and length laws become `Requests`; and their summary.

Arrivals, prompts, responses, thinking and prefixes are drawn from independent streams of one seed:
changing one law leaves the draws of the others as they were, so that runs can be compared.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perfmodel.core.errors import UsageError, near
from perfmodel.serving import arrivals
from perfmodel.serving.arrivals import PROCESSES, Process
from perfmodel.serving.content import MOST_BLOCKS
from perfmodel.serving.lengths import Fixed, LengthLaw, LogNormal
from perfmodel.serving.requests import Counts, Requests
from perfmodel.serving.spec import arguments, spec

SARATHI = "Agrawal et al., Sarathi-Serve, arXiv 2403.02310, table 2"
LAMINA = "Chen et al., arXiv 2405.01814v2 (means of the Azure code trace)"
R1_MATH = (
    "Evstafev, arXiv 2501.18576: mean response of DeepSeek-R1 to hard MATH problems, as summarised "
    "at arxivlens.com"
)


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Prompts that begin alike: system prompts, documents, few-shot examples.

    Parameters
    ----------
    tokens : int
        Length of each common prefix; shorter prompts are wholly common.
    groups : int
        Different prefixes, all equally popular.
    share : float
        Share of the requests that begin with one of them.
    block : int
        Tokens per block of ``hash_ids``; only whole blocks are shared.
    """

    tokens: int
    groups: int = 1
    share: float = 1.0
    block: int = 16

    def __post_init__(self) -> None:
        for name in ("tokens", "groups", "block"):
            if getattr(self, name) < 1:
                raise UsageError(f"shared prefix: {name} is {getattr(self, name)}; at least 1")
        if not 0 <= self.share <= 1:
            raise UsageError(f"shared prefix: share is {self.share:g}; between 0 and 1")


@dataclass(frozen=True, slots=True)
class Preset:
    """A kind of use: its length laws, and where their numbers were read.

    ``hidden`` are thinking tokens generated before the visible ``output``. ``illustrative`` names
    what no source gave.
    """

    prompt: LengthLaw
    output: LengthLaw
    source: str
    hidden: LengthLaw | None = None
    illustrative: str = ""


PRESETS: dict[str, Preset] = {
    "chat": Preset(
        LogNormal.of(median=1730, p90=5696),
        LogNormal.of(median=415, p90=834),
        f"{SARATHI}: openchat_sharegpt4, median and p90",
        illustrative="the lognormal form",
    ),
    "summarise": Preset(
        LogNormal.of(median=7059, p90=12985),
        LogNormal.of(median=208, p90=371),
        f"{SARATHI}: arxiv_summarization, median and p90",
        illustrative="the lognormal form",
    ),
    "code": Preset(
        LogNormal.of(mean=2047.8, sigma=1.0),
        LogNormal.of(mean=27.9, sigma=1.0),
        LAMINA,
        illustrative="the lognormal form and its sigma",
    ),
    "reasoning": Preset(
        Fixed(200),
        LogNormal.of(mean=0.15 * 4717.5, sigma=0.6),
        R1_MATH,
        hidden=LogNormal.of(mean=0.85 * 4717.5, sigma=0.9),
        illustrative="the prompt, the split into thinking and answer, the form and sigmas",
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises
    ------
    UsageError
        There is none; the message names the nearest.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UsageError(f"no workload preset {name!r}{near(name, PRESETS)}; one of: {known}")
    return PRESETS[name]


def parse_arrivals(text: str) -> Process:
    """Arrival process as written on the command line: ``poisson``, ``gamma(burstiness=0.5)``, ….

    Raises
    ------
    UsageError
        No such process or argument.

    Examples
    --------
    >>> parse_arrivals("deterministic")(2, 10.0, np.random.default_rng(0)).tolist()
    [0.1, 0.2]
    """
    name, given = spec(text)
    if name not in PROCESSES:
        known = ", ".join(PROCESSES)
        raise UsageError(f"no arrival process {name!r}{near(name, PROCESSES)}; one of: {known}")
    process = PROCESSES[name]
    return functools.partial(process, **arguments(text, process, given, skip=3))


def generate(
    prompt: LengthLaw,
    output: LengthLaw,
    count: int,
    rate: float,
    *,
    process: Process = arrivals.poisson,
    hidden: LengthLaw | None = None,
    prefix: SharedPrefix | None = None,
    seed: int = 0,
) -> Requests:
    """Draw a workload.

    Parameters
    ----------
    prompt, output : LengthLaw
        ``output`` is what the user sees.
    count : int
        Requests, at least 1.
    rate : float
        Mean rate [1/s]; infinite: all at time 0, as in ``vllm bench serve``.
    process : Process
        How arrivals scatter about the rate.
    hidden : LengthLaw, optional
        Thinking tokens generated before the visible ones.
    prefix : SharedPrefix, optional
        Gives the requests ``hash_ids``.
    seed : int
        Equal seeds give equal bits.

    Raises
    ------
    UsageError
        ``count`` below 1, ``rate`` not positive, a negative seed, too many blocks.

    Examples
    --------
    >>> requests = generate(Fixed(100), Fixed(10), 1000, 5.0)
    >>> len(requests), summarise(requests).prompt.mean
    (1000, 100.0)
    """
    if count < 1:
        raise UsageError(f"a workload of {count} requests; at least 1")
    when, asked, answered, thought, shared = _streams(seed, 5)
    times = (arrivals.at_once if math.isinf(rate) and rate > 0 else process)(count, rate, when)
    prompts, visible = prompt.sample(count, asked), output.sample(count, answered)
    thinking = None if hidden is None else hidden.sample(count, thought)
    ids = None if prefix is None else _hash_ids(prompts, prefix, shared)
    return Requests(
        times,
        prompts,
        visible if thinking is None else visible + thinking,
        hidden=thinking,
        hash_ids=ids,
        hash_block=prefix.block if prefix else 512,
    )


def rearrive(
    requests: Requests, rate: float, process: Process = arrivals.poisson, seed: int = 0
) -> Requests:
    """The same requests in the same order with drawn arrival times, for traces without times.

    ``rate`` is that of tasks where there are tasks: all requests of one come at its time.

    Raises
    ------
    UsageError
        Requests that are not in order of task; else as `generate`.
    """
    places, count = np.arange(len(requests)), len(requests)
    if requests.task is not None:
        if np.any(np.diff(requests.task) < 0):
            raise UsageError("requests with tasks must be in order of task to arrive anew")
        tasks, places = np.unique(requests.task, return_inverse=True)
        count = len(tasks)
    drawn = generate(Fixed(1), Fixed(1), count, rate, process=process, seed=seed)
    return dataclasses.replace(requests, arrival=drawn.arrival[places])


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, percentiles and maximum of a column."""

    mean: float
    p50: float
    p90: float
    p99: float
    most: float

    @classmethod
    def of(cls, column: NDArray[np.int64]) -> Spread:
        """Of a column with at least one entry."""
        p50, p90, p99, most = np.percentile(column, (50, 90, 99, 100)).tolist()
        return cls(float(np.mean(column)), p50, p90, p99, most)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a workload looks like.

    Parameters
    ----------
    count : int
    span : float
        From the first to the last arrival [s].
    rate : float
        Mean rate over the span [1/s]; infinite if all arrive at once.
    burstiness : float or None
        1 / cv² of the gaps, as in ``--burstiness``: 1 for Poisson, infinite for equal gaps; None
        where gaps say nothing (fewer than three requests, or all at once).
    prompt, output, hidden : Spread
        Tokens; ``output`` includes the hidden ones, and ``hidden`` is None without a column.
    repeated : float or None
        Share of the prompt blocks seen in an earlier block: what an endless prefix cache would hit
        at most. None without ``hash_ids``.
    """

    count: int
    span: float
    rate: float
    burstiness: float | None
    prompt: Spread
    output: Spread
    hidden: Spread | None
    repeated: float | None


def summarise(requests: Requests) -> Summary:
    """Rate, burstiness, lengths and repeated blocks of a workload."""
    gaps = np.diff(requests.arrival)
    span = float(requests.arrival[-1] - requests.arrival[0])
    burstiness = None
    if len(gaps) > 1 and span > 0:
        # Equal gaps differ by rounding: below that, they are equal.
        cv2 = float(np.var(gaps)) / float(np.mean(gaps)) ** 2
        burstiness = 1 / cv2 if cv2 > 1e-12 else math.inf
    repeated = None
    if requests.hash_ids is not None and len(requests.hash_ids[1]):
        # Sorting is a hundred times faster than numpy's hashing `unique` on nearly ordered ids.
        ids = np.sort(requests.hash_ids[1])
        repeated = np.count_nonzero(ids[1:] == ids[:-1]) / len(ids)
    return Summary(
        count=len(requests),
        span=span,
        rate=len(gaps) / span if span > 0 else math.inf,
        burstiness=burstiness,
        prompt=Spread.of(requests.prompt),
        output=Spread.of(requests.output),
        hidden=None if requests.hidden is None else Spread.of(requests.hidden),
        repeated=repeated,
    )


def _streams(seed: int, count: int) -> list[Generator]:
    if seed < 0:
        raise UsageError(f"a seed of {seed}; 0 or more")
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(count)]


def _hash_ids(prompts: Counts, prefix: SharedPrefix, rng: Generator) -> tuple[Counts, Counts]:
    """Block ids: a group's own for its common blocks, new ones for the rest of each prompt."""
    count = len(prompts)
    blocks = -(-prompts // prefix.block)
    total = int(blocks.sum())
    if total > MOST_BLOCKS:
        raise UsageError(
            f"prompts of {total:.3g} blocks of {prefix.block} tokens; at most {MOST_BLOCKS:.0e}: "
            "fewer requests or larger blocks"
        )
    group = rng.integers(0, prefix.groups, count)
    joins = rng.random(count) < prefix.share
    common = np.where(joins, np.minimum(prompts, prefix.tokens) // prefix.block, 0)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(blocks)])
    place = np.arange(total) - np.repeat(start[:-1], blocks)
    per_group = prefix.tokens // prefix.block
    is_common = place < np.repeat(common, blocks)
    ids = np.repeat(group * per_group, blocks) + place
    own = ~is_common
    ids[own] = prefix.groups * per_group + np.arange(int(own.sum()))
    return start, ids
