"""FLOPs, memory traffic and busy lanes of whole runs, tabulated like the step time.

A run is known by histograms (how many steps computed how many tokens, and how many sequences) and
by the time attention took; `Work` is what each of these stands for. Work adds up where time, being
the slower of two lanes, does not: sums over many steps are exact.

Not counted: draft models, loading of adapters, copies of cache to the host or to other replicas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwdb.citation import UnknownValue
from perfmodel.core.types import TokenGroup
from perfmodel.serving.engine import System
from perfmodel.serving.requests import Counts
from perfmodel.serving.simulate.surface import (
    PLANE_FEATURES,
    PLANE_PROBES,
    Surface,
    Table,
    operator_kinds,
    timed_operators,
)
from perfmodel.step.step import run_step
from perfmodel.time.operator_time import OperatorTime

# What is summed, per GPU: matrix FLOPs, device-memory bytes, and the time compute and memory would
# need alone [s].
QUANTITIES: Final = ("flops", "traffic", "compute", "memory")


@dataclass(frozen=True, slots=True)
class Gpus:
    """What shares and power of a replica's GPUs are reckoned with.

    Attributes
    ----------
    count : float
        GPUs of the replica; of a pipeline, its share of them, which do the work of one each.
    peak, bandwidth : float
        Of one GPU: dense 16-bit rate [FLOP/s], memory bandwidth [B/s].
    idle_power, tdp, compute_power, memory_power : float
        Power of one GPU [W], nan where the database does not know it, and the shares of the
        dynamic power that compute and memory draw [1].
    """

    count: float
    peak: float
    bandwidth: float
    idle_power: float
    tdp: float
    compute_power: float
    memory_power: float

    @classmethod
    def of(cls, system: System) -> Gpus:
        """GPUs of one replica of ``system``."""
        machine, layout = system.machine, system.layout
        achieved = machine.calibration
        try:
            tdp, idle = float(machine.gpu.power.tdp.value), float(machine.idle_power)
        except UnknownValue:
            tdp = idle = math.nan
        return cls(
            count=float(layout.gpus / (layout.dp * layout.pp)),
            peak=float(machine.peak(system.precision.base.math)),
            bandwidth=float(machine.bandwidth),
            idle_power=idle,
            tdp=tdp,
            compute_power=float(achieved.compute_power.value),
            memory_power=float(achieved.memory_power.value),
        )


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one GPU of a replica, in the four `QUANTITIES` (first axis of each table).

    Attributes
    ----------
    rows : array, shape (4, most rows + 1)
        Kernels applied to every token of a step, by the number of tokens.
    sequences : array, shape (4, most sequences + 1)
        Kernels applied once per sequence, by the number of sequences.
    decode : array, shape (4, longest + 1)
        Decode attention of one sequence by its context, the new token included.
    pairs, reads : array, shape (4, longest + 1)
        Prefill attention: of the first ``x`` tokens of a sequence (FLOPs, compute), and of ``x``
        tokens read back from the cache (traffic, memory).
    writes : array, shape (4,)
        Prefill attention per new token.
    planes : array, shape (4, 4)
        All other kernels, linear in (1, rows, sequences, past tokens of prompts).
    gpus : Gpus
        That do it.
    """

    rows: Table
    sequences: Table
    decode: Table
    pairs: Table
    reads: Table
    writes: Table
    planes: Table
    gpus: Gpus

    @classmethod
    def of(cls, system: System, surface: Surface, passes: int = 1) -> Work:
        """Work of one replica of ``system``, as far as its ``surface`` reaches.

        Parameters
        ----------
        system : System
        surface : Surface
            What `perfmodel.serving.simulate.surface_for` gave for it.
        passes : int
            Evaluations of a diffusion model per request and step.

        Raises
        ------
        perfmodel.core.errors.InfeasibleError
            A datapath or a network is missing.
        """
        if system.architecture.graph is not None:
            tables = _pass_tables(system, surface, passes)
        else:
            tables = _tables(system, surface)
        return cls(**tables, gpus=Gpus.of(system))

    def chunk(self, new: Counts, past: Counts) -> Table:
        """Prefill attention of chunks of prompts, shape (4, chunks)."""
        made = self.pairs[:, past + new] - self.pairs[:, past] + self.reads[:, past]
        return made + self.writes[:, None] * new

    def attended(self, surface: Surface, attention: Table, asked: Asked) -> tuple[Table, float]:
        """Work of a run's attention, and the past tokens of its prompts.

        Attention is known by its time. What kind of work filled it is taken from what was asked:
        exact where each request was served once, uncut by others and without drafts.

        Parameters
        ----------
        surface : Surface
        attention : array, shape (2,)
            Time of decode and of prefill attention [s].
        asked : Asked
        """
        reach = len(asked.contexts)
        decoding = _ratio(attention[0], float(asked.contexts @ surface.decode[:reach]))
        spent = surface.prefill_times(asked.new, asked.past)
        prompting = _ratio(attention[1], float(asked.chunks @ spent))
        made = decoding * (self.decode[:, :reach] @ asked.contexts)
        made += prompting * (self.chunk(asked.new, asked.past) @ asked.chunks)
        return made, prompting * float(asked.chunks @ asked.past)

    def total(
        self, surface: Surface, row_steps: Counts, sequence_steps: Counts, attention: Table,
        asked: Asked,
    ) -> Table:  # fmt: skip
        """Work of a run, the `QUANTITIES` of one GPU; see `Record` for the arguments."""
        rows, sequences = row_steps[: self.rows.shape[1]], sequence_steps[: self.sequences.shape[1]]
        made, past = self.attended(surface, attention, asked)
        features: Table = np.array([
            rows.sum(), rows @ np.arange(len(rows)), sequences @ np.arange(len(sequences)), past,
        ])  # fmt: skip
        made += self.rows @ rows + self.sequences @ sequences + self.planes @ features
        return made


