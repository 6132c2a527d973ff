"""Per-rank shapes: what one GPU holds and computes of a split dimension."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula

MEGATRON = "Shoeybi et al., Megatron-LM, arXiv 1909.08053, section 3"


@formula("local_size", MEGATRON)
def split_size(size: Numeric, units: Numeric, tp: Numeric) -> Numeric:
    """Size of a dimension of ``units`` indivisible granules on the fullest of ``tp`` ranks [1].

    Fewer granules than ranks means replication (grouped KV heads), as engines do.

    Examples
    --------
    >>> split_size(1024.0, 8.0, 4.0)
    256.0
    >>> split_size(1024.0, 8.0, 16.0)
    128.0
    """
    return size / units * xp.ceil_div(units, tp)


@formula("local_layers", "Narayanan et al., arXiv 2104.04473, section 2.2: stages of equal depth")
def stage_layers(layers: Numeric, pp: Numeric) -> Numeric:
    """Layers of the deepest pipeline stage [1]."""
    return xp.ceil_div(layers, pp)


@formula("moe_tp", "experts are divided over all ranks that hold a share of the layer")
def expert_tensor_parallel(tp: Numeric, dp: Numeric, ep: Numeric) -> Numeric:
    """Ways each expert is cut [1]: moe_tp x ep = tp x dp."""
    return tp * dp / ep


@formula("gpus", "every GPU has one place in the layout")
def layout_gpus(tp: Numeric, pp: Numeric, dp: Numeric, cp: Numeric) -> Numeric:
    """GPUs a layout occupies [1]; expert parallelism reuses the tp x dp ranks."""
    return tp * pp * dp * cp
