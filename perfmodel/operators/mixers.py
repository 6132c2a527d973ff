"""Operators of a layer's token mixer: softmax, latent and compressed attention, recurrent mixers.

`caches` says what a mixer keeps per sequence; memory and traffic both read it.
"""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.types import TokenGroup
from perfmodel.models.blocks import Dim, Linear
from perfmodel.models.mixers import (
    CompressedAttention,
    GatedDelta,
    Indexer,
    LatentAttention,
    Mamba,
    Mixer,
    SoftmaxAttention,
)
from perfmodel.operators import attention as cores
from perfmodel.operators import scan
from perfmodel.operators.base import Operator, total
from perfmodel.operators.context import StepContext

# A sparse indexer stores one fp8 key with an fp32 scale per token (DeepSeek-V3.2-Exp, section 2.1).
_INDEX_SCALE_BYTES = 4.0
_STATE_BYTES = 4.0  # recurrent states are kept in fp32


def mixer_operators(step: StepContext, mixer: Mixer, count: Numeric) -> list[Operator]:
    """All kernels of one mixer, its tensor-parallel reduction apart."""
    if isinstance(mixer, SoftmaxAttention):
        return _softmax(step, mixer, count)
    if isinstance(mixer, LatentAttention):
        return _latent(step, mixer, count)
    if isinstance(mixer, CompressedAttention):
        return _compressed(step, mixer, count)
    return _recurrent(step, mixer, count)


def caches(
    step: StepContext, mixer: Mixer | None, tokens: Numeric
) -> list[tuple[Numeric, Numeric]]:
    """What one layer keeps of a sequence of ``tokens`` tokens on one rank.

    Returns
    -------
    list of (entries, width)
        Cached entries per sequence [1] and bytes per entry [B]; a recurrent state is one entry.
    """
    if isinstance(mixer, SoftmaxAttention):
        limit = mixer.window or mixer.chunk
        kept = tokens if limit is None else xp.minimum(tokens, float(limit))
        return [(kept, _token_width(step, mixer))]
    if isinstance(mixer, LatentAttention):
        return [(tokens, _token_width(step, mixer))]
    if isinstance(mixer, CompressedAttention):
        width = mixer.head_dim * step.precision.kv.bytes
        window: tuple[Numeric, Numeric] = (xp.minimum(tokens, float(mixer.window)), width)
        if not mixer.ratio:
            return [window]
        return [window, (tokens / mixer.ratio, width + _index_width(mixer.indexer))]
    if mixer is None:
        return []
    return [(1.0, mixer.state_elements / step.layout.tp * _STATE_BYTES)]


def _token_width(step: StepContext, mixer: SoftmaxAttention | LatentAttention) -> Numeric:
    """Cache bytes of one token on one rank: keys and values, or the latent; index keys included."""
    return _core_width(step, mixer) + _index_width(mixer.indexer)


def _core_width(step: StepContext, mixer: SoftmaxAttention | LatentAttention) -> Numeric:
    """Cache bytes an attention core reads per key; the index keys are the indexer's to read."""
    if isinstance(mixer, LatentAttention):
        return (mixer.kv_rank + mixer.rope_dim) * step.precision.kv.bytes
    dims = mixer.head_dim + (mixer.value_dim or mixer.head_dim)
    return step.local(Dim(mixer.kv_heads * dims, mixer.kv_heads)) * step.precision.kv.bytes


def _index_width(indexer: Indexer | None) -> float:
    return indexer.head_dim + _INDEX_SCALE_BYTES if indexer else 0.0