@dataclass(frozen=True, slots=True)
class Asked:
    """Attention that requests ask for if each is served once.

    Attributes
    ----------
    contexts : array of int64, shape (longest + 1,)
        Decoded tokens by their context.
    new, past, chunks : array of int64, shape (m,)
        Chunks of prompts by their tokens and the tokens before them, and how many there are.
    """

    contexts: Counts
    new: Counts
    past: Counts
    chunks: Counts

    @classmethod
    def of(cls, prompt: Counts, output: Counts, hits: Counts | None, size: int) -> Asked:
        """Attention of requests.

        Parameters
        ----------
        prompt, output : array of int64, shape (n,)
        hits : array of int64, shape (n,), optional
            Leading prompt tokens that need not be computed.
        size : int
            Most tokens of a chunk.
        """
        longest = int(np.max(prompt + output, initial=0))
        # The first output token comes from the prompt, the next has a context of prompt + 1.
        begun = np.bincount(prompt + 1, minlength=longest + 2)
        ended = np.bincount(prompt + output, minlength=longest + 2)
        contexts = np.cumsum(begun - ended)[: longest + 1]
        key = prompt if hits is None else hits * (longest + 1) + prompt
        kinds, counts = np.unique(key, return_counts=True)
        past, end = np.divmod(kinds, longest + 1)
        parts = [np.stack(part) for part in _cut(past, end, counts, size)]
        new, before, times = np.concatenate(parts, axis=1)
        return cls(contexts, new, before, times)


def _tables(system: System, surface: Surface) -> dict[str, Table]:
    """Work of a model that generates token by token, by kinds of kernels."""
    kinds = operator_kinds(system)

    def sums(kind: str, group: TokenGroup, like: Table) -> Table:
        items = timed_operators(system, group)
        return _sums([item for item in items if kinds[item.operator.name] == kind], like)

    one = np.zeros(1)
    lengths = np.arange(surface.longest + 1.0)
    every_row = np.arange(float(len(surface.rows)))
    every_seq = np.arange(float(len(surface.sequences)))
    contexts = np.maximum(lengths, 1.0)
    writes = sums("prefill", TokenGroup(1.0, 2.0, 0.0), one) - sums(
        "prefill", TokenGroup(1.0, 1.0, 0.0), one
    )
    # FLOPs and compute time follow the pairs, traffic and memory time the tokens.
    by_pairs = np.array([[1.0], [0.0], [1.0], [0.0]])
    by_tokens = 1.0 - by_pairs
    writes *= by_tokens
    probed = np.array([sums("plane", probe, one)[:, 0] for probe in PLANE_PROBES])
    planes = np.linalg.solve(PLANE_FEATURES, probed).T.astype(np.float64)
    return {
        "rows": sums("rows", TokenGroup(1.0, every_row, 0.0), every_row),
        "sequences": sums("sequences", TokenGroup(every_seq, 1.0, 0.0), every_seq),
        "decode": sums("decode", TokenGroup(1.0, 1.0, contexts - 1.0, "decode"), lengths),
        "pairs": by_pairs * sums("prefill", TokenGroup(1.0, lengths, 0.0), lengths),
        "reads": by_tokens * (sums("prefill", TokenGroup(1.0, 1.0, lengths), lengths) - writes),
        "writes": writes[:, 0],
        "planes": planes,
    }


def _pass_tables(system: System, surface: Surface, passes: int) -> dict[str, Table]:
    """Work of a model without a cache; every step is a batch of passes."""
    batch = np.arange(float(len(surface.rows))) * passes
    step = run_step(
        system.architecture, system.layout, system.precision, system.machine,
        (TokenGroup(np.maximum(batch, passes), 1.0, 0.0),), system.imbalance, "sums",
    )  # fmt: skip
    parts = (step.flops, step.traffic, step.compute, step.memory)
    none = np.zeros((len(QUANTITIES), surface.longest + 1))
    return {
        "rows": np.stack([np.where(batch > 0, part, 0.0) for part in parts]),
        "sequences": np.zeros((len(QUANTITIES), len(surface.sequences))),
        "decode": none, "pairs": none, "reads": none,
        "writes": np.zeros(len(QUANTITIES)), "planes": np.zeros((len(QUANTITIES), 4)),
    }  # fmt: skip


def _cut(
    past: Counts, end: Counts, counts: Counts, size: int
) -> Iterator[tuple[Counts, Counts, Counts]]:
    """First, second, ... chunks of all prompts: new tokens, past tokens, how many."""
    while len(past):
        new = np.minimum(end - past, size)
        yield new, past, counts
        left = past + new < end
        past, end, counts = (past + new)[left], end[left], counts[left]


def _ratio(spent: float, expected: float) -> float:
    return spent / expected if expected > 0 else 0.0


def _sums(items: Sequence[OperatorTime], like: Table) -> Table:
    """The `QUANTITIES` of some kernels, as `perfmodel.step.step.run_step` counts them."""
    made = np.zeros((len(QUANTITIES), len(like)))
    for item in items:
        operator = item.operator
        flops = 0.0 if operator.family == "pointwise" else operator.flops
        for row, part in enumerate((flops, item.traffic, item.compute, item.memory)):
            made[row] += operator.count * part
    return made
