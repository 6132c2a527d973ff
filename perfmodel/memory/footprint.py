"""Device memory: what each part of a deployment occupies on the fullest GPU, and what is left."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula

PAGED = "Kwon et al., PagedAttention, arXiv 2309.06180, section 4"
VLLM = "vLLM's memory profile: one forward pass at the token budget, then the cache takes the rest"


@formula("tensor_bytes", "definition")
def tensor_bytes(elements: Numeric, weight_width: Numeric) -> Numeric:
    """Bytes of a class of weights, scales included [B]."""
    return elements * weight_width


@formula("sequence_bytes", PAGED)
def sequence_cache_bytes(tokens: Numeric, page: Numeric, token_width: Numeric) -> Numeric:
    """Cache of one sequence of ``tokens`` tokens in whole pages [B].

    Examples
    --------
    >>> sequence_cache_bytes(17.0, 16.0, 2.0)
    64.0
    """
    return xp.ceil_div(tokens, page) * page * token_width


@formula("activation_peak", VLLM)
def activation_peak(
    budget: Numeric, hidden: Numeric, widest: Numeric, input_width: Numeric, seqs: Numeric,
    vocab: Numeric, output_width: Numeric,
) -> Numeric:  # fmt: skip
    """Most activation memory of a forward pass [B].

    ``budget`` tokens hold residual and normed input (2 x ``hidden``) and the input and output of
    the widest layer part (2 x ``widest``); sampling holds logits of ``seqs`` sequences,
    ``output_width`` bytes each.
    """
    return budget * (2 * hidden + 2 * widest) * input_width + output_width * seqs * vocab


@formula("kv_pool", VLLM)
def cache_pool(
    capacity: Numeric, memory_utilization: Numeric, weights: Numeric, activations: Numeric,
    reserve: Numeric,
) -> Numeric:  # fmt: skip
    """Bytes left for the KV cache on one GPU; negative if the model does not fit [B].

    Examples
    --------
    >>> cache_pool(80e9, 0.9, 40e9, 2e9, 3e9)
    27000000000.0
    """
    return capacity * memory_utilization - weights - activations - reserve


@formula("max_seqs", PAGED)
def sequences_that_fit(kv_pool: Numeric, sequence_bytes: Numeric, state_bytes: Numeric) -> Numeric:
    """Sequences of a given cache size that fit into the pool at once [1]."""
    return xp.maximum(xp.floor(kv_pool / (sequence_bytes + state_bytes)), 0.0)
