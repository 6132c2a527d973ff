"""Energy: an idle floor plus power in proportion to how busy compute and memory are."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula

LINEAR = "linear power model: Fan, Weber and Barroso, ISCA 2007, section 4"


@formula("utilisation", LINEAR)
def busy_share(busy_time: Numeric, step_time: Numeric) -> Numeric:
    """Share of a step a resource is busy at its full rate [1]."""
    return busy_time / step_time


@formula("power", LINEAR)
def gpu_power(
    idle_power: Numeric, tdp: Numeric, compute_share: Numeric, memory_share: Numeric,
    compute_weight: Numeric, memory_weight: Numeric,
) -> Numeric:  # fmt: skip
    """Mean power of one GPU [W]: idle plus a share of the rest, never above the limit.

    Examples
    --------
    >>> gpu_power(100.0, 700.0, 1.0, 1.0, 0.7, 0.3)
    700.0
    """
    drive = compute_weight * compute_share + memory_weight * memory_share
    return idle_power + (tdp - idle_power) * xp.minimum(drive, 1.0)
