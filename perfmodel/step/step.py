"""The one step function: any mix of token groups in, times, work and traffic out.

Prefill, decode, a chunked mix and a speculative verify are different `TokenGroup`s of the same
call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwdb.citation import Numeric
from perfmodel.core.precision import Precision
from perfmodel.core.types import TokenGroup
from perfmodel.models.architecture import Architecture
from perfmodel.operators.model import step_operators
from perfmodel.parallel.layout import Layout
from perfmodel.time.machine import Machine
from perfmodel.time.operator_time import OperatorTime, operator_time

Detail = Literal["time", "sums", "operators"]


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step on one rank.

    Attributes
    ----------
    time : numeric
        Whole step, the engine's own overhead included [s].
    overhead : numeric
        The engine's share [s].
    flops : numeric
        Matrix work; pointwise work is not counted, as in model FLOPs [FLOP].
    traffic : numeric
        Device-memory traffic [B].
    compute, memory, network : numeric
        Time each lane would need alone [s].
    operators : tuple of OperatorTime
        Every kernel with its times, in execution order (with ``detail="operators"``).
    """

    time: Numeric
    overhead: Numeric
    flops: Numeric = float("nan")
    traffic: Numeric = float("nan")
    compute: Numeric = float("nan")
    memory: Numeric = float("nan")
    network: Numeric = float("nan")
    operators: tuple[OperatorTime, ...] = ()


def run_step(
    architecture: Architecture,
    layout: Layout,
    precision: Precision,
    machine: Machine,
    groups: Sequence[TokenGroup],
    imbalance: Numeric = 1.0,
    detail: Detail = "operators",
) -> Step:
    """Time of one step.

    Parameters
    ----------
    architecture, layout, precision, machine
        What runs, how it is divided, in which formats, on what.
    groups : sequence of TokenGroup
        Tokens of the step per data-parallel rank; numbers or arrays that broadcast.
    imbalance : numeric
        Tokens of the heaviest expert rank over the mean [1].
    detail : {"time", "sums", "operators"}
        How much to keep: a sweep over a million points keeps no operators, so that its working set
        stays in cache.

    Raises
    ------
    perfmodel.core.errors.InfeasibleError
        A datapath or a network the step needs does not exist on the machine.
    """
    overhead = machine.calibration.step_overhead.value
    time, flops, traffic, compute, memory, network = (_Sum() for _ in range(6))
    time.add(overhead)
    kept: list[OperatorTime] = []
    for operator in step_operators(architecture, layout, precision, groups, imbalance):
        item = operator_time(machine, operator)
        time.add(item.total)
        if detail == "time":
            continue
        if operator.family != "pointwise":
            flops.add(operator.count * operator.flops)
        traffic.add(operator.count * item.traffic)
        compute.add(operator.count * item.compute)
        memory.add(operator.count * item.memory)
        network.add(operator.count * item.network)
        if detail == "operators":
            kept.append(item)
    if detail == "time":
        return Step(time.value, overhead)
    return Step(
        time.value, overhead, flops.value, traffic.value, compute.value, memory.value,
        network.value, tuple(kept),
    )  # fmt: skip


class _Sum:
    """Running sum that keeps numbers apart from arrays and adds arrays in place."""

    __slots__ = ("_array", "_number")

    def __init__(self) -> None:
        self._number: float = 0.0
        self._array: Numeric | None = None

    def add(self, part: Numeric) -> None:
        if not isinstance(part, np.ndarray):
            self._number += part
        elif isinstance(self._array, np.ndarray) and self._array.shape == part.shape:
            self._array += part
        else:
            self._array = part + (0.0 if self._array is None else self._array)

    @property
    def value(self) -> Numeric:
        return self._number if self._array is None else self._array + self._number
