"""Time of an engine step as tables, so that a simulator can look up what `run_step` computes.

A step's kernels fall into four kinds, by what they depend on: the tokens of the step, its sequences
(output head, sampling), decode attention and prefill attention. Each kind is tabulated at every
integer by a few array calls of `run_step`; the step time is a sum of look-ups.

Decode attention is tabulated per sequence over its context, so that sequences on either side of a
sliding window are told apart; where it is linear in the context, the mean context of a step will
do. Unlike contexts, and unlike prompt chunks, share one kernel launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwdb.citation import Numeric
from perfmodel.core.errors import UsageError
from perfmodel.core.types import TokenGroup
from perfmodel.serving.engine import System
from perfmodel.step.step import run_step
from perfmodel.time.operator_time import OperatorTime

Table = NDArray[np.float64]
Counts = NDArray[np.int64]
Chunk = tuple[int, int]

_MOST_PIECES = 8
_PLANE = 4  # coefficients of a plane: constant, rows, sequences, past tokens of prompts
# Steps that tell the coefficients apart, and (1, rows, sequences, past) of each.
PLANE_PROBES: Final = (
    TokenGroup(2.0, 1.0, 0.0), TokenGroup(2.0, 1.5, 0.0), TokenGroup(1.0, 2.0, 0.0),
    TokenGroup(1.0, 2.0, 1024.0),
)  # fmt: skip
PLANE_FEATURES: Final[Table] = np.array(
    [[1, 2, 2, 0], [1, 3, 2, 0], [1, 2, 1, 0], [1, 2, 1, 1024]], dtype=np.float64
)


@dataclass(frozen=True, slots=True)
class Surface:
    """Step time of one replica in additive parts; all times in seconds.

    Attributes
    ----------
    overhead : float
        Per step: the engine's share, and launches that every step has.
    rows : array, shape (most rows + 1,)
        Kernels applied to every token of the step, by the number of tokens.
    sequences : array, shape (most sequences + 1,)
        Kernels applied once per sequence, by the number of sequences.
    decode : array, shape (longest + 2,)
        Decode attention of one sequence by its context, the new token included.
    linear : bool
        Whether decode attention is linear in the context.
    decode_launch, prefill_launch : float
        Fixed cost of the attention kernels of a step that has such tokens.
    work, reads : array, shape (kernels, longest + 1)
        Prefill attention: compute time of the first ``x`` tokens of a sequence, and memory time of
        ``x`` tokens read back from the cache.
    writes : array, shape (kernels,)
        Memory time per new token of prefill attention.
    planes : array, shape (kernels, 2, 4)
        Kernels that depend on tokens and sequences or on prompts' cached tokens: their compute and
        memory time as linear functions of (1, rows, sequences, past).
    """

    overhead: float
    rows: Table
    sequences: Table
    decode: Table
    linear: bool
    decode_launch: float
    prefill_launch: float
    work: Table
    reads: Table
    writes: Table
    planes: Table

    @property
    def longest(self) -> int:
        """Longest sequence the tables reach [tokens]."""
        return self.work.shape[1] - 1

    def time(self, contexts: Sequence[int], chunks: Sequence[Chunk] = ()) -> float:
        """Time of one step [s].

        Parameters
        ----------
        contexts : sequence of int
            Tokens of each sequence that decodes one token, the new one included.
        chunks : sequence of (new, past)
            Prompt tokens computed, and those of the same prompt already in the cache.
        """
        running = len(contexts)
        tokens, seqs, past = running, running + len(chunks), 0
        spent = self.overhead
        if running and self.linear:
            mean = sum(contexts) / running
            low = int(mean)
            share = mean - low
            each = (1 - share) * self.decode.item(low) + share * self.decode.item(low + 1)
            spent += running * each + self.decode_launch
        elif running:
            spent += float(self.decode[contexts].sum()) + self.decode_launch
        if chunks:
            spent += self.prefill_launch
        for new, before in chunks:
            tokens, past = tokens + new, past + before
            for kernel, write in enumerate(self.writes.tolist()):
                work = self.work.item(kernel, before + new) - self.work.item(kernel, before)
                spent += max(work, self.reads.item(kernel, before) + write * new)
        spent += self.rows.item(tokens) + self.sequences.item(seqs)
        for compute, memory in self.planes.tolist():
            spent += max(_plane(compute, tokens, seqs, past), _plane(memory, tokens, seqs, past))
        return spent

    def prefill_times(self, new: NDArray[np.int64], past: NDArray[np.int64]) -> Table:
        """Prefill attention of chunks of prompts without launches [s], shape (chunks,)."""
        work = self.work[:, past + new] - self.work[:, past]
        return np.maximum(work, self.reads[:, past] + self.writes[:, None] * new).sum(axis=0)


def tabulate(system: System, rows: int, sequences: int, longest: int) -> Surface:
    """Surface of one replica of ``system``.

    Parameters
    ----------
    rows, sequences, longest : int
        Most tokens and sequences of a step, longest sequence [tokens]: the reach of the tables.

    Raises
    ------
    UsageError
        The model is an operator graph, or an encoder-decoder.
    perfmodel.core.errors.InfeasibleError
        A datapath or a network is missing.
    """
    _supported(system)
    kinds = operator_kinds(system)

    def pick(group: TokenGroup, *wanted: str) -> list[OperatorTime]:
        return [
            item for item in timed_operators(system, group) if kinds[item.operator.name] in wanted
        ]

    every_row = np.arange(rows + 1.0)
    every_seq = np.arange(sequences + 1.0)
    lengths = np.arange(longest + 1.0)
    # Context 0 does not occur; the entry beyond the longest is for interpolation.
    contexts = np.clip(np.arange(longest + 2.0), 1.0, longest)
    each = _sum(
        (
            item.operator.count * _lanes(item)
            for item in pick(TokenGroup(1.0, 1.0, contexts - 1, "decode"), "decode")
        ),
        contexts,
    )
    planes = pick(TokenGroup(1.0, 1.0, 0.0), "plane")
    work, reads, writes = _prefill(lambda group: pick(group, "prefill"), lengths)
    return Surface(
        overhead=float(system.machine.calibration.step_overhead.value) + _launches(planes),
        rows=_sum((item.total for item in pick(TokenGroup(1.0, every_row, 0.0), "rows")),
                  every_row),
        sequences=_sum(
            (item.total for item in pick(TokenGroup(every_seq, 1.0, 0.0), "sequences")), every_seq
        ),
        decode=each,
        linear=_is_linear(each[1:-1]),
        decode_launch=_launches(pick(TokenGroup(1.0, 1.0, 0.0, "decode"), "decode")),
        prefill_launch=_launches(pick(TokenGroup(1.0, 1.0, 0.0), "prefill")),
        work=work, reads=reads, writes=writes,
        planes=_planes(lambda group: pick(group, "plane")),
    )  # fmt: skip


def _is_linear(values: Table) -> bool:
    """Whether equally spaced values lie on a line, to rounding."""
    line = values[0] + (values[-1] - values[0]) * np.linspace(0.0, 1.0, len(values))
    return bool(np.all(np.abs(values - line) <= 1e-12 * np.abs(values).max(initial=0.0)))


def linear_pieces(decode: Table) -> Counts:
    """First contexts of the pieces in which decode attention is linear; none if they are many.

    Examples
    --------
    >>> window = np.minimum(np.arange(9.0), 4.0)
    >>> linear_pieces(window).tolist()
    [1, 5]
    """
    values = decode[1:-1]
    slack = 1e-12 * float(np.abs(values).max(initial=0.0))
    bends = np.flatnonzero(np.abs(np.diff(values, 2)) > slack) + 2
    # a bend at x ends a piece with x; a piece of two contexts is linear whatever they are
    first, made = 0, [0]
    for bend in bends.tolist():
        if bend > first + 1:
            first = bend
            made.append(first)
        if len(made) > _MOST_PIECES:
            return np.zeros(0, np.int64)
    for low, end in zip(made, [*made[1:], len(values)], strict=True):
        if not _is_linear(values[low:end]):
            return np.zeros(0, np.int64)
    return np.array(made, np.int64) + 1


def _supported(system: System) -> None:
    model = system.architecture
    if model.graph is not None:
        raise UsageError(f"{model.name} has no tokens: see perfmodel.serving.simulate.passes")
    if model.encoder is not None:
        raise UsageError(f"{model.name} is an encoder-decoder, which simulate does not know yet")


def timed_operators(system: System, group: TokenGroup) -> tuple[OperatorTime, ...]:
    """Every kernel of a step of one group, with its times."""
    return run_step(
        system.architecture, system.layout, system.precision, system.machine, (group,),
        system.imbalance,
    ).operators  # fmt: skip


def operator_kinds(system: System) -> dict[str, str]:
    """What each operator's work depends on, found by changing one thing at a time.

    ``rows``, ``sequences``, ``decode`` and ``prefill`` attention, or ``plane``: more than one.
    """
    probes = {
        "base": TokenGroup(1.0, 64.0, 0.0),
        "rows": TokenGroup(1.0, 128.0, 0.0),
        "sequences": TokenGroup(64.0, 1.0, 0.0),
        "past": TokenGroup(1.0, 64.0, 512.0),
    }
    work = {name: _work(timed_operators(system, group)) for name, group in probes.items()}
    kinds = {
        name: "prefill"
        for name, family in _families(system, probes["base"])
        if family == "attention"
    }
    decode = TokenGroup(1.0, 1.0, 64.0, "decode")
    kinds |= {name: "decode" for name, family in _families(system, decode) if family == "attention"}
    for name, base in work["base"].items():
        depends = [probe for probe in ("rows", "sequences", "past") if work[probe][name] != base]
        alone = depends[0] if len(depends) == 1 else "rows" if not depends else "plane"
        kinds.setdefault(name, "plane" if alone == "past" else alone)
    return kinds


def _families(system: System, group: TokenGroup) -> list[tuple[str, str]]:
    return [(item.operator.name, item.operator.family) for item in timed_operators(system, group)]


def _work(items: Iterable[OperatorTime]) -> dict[str, tuple[float, ...]]:
    """Work, traffic and message of each name, rounded so that a sum's order does not matter."""
    found: dict[str, list[float]] = {}
    for item in items:
        made = item.operator
        parts = (made.flops, item.traffic, made.message)
        sums = found.setdefault(made.name, [0.0] * len(parts))
        for index, part in enumerate(parts):
            sums[index] += float(made.count * part)
    return {name: tuple(float(f"{x:.9e}") for x in sums) for name, sums in found.items()}