def _softmax(step: StepContext, mixer: SoftmaxAttention, count: Numeric) -> list[Operator]:
    linears = {linear.name: linear for linear in mixer.linears(step.hidden)}
    encoded = _encoded_rows(step)
    operators = [
        step.gemm(linear, count, rows=encoded if linear.name == "kv_proj" else None)
        for linear in linears.values()
    ]
    heads = step.local(Dim(mixer.heads, mixer.heads))
    width = _core_width(step, mixer)
    if not mixer.cross:
        keys = step.local(Dim(mixer.kv_heads * mixer.head_dim, mixer.kv_heads))
        written = _token_width(step, mixer)
        operators.append(_rope_and_write(step, count, heads * mixer.head_dim, 2 * keys, written))
    for group in step.groups:
        name = f"{group.phase}_{'cross_' if mixer.cross else ''}attention"
        pairs, keys = _pairs_and_keys(step, mixer, group)
        operators += _selection(step, mixer.indexer, group, count)
        operators.append(
            _core(step, name, count, group, pairs, keys, heads, mixer.head_dim,
                  mixer.value_dim or mixer.head_dim, width)
        )  # fmt: skip
    return operators


def _pairs_and_keys(
    step: StepContext, mixer: SoftmaxAttention, group: TokenGroup
) -> tuple[Numeric, Numeric]:
    if mixer.cross:
        return cores.full_pairs(group.new, group.memory - group.new), group.memory
    if not step.causal:
        return cores.full_pairs(group.new, group.past), cores.causal_keys(group.new, group.past)
    if mixer.chunk is not None:
        window = float(mixer.chunk)
        pairs = cores.chunk_pairs(group.new, group.past, window)
        return pairs, cores.chunk_keys(group.new, group.past, window)
    return _causal(group, mixer.window or _budget(mixer.indexer))


def _causal(group: TokenGroup, window: float | None) -> tuple[Numeric, Numeric]:
    """Pairs and keys of causal attention, over everything or at most ``window`` keys a token."""
    if window is None:
        return (
            cores.causal_pairs(group.new, group.past),
            cores.causal_keys(group.new, group.past),
        )
    return (
        cores.window_pairs(group.new, group.past, float(window)),
        cores.window_keys(group.new, group.past, float(window)),
    )


def _budget(indexer: Indexer | None) -> float | None:
    """Keys a token attends to after selection."""
    return float(indexer.top_k) if indexer else None


def _core(
    step: StepContext, name: str, count: Numeric, group: TokenGroup, pairs: Numeric, keys: Numeric,
    heads: Numeric, score: float, value: float, width: Numeric,
) -> Operator:  # fmt: skip
    """Attention core of one token group; context parallelism divides its pairs and its cache."""
    share = group.seqs / step.layout.cp
    return Operator(
        name,
        "attention",
        count,
        step.precision.base.math,
        cores.attention_flops(share, pairs, heads, float(score), float(value)),
        kv_bytes=cores.cache_read_bytes(share, keys, width),
        activation_bytes=cores.attention_activation_bytes(
            share, group.new, heads, float(score), float(value), step.width
        ),
    )


def _rope_and_write(
    step: StepContext, count: Numeric, query: Numeric, keys: Numeric, width: Numeric
) -> Operator:
    """Rotary embedding in place and the write of the new tokens' entries into the cache."""
    made = step.pointwise("rope_cache", count, query + keys, query)
    written = cores.cache_write_bytes(step.rows, 1.0, width)
    return Operator(made.name, made.family, made.count, made.math, made.flops,
                    kv_bytes=written, activation_bytes=made.activation_bytes)  # fmt: skip


def _selection(
    step: StepContext, indexer: Indexer | None, group: TokenGroup, count: Numeric,
    ratio: float = 1.0,
) -> list[Operator]:  # fmt: skip
    """The indexer's scores over all earlier keys (pooled ``ratio`` to one), before attention."""
    if indexer is None:
        return []
    share = group.seqs / step.layout.cp / ratio
    pairs, keys = _causal(group, None)
    index = Operator(
        f"{group.phase}_index",
        "attention",
        count,
        step.precision.base.math,
        cores.index_flops(share, pairs, float(indexer.heads), float(indexer.head_dim)),
        index_bytes=cores.cache_read_bytes(share, keys, _index_width(indexer)),
    )
    return [index]


