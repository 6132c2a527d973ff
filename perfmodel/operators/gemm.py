"""Dense matrix multiplication: ``out[rows, cols] = act[rows, inner] x weight[inner, cols]``."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core.formula import formula

COUNT = "operation count of the textbook algorithm"


@formula("flops", COUNT)
def gemm_flops(rows: Numeric, inner: Numeric, cols: Numeric) -> Numeric:
    """Multiplications and additions of a GEMM.

    Parameters
    ----------
    rows, inner, cols : numeric
        Tokens, input width, output width [1].

    Returns
    -------
    numeric
        Work [FLOP].

    Examples
    --------
    >>> gemm_flops(1.0, 4096.0, 4096.0)
    33554432.0
    """
    return 2 * inner * cols * rows


@formula("weight_bytes", COUNT)
def gemm_weight_bytes(inner: Numeric, cols: Numeric, weight_width: Numeric) -> Numeric:
    """Weights read once per GEMM, ``weight_width`` bytes an element with its scales [B]."""
    return inner * cols * weight_width


@formula("activation_bytes", COUNT)
def gemm_activation_bytes(
    rows: Numeric, inner: Numeric, cols: Numeric, input_width: Numeric, output_width: Numeric
) -> Numeric:
    """Activations read and written by a GEMM that keeps nothing on chip [B]."""
    return (inner * input_width + cols * output_width) * rows


@formula("flops", COUNT)
def conv_flops(
    rows: Numeric, inner: Numeric, cols: Numeric, kernel: Numeric, groups: Numeric
) -> Numeric:
    """Work of a 2-D convolution as an implicit GEMM [FLOP].

    ``rows`` output positions, ``inner`` input channels, ``cols`` output channels, a square kernel
    of side ``kernel``, channels divided into ``groups``.
    """
    return 2 * (inner / groups) * kernel**2 * cols * rows
