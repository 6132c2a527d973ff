"""Memory-bound operators: norms, rotary embedding, activations, look-ups, sampling."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core.formula import formula

FUSED = "traffic of a fused kernel that reads its inputs and writes its outputs once"


@formula("activation_bytes", FUSED)
def pointwise_bytes(rows: Numeric, inner: Numeric, cols: Numeric, input_width: Numeric) -> Numeric:
    """Traffic of a kernel that reads ``inner`` and writes ``cols`` values per row [B].

    Examples
    --------
    >>> pointwise_bytes(1.0, 2.0, 2.0, 2.0)
    8.0
    """
    return (inner + cols) * input_width * rows


@formula("flops", FUSED)
def pointwise_flops(rows: Numeric, inner: Numeric, ops_per_value: Numeric) -> Numeric:
    """Vector-unit work of a kernel with ``ops_per_value`` operations on each value [FLOP]."""
    return inner * ops_per_value * rows