def _latent(step: StepContext, mixer: LatentAttention, count: Numeric) -> list[Operator]:
    """Absorbed form in decode and with an indexer, expanded form in dense prefill.

    The up projection costs the same in both for new tokens: absorbed, its halves act on queries and
    outputs instead of keys and values.
    """
    expanded = None if mixer.indexer else _expanded_rows(step)
    operators = [
        step.gemm(linear, count, rows=expanded if linear.name == "kv_b_proj" else None)
        for linear in mixer.linears(step.hidden)
    ]
    heads = step.local(Dim(mixer.heads, mixer.heads))
    width = _core_width(step, mixer)
    latent, head = float(mixer.kv_rank + mixer.rope_dim), mixer.nope_dim + mixer.rope_dim
    written = _token_width(step, mixer)
    operators.append(_rope_and_write(step, count, heads * head, latent, written))
    for group in step.groups:
        absorbed = group.phase == "decode" or mixer.indexer is not None
        score, value = (latent, mixer.kv_rank) if absorbed else (head, mixer.value_dim)
        pairs, keys = _causal(group, _budget(mixer.indexer))
        operators += _selection(step, mixer.indexer, group, count)
        name = f"{group.phase}_attention"
        operators.append(_core(step, name, count, group, pairs, keys, heads, score, value, width))
    return operators


def _expanded_rows(step: StepContext) -> Numeric:
    """Tokens of the up projection: dense prefill expands cached latents again, decode does not."""
    again = (group.seqs * group.past for group in step.groups if group.phase == "prefill")
    return step.rows + total(*again) / step.layout.cp


def _encoded_rows(step: StepContext) -> Numeric:
    return total(*(group.seqs * group.encode for group in step.groups)) / step.layout.cp


def _compressed(step: StepContext, mixer: CompressedAttention, count: Numeric) -> list[Operator]:
    """A window of plain keys, and pooled keys behind it (all, or those the indexer selects)."""
    operators = [step.gemm(linear, count) for linear in mixer.linears(step.hidden)]
    heads = step.local(Dim(mixer.heads, mixer.heads))
    width = mixer.head_dim * step.precision.kv.bytes
    pooling = 1.0 + (1.0 / mixer.ratio if mixer.ratio else 0.0)
    operators.append(
        _rope_and_write(step, count, heads * mixer.head_dim, float(mixer.head_dim), width * pooling)
    )
    for group in step.groups:
        pairs, keys = _causal(group, float(mixer.window))
        if mixer.ratio:
            operators += _selection(step, mixer.indexer, group, count, float(mixer.ratio))
            limit = _budget(mixer.indexer)
            reach = None if limit is None else limit * mixer.ratio
            far_pairs, far_keys = _causal(group, reach)
            pairs, keys = pairs + far_pairs / mixer.ratio, keys + far_keys / mixer.ratio
        name = f"{group.phase}_attention"
        dims = (mixer.head_dim, mixer.head_dim)
        operators.append(_core(step, name, count, group, pairs, keys, heads, *dims, width))
    return operators


def _recurrent(step: StepContext, mixer: GatedDelta | Mamba, count: Numeric) -> list[Operator]:
    linears: tuple[Linear, ...] = mixer.linears(step.hidden)
    rows, tp = step.rows, step.layout.tp
    channels = mixer.conv_channels / tp
    if isinstance(mixer, GatedDelta):
        dims = (float(mixer.key_dim), float(mixer.value_dim))
        work = scan.delta_flops(rows, mixer.value_heads / tp, *dims)
    else:
        work = scan.ssm_flops(rows, mixer.inner / tp, float(mixer.state))
    seqs = total(*(group.seqs for group in step.groups))
    scanned = Operator(
        "scan",
        "scan",
        count,
        "fp32",
        work + scan.short_conv_flops(rows, channels, float(mixer.conv)),
        kv_bytes=scan.state_bytes(seqs, mixer.state_elements / tp, _STATE_BYTES),
        activation_bytes=2 * channels * step.width * rows,
    )
    convolution = step.pointwise("short_conv", count, channels, channels)
    return [*(step.gemm(linear, count) for linear in linears), convolution, scanned]
