"""`Operator`: what one kernel of a step asks of the machine, per rank, and nothing about time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwdb.citation import Numeric

Family = Literal["gemm", "attention", "moe", "pointwise", "scan", "conv", "collective"]
Collective = Literal["all_reduce", "all_gather", "all_to_all", "point_to_point"]


@dataclass(frozen=True, slots=True)
class Operator:
    """Work of one kernel on the busiest rank.

    Parameters
    ----------
    name : str
        What it is, as engines call it (``qkv_proj``).
    family : Family
        Kernel family: which efficiency applies.
    count : numeric
        Executions per step [1].
    math : str
        Datapath: a dtype of the GPU's ``peak``, or of ``vector`` for pointwise and scan.
    flops : numeric
        Work per execution [FLOP].
    weight_bytes, kv_bytes, activation_bytes, index_bytes : numeric
        Device-memory traffic per execution by tensor class [B].
    collective, message, group : str and numeric
        Communication per execution: kind, bytes per rank [B], ranks [1].
    """

    name: str
    family: Family
    count: Numeric
    math: str = "bf16"
    flops: Numeric = 0.0
    weight_bytes: Numeric = 0.0
    kv_bytes: Numeric = 0.0
    activation_bytes: Numeric = 0.0
    index_bytes: Numeric = 0.0
    collective: Collective | None = None
    message: Numeric = 0.0
    group: Numeric = 1.0

    def traffic(self) -> Numeric:
        """Device-memory traffic per execution [B]."""
        return total(self.weight_bytes, self.kv_bytes, self.activation_bytes, self.index_bytes)


def total(*parts: Numeric) -> Numeric:
    """Sum of numbers and arrays, numbers first: in a sweep most parts are plain numbers."""
    scalar, arrays = 0.0, [part for part in parts if isinstance(part, np.ndarray)]
    for part in parts:
        if not isinstance(part, np.ndarray):
            scalar = scalar + part
    if not arrays:
        return scalar
    result = arrays[0]
    for array in arrays[1:]:
        result = result + array
    return result + scalar if scalar else result
