"""Attention cores: which query-key pairs are computed, their work, and the cache they touch.

One token group has ``seqs`` sequences with ``new`` tokens each behind ``past`` cached ones; prefill
(past = 0), decode (new = 1), a prefill chunk and a speculative verify are values of these three
numbers, never separate formulas.
"""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula

COUNT = "operation count of the textbook algorithm"
FLASH = "Dao et al., FlashAttention, arXiv 2205.14135: scores stay on chip, K and V are read once"


@formula("pairs", COUNT)
def causal_pairs(new: Numeric, past: Numeric) -> Numeric:
    """Query-key pairs of ``new`` tokens that see the past and each other causally [1].

    Examples
    --------
    >>> causal_pairs(4.0, 0.0)
    10.0
    >>> causal_pairs(1.0, 99.0)
    100.0
    """
    return new * past + new * (new + 1) / 2


@formula("pairs", COUNT)
def full_pairs(new: Numeric, past: Numeric) -> Numeric:
    """Query-key pairs when every token sees all others (encoders) or a given memory [1]."""
    return new * (past + new)


@formula("pairs", COUNT)
def window_pairs(new: Numeric, past: Numeric, window: Numeric) -> Numeric:
    """Pairs when a token sees itself and at most ``window - 1`` tokens before it [1].

    Also a top-k budget: a token attends to at most ``window`` selected keys. The first
    ``min(new, window - past)`` tokens see less than a full window.

    Examples
    --------
    >>> window_pairs(4.0, 0.0, 2.0)
    7.0
    """
    growing = xp.minimum(xp.maximum(window - past, 0.0), new)
    return growing * past + growing * (growing + 1) / 2 + (new - growing) * window


@formula("pairs", COUNT)
def chunk_pairs(new: Numeric, past: Numeric, window: Numeric) -> Numeric:
    """Pairs when keys never cross a border between chunks of ``window`` tokens [1] (Llama 4)."""
    end = past + new
    whole_after, whole_before = xp.floor(end / window), xp.floor(past / window)
    rest_after, rest_before = end - whole_after * window, past - whole_before * window
    per_chunk = window * (window + 1) / 2
    return (
        (whole_after - whole_before) * per_chunk
        + rest_after * (rest_after + 1) / 2
        - rest_before * (rest_before + 1) / 2
    )


@formula("keys", COUNT)
def causal_keys(new: Numeric, past: Numeric) -> Numeric:
    """Cached tokens one sequence reads: its past and its new tokens [1]."""
    return past + new


@formula("keys", COUNT)
def window_keys(new: Numeric, past: Numeric, window: Numeric) -> Numeric:
    """Cached tokens one sequence reads when no token looks further back than ``window`` [1]."""
    return xp.minimum(past + new, window + new - 1)


@formula("keys", COUNT)
def chunk_keys(new: Numeric, past: Numeric, window: Numeric) -> Numeric:
    """Cached tokens one sequence reads [1] when keys never cross a border between chunks.

    Examples
    --------
    >>> chunk_keys(1.0, 99.0, 64.0)
    36.0
    """
    return past + new - xp.floor(past / window) * window


@formula("flops", COUNT)
def attention_flops(
    seqs: Numeric, pairs: Numeric, heads: Numeric, score_dim: Numeric, value_dim: Numeric
) -> Numeric:
    """Work of QK^T and PV over all pairs [FLOP]; softmax is not counted.

    ``score_dim`` and ``value_dim`` are the widths per head of a score and of a value.

    Examples
    --------
    >>> attention_flops(1.0, causal_pairs(1.0, 4095.0), 32.0, 128.0, 128.0)
    67108864.0
    """
    return 2 * heads * (score_dim + value_dim) * (seqs * pairs)


@formula("kv_bytes", FLASH)
def cache_read_bytes(seqs: Numeric, keys: Numeric, token_width: Numeric) -> Numeric:
    """Cache read by one layer, ``token_width`` bytes per cached token [B]."""
    return token_width * (seqs * keys)


@formula("kv_bytes", COUNT)
def cache_write_bytes(seqs: Numeric, new: Numeric, token_width: Numeric) -> Numeric:
    """Cache written by one layer for the new tokens [B]."""
    return token_width * (seqs * new)


@formula("activation_bytes", FLASH)
def attention_activation_bytes(
    seqs: Numeric, new: Numeric, heads: Numeric, score_dim: Numeric, value_dim: Numeric,
    input_width: Numeric,
) -> Numeric:  # fmt: skip
    """Queries read and outputs written [B]."""
    return heads * (score_dim + value_dim) * input_width * (seqs * new)


@formula("flops", "DeepSeek-V3.2-Exp report, section 2.1: index scores over all earlier keys")
def index_flops(seqs: Numeric, pairs: Numeric, index_heads: Numeric, index_dim: Numeric) -> Numeric:
    """Work of the lightning indexer's scores [FLOP]."""
    return 2 * index_heads * index_dim * (seqs * pairs)
