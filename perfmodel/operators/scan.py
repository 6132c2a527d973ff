"""Recurrent mixers: gated delta rule and selective state spaces, a state instead of a cache."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core.formula import formula


@formula("flops", "Yang et al., Gated Delta Networks, arXiv 2412.06464, eq. 10 (recurrent form)")
def delta_flops(rows: Numeric, heads: Numeric, score_dim: Numeric, value_dim: Numeric) -> Numeric:
    """Work of the gated delta rule [FLOP].

    Per token and value head, on a ``score_dim x value_dim`` state: decay (1 per element), read for
    the correction (2), rank-one update (2), read out (2).
    """
    return 7 * heads * score_dim * value_dim * rows


@formula("flops", "Gu and Dao, Mamba, arXiv 2312.00752, algorithm 2 (recurrent form)")
def ssm_flops(rows: Numeric, inner: Numeric, state: Numeric) -> Numeric:
    """Work of a selective scan [FLOP].

    Per token on an ``inner x state`` state: decay (1), input (2), accumulate (1), read out (2).
    """
    return 6 * inner * state * rows


@formula("flops", "operation count of a depthwise convolution")
def short_conv_flops(rows: Numeric, inner: Numeric, kernel: Numeric) -> Numeric:
    """Work of a causal depthwise convolution of ``inner`` channels, ``kernel`` taps [FLOP]."""
    return 2 * inner * kernel * rows


@formula("kv_bytes", "state read and written once per sequence and step")
def state_bytes(seqs: Numeric, state: Numeric, token_width: Numeric) -> Numeric:
    """Traffic of a recurrent state of ``state`` elements, ``token_width`` bytes each [B]."""
    return 2 * state * token_width * seqs