def _prefill(
    pick: Callable[[TokenGroup], list[OperatorTime]], lengths: Table
) -> tuple[Table, Table, Table]:
    """Tables of prefill attention; kernels of equal shape are one entry.

    Pairs of a chunk are those of all tokens up to its end less those up to its start, and keys are
    a function of the past plus the new tokens: true of full, windowed, chunked and pooled masks.
    """
    whole = pick(TokenGroup(1.0, lengths, 0.0))
    again = pick(TokenGroup(1.0, 1.0, lengths))
    ones, twos = pick(TokenGroup(1.0, 1.0, 0.0)), pick(TokenGroup(1.0, 2.0, 0.0))
    merged: dict[tuple[bytes, bytes], tuple[Table, Table, float]] = {}
    for first, past, one, two in zip(whole, again, ones, twos, strict=True):
        count = float(first.operator.count)
        compute = np.broadcast_to(first.compute, lengths.shape)
        write = float(two.memory - one.memory)
        reads = np.broadcast_to(past.memory - write, lengths.shape)
        key = (compute.tobytes(), reads.tobytes())
        known = merged.get(key, (np.zeros_like(lengths), np.zeros_like(lengths), 0.0))
        merged[key] = (
            known[0] + count * compute,
            known[1] + count * reads,
            known[2] + count * write,
        )
    kernels = list(merged.values())
    shape = (len(kernels), len(lengths))
    return (
        np.array([work for work, _, _ in kernels]).reshape(shape),
        np.array([reads for _, reads, _ in kernels]).reshape(shape),
        np.array([write for _, _, write in kernels]),
    )


def _planes(pick: Callable[[TokenGroup], list[OperatorTime]]) -> Table:
    """Linear compute and memory times of the kernels of more than one variable."""
    measured = [pick(group) for group in PLANE_PROBES]
    made = np.zeros((len(measured[0]), 2, _PLANE))
    for index, items in enumerate(zip(*measured, strict=True)):
        count = float(items[0].operator.count)
        for lane, values in enumerate(([i.compute for i in items], [i.memory for i in items])):
            made[index, lane] = np.linalg.solve(PLANE_FEATURES, np.array(values) * count)
    return made


def _plane(weights: Sequence[float], rows: int, seqs: int, past: int) -> float:
    return weights[0] + weights[1] * rows + weights[2] * seqs + weights[3] * past


def _lanes(item: OperatorTime) -> Numeric:
    """Time of one execution without its fixed cost [s]."""
    return np.maximum(item.compute, item.memory)


def _launches(items: Iterable[OperatorTime]) -> float:
    """Fixed costs of all executions [s]; the same whatever the kernel's size."""
    return float(sum(item.operator.count * (item.time - _lanes(item)) for item in items))


def _sum(parts: Iterable[Numeric], like: Table) -> Table:
    made = np.zeros_like(like)
    for part in parts:
        made += part
    return made
