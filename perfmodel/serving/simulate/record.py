"""`Record`: what a run of the simulator leaves behind, filled alike by the twin and the core."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.serving.requests import Counts, Times

# Bins of a histogram of times: 1 us to 12 days, each 0.5 % wide.
LOWEST: Final = 1e-6
WIDTH: Final = math.log(1.005)
BINS: Final = 5541

# Rows of the histograms: latencies of requests, then the gaps between tokens.
METRICS: Final = ("ttft", "tpot", "e2el", "queue_time", "visible")
ITL: Final = len(METRICS)
# Columns of the log of steps.
LOG: Final = ("replica", "begin", "end", "steps", "decodes", "prompt_tokens", "blocks")


@dataclass(frozen=True, slots=True)
class Slo:
    """Upper limits of one request's latencies [s]; ``visible`` is the first token the user sees."""

    ttft: float = math.inf
    tpot: float = math.inf
    e2el: float = math.inf
    visible: float = math.inf


@dataclass(slots=True)
class Record:
    """Outcome of a run. Shapes: n requests, R replicas, S surfaces, C tenants.

    Attributes
    ----------
    arrival, start, first, visible, last, finish : array, shape (n,) or (0,)
        Times of each request [s]: ready, first scheduled, first token, first token the user sees,
        last token, end of the work after it. Empty: not kept. nan: never.
    preempted, replica, hits : array of int64, shape (n,) or (0,)
        Times it lost its place, the replica that finished it, prompt tokens found in the cache when
        it was first admitted.
    histogram : array of int64, shape (C, 6, bins)
        By tenant: `METRICS` of finished requests, and gaps between tokens.
    sums : array, shape (C, 5)
        Sums of `METRICS` [s].
    finished, good, several : array of int64, shape (C,)
        Finished requests, those within their limits, those with more than one output token.
    busy, block_time, running_time, on_time : array, shape (R,)
        Time in steps, integrals of blocks in use and of running requests over steps, time switched
        on [s].
    steps, prompt_tokens, decode_tokens, preemptions, peak_blocks : array of int64, shape (R,)
        Steps; tokens computed by prompts (recomputed ones included), and by decodes; preemptions;
        most blocks in use.
    row_steps : array of int64, shape (S, most rows + 1)
        Steps by the tokens they compute.
    sequence_steps : array of int64, shape (S, most sequences + 1)
        Steps by the sequences whose next token they compute.
    attention : array, shape (S, 2)
        Time of decode and of prefill attention, launches apart [s].
    launches : array of int64, shape (S, 2)
        Steps with decodes, steps with prompts.
    counts : dict of str to int
        What else happened, see `COUNTS`.
    makespan : float
        Time of the last event that served a request [s].
    log : array, shape (most, 7)
        The first stretches of steps, columns `LOG`; ``logged`` of them are filled.
    """

    arrival: Times
    start: Times
    first: Times
    visible: Times
    last: Times
    finish: Times
    preempted: Counts
    replica: Counts
    hits: Counts
    histogram: Counts
    sums: Times
    finished: Counts
    good: Counts
    several: Counts
    busy: Times
    block_time: Times
    running_time: Times
    on_time: Times
    steps: Counts
    prompt_tokens: Counts
    decode_tokens: Counts
    preemptions: Counts
    peak_blocks: Counts
    row_steps: Counts
    sequence_steps: Counts
    attention: Times
    launches: Counts
    counts: dict[str, int]
    log: Times
    logged: int = 0
    makespan: float = 0.0


COUNTS: Final = (
    "hit_tokens",  # prompt tokens found in the cache, at every admission
    "evicted_blocks",  # idle cached blocks given up
    "swapped_blocks",  # moved to the host and back, counted each way
    "transfers",  # prefilled requests that went to decode elsewhere
    "migrations",  # decoding requests that moved
    "retries",  # requests sent elsewhere by a failure
    "adapter_loads",
    "proposed",  # draft tokens
    "accepted",  # draft tokens
    "finetune_tokens",
    "scaled_up",
    "scaled_down",
)


def blank(
    requests: int, tenants: int, replicas: int, surfaces: int, rows: int, sequences: int, log: int
) -> Record:
    """A record to be filled; ``requests`` 0 keeps no times, ``log`` is the most stretches kept."""
    times = [np.full(requests, np.nan) for _ in range(6)]
    whole = [np.zeros(requests, np.int64) for _ in range(3)]
    return Record(
        *times, *whole,
        histogram=np.zeros((tenants, ITL + 1, BINS), np.int64),
        sums=np.zeros((tenants, ITL)),
        finished=np.zeros(tenants, np.int64), good=np.zeros(tenants, np.int64),
        several=np.zeros(tenants, np.int64),
        busy=np.zeros(replicas), block_time=np.zeros(replicas), running_time=np.zeros(replicas),
        on_time=np.zeros(replicas),
        steps=np.zeros(replicas, np.int64), prompt_tokens=np.zeros(replicas, np.int64),
        decode_tokens=np.zeros(replicas, np.int64), preemptions=np.zeros(replicas, np.int64),
        peak_blocks=np.zeros(replicas, np.int64),
        row_steps=np.zeros((surfaces, rows), np.int64),
        sequence_steps=np.zeros((surfaces, sequences), np.int64),
        attention=np.zeros((surfaces, 2)), launches=np.zeros((surfaces, 2), np.int64),
        counts=dict.fromkeys(COUNTS, 0),
        log=np.zeros((log, len(LOG))),
    )  # fmt: skip


def bin_of(time: float) -> int:
    """Bin of a time in a histogram.

    >>> bin_of(1e-9), bin_of(1e-6 * 1.005**10.5), bin_of(1e99) == BINS - 1
    (0, 10, True)
    """
    if time <= LOWEST:
        return 0
    found = int(math.log(time / LOWEST) / WIDTH)
    return found if found < BINS else BINS - 1


def edges() -> NDArray[np.float64]:
    """Edges of a histogram's bins [s], shape (bins + 1,); the outer ones are 0 and infinity."""
    made = LOWEST * np.exp(np.arange(BINS + 1) * WIDTH)
    made[0], made[-1] = 0.0, np.inf
    return made
