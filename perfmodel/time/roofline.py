"""Time of one kernel: the slower of its compute and its memory side, plus a fixed cost."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula

ROOFLINE = "Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009"


@formula("compute_time", ROOFLINE)
def compute_time(flops: Numeric, peak: Numeric, compute_efficiency: Numeric) -> Numeric:
    """Time a datapath of rate ``peak`` needs at an achieved fraction [s].

    Examples
    --------
    >>> compute_time(1e12, 1e15, 0.5)
    0.002
    """
    return flops / (peak * compute_efficiency)


@formula("memory_time", ROOFLINE)
def memory_time(traffic: Numeric, bandwidth: Numeric, memory_efficiency: Numeric) -> Numeric:
    """Time device memory needs for ``traffic`` at an achieved fraction of its bandwidth [s]."""
    return traffic / (bandwidth * memory_efficiency)


@formula("kernel_time", ROOFLINE)
def roofline_time(compute_time: Numeric, memory_time: Numeric, overhead: Numeric) -> Numeric:
    """Time of one kernel [s]: compute and memory overlap, its fixed cost does not.

    Examples
    --------
    >>> roofline_time(3.0, 2.0, 1.0)
    4.0
    """
    return xp.maximum(compute_time, memory_time) + overhead


@formula("intensity", ROOFLINE)
def arithmetic_intensity(flops: Numeric, traffic: Numeric) -> Numeric:
    """Work per byte moved [FLOP/B]."""
    return flops / traffic


@formula("ridge", ROOFLINE)
def ridge_point(peak: Numeric, bandwidth: Numeric) -> Numeric:
    """Arithmetic intensity above which a kernel is compute bound [FLOP/B].

    Examples
    --------
    >>> ridge_point(1000e12, 4e12)
    250.0
    """
    return peak / bandwidth
