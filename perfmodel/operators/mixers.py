"""Operators of a layer's token mixer: softmax attention, latent attention, recurrent mixers."""

from __future__ import annotations

from hwdb.records import Numeric
from perfmodel.core.types import TokenGroup
from perfmodel.models.architecture import cache_elements
from perfmodel.models.blocks import (
    Dim,
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
INDEX_SCALE_BYTES = 4.0
_STATE_BYTES = 4.0  # recurrent states are kept in fp32


def mixer_operators(step: StepContext, mixer: Mixer, count: Numeric) -> list[Operator]:
    """All kernels of one mixer in execution order, its tensor-parallel reduction apart."""
    if isinstance(mixer, SoftmaxAttention):
        return _softmax(step, mixer, count)
    if isinstance(mixer, LatentAttention):
        return _latent(step, mixer, count)
    return _recurrent(step, mixer, count)


def token_width(step: StepContext, mixer: Mixer | None) -> Numeric:
    """Cache bytes one token costs one rank in one layer, index keys included."""
    if isinstance(mixer, SoftmaxAttention):
        keys = Dim(mixer.kv_heads * mixer.head_dim, mixer.kv_heads)
        return 2 * step.local(keys) * step.precision.kv.bytes
    if isinstance(mixer, LatentAttention):
        latent = cache_elements(mixer) * step.precision.kv.bytes
        return latent + (_index_width(mixer.indexer) if mixer.indexer else 0.0)
    return 0.0


def state_width(step: StepContext, mixer: Mixer | None) -> Numeric:
    """Recurrent-state bytes one sequence costs one rank in one layer."""
    elements = getattr(mixer, "state_elements", 0)
    return elements / step.layout.tp * _STATE_BYTES if elements else 0.0


def _softmax(step: StepContext, mixer: SoftmaxAttention, count: Numeric) -> list[Operator]:
    qkv, *middle, out = mixer.linears(step.hidden)
    operators = [step.gemm(qkv, count)]
    query = step.local(Dim(mixer.heads * mixer.head_dim, mixer.heads))
    width = token_width(step, mixer)
    if mixer.cross:
        encoded = _encoded_rows(step)
        operators += [step.gemm(linear, count, rows=encoded) for linear in middle]
    else:
        operators.append(_rope_and_write(step, mixer, count, query, width))
    for group in step.groups:
        name = f"{group.phase}_{'cross_' if mixer.cross else ''}attention"
        pairs, keys = _pairs_and_keys(step, mixer, group)
        heads = query / mixer.head_dim
        operators.append(
            _core(
                step, name, count, group, pairs, keys, heads, mixer.head_dim, mixer.head_dim, width
            )
        )
    return [*operators, step.gemm(out, count)]


def _pairs_and_keys(
    step: StepContext, mixer: SoftmaxAttention, group: TokenGroup
) -> tuple[Numeric, Numeric]:
    if mixer.cross:
        return cores.full_pairs(group.new, group.memory - group.new), group.memory
    if not step.causal:
        return cores.full_pairs(group.new, group.past), cores.causal_keys(group.new, group.past)
    if mixer.window is not None:
        window = float(mixer.window)
        return (
            cores.window_pairs(group.new, group.past, window),
            cores.window_keys(group.new, group.past, window),
        )
    if mixer.chunk is not None:
        window = float(mixer.chunk)
        return (
            cores.chunk_pairs(group.new, group.past, window),
            cores.window_keys(group.new, group.past, window),
        )
    return cores.causal_pairs(group.new, group.past), cores.causal_keys(group.new, group.past)


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
    step: StepContext, mixer: SoftmaxAttention, count: Numeric, query: Numeric, width: Numeric
) -> Operator:
    """Rotary embedding in place and the write of new keys and values into the cache."""
    keys = step.local(Dim(mixer.kv_heads * mixer.head_dim, mixer.kv_heads))
    made = step.pointwise("rope_cache", count, query + 2 * keys, query)
    return _writing(step, made, width)


def _writing(step: StepContext, made: Operator, width: Numeric) -> Operator:
    written = cores.cache_write_bytes(step.rows, 1.0, width)
    return Operator(made.name, made.family, made.count, made.math, made.flops,
                    kv_bytes=written, activation_bytes=made.activation_bytes)  # fmt: skip


def _latent(step: StepContext, mixer: LatentAttention, count: Numeric) -> list[Operator]:
    linears = {linear.name: linear for linear in mixer.linears(step.hidden)}
    out, up = linears.pop("o_proj"), linears.pop("kv_b_proj")
    operators = [step.gemm(linear, count) for linear in linears.values()]
    operators.append(step.gemm(up, count, rows=_expanded_rows(step)))
    heads = step.local(Dim(mixer.heads, mixer.heads))
    width = token_width(step, mixer)
    latent = float(mixer.kv_rank + mixer.rope_dim)
    query = heads * (mixer.nope_dim + mixer.rope_dim)
    write = step.pointwise("rope_cache", count, query + latent, query)
    operators.append(_writing(step, write, width))
    for group in step.groups:
        absorbed = group.phase == "decode" or mixer.indexer is not None
        score = latent if absorbed else float(mixer.nope_dim + mixer.rope_dim)
        value = float(mixer.kv_rank if absorbed else mixer.value_dim)
        keys = cores.causal_keys(group.new, group.past)
        pairs = cores.causal_pairs(group.new, group.past)
        if mixer.indexer is not None:
            operators.append(_index(step, mixer.indexer, group, pairs, keys, count))
            budget = float(mixer.indexer.top_k)
            pairs = cores.window_pairs(group.new, group.past, budget)
            keys = cores.window_keys(group.new, group.past, budget)
        name = f"{group.phase}_attention"
        operators.append(_core(step, name, count, group, pairs, keys, heads, score, value, width))
    return [*operators, step.gemm(out, count)]


def _expanded_rows(step: StepContext) -> Numeric:
    """Tokens the up projection is applied to: prefill expands cached latents again, decode does not."""
    again = (group.seqs * group.past for group in step.groups if group.phase == "prefill")
    return step.rows + total(*again) / step.layout.cp


def _encoded_rows(step: StepContext) -> Numeric:
    return total(*(group.seqs * group.encode for group in step.groups)) / step.layout.cp


def _index_width(indexer: Indexer) -> float:
    return indexer.head_dim + INDEX_SCALE_BYTES


def _index(
    step: StepContext, indexer: Indexer, group: TokenGroup, pairs: Numeric, keys: Numeric, count: Numeric
) -> Operator:  # fmt: skip
    share = group.seqs / step.layout.cp
    return Operator(
        f"{group.phase}_index",
        "attention",
        count,
        step.precision.base.math,
        cores.index_flops(share, pairs, float(indexer.heads), float(indexer.head_dim)),
        index_bytes=cores.cache_read_bytes(share, keys, _index_width(indexer)),
    )


def _recurrent(step: StepContext, mixer: GatedDelta | Mamba, count: Numeric) -> list[Operator]:
    *inputs, out = mixer.linears(step.hidden)
    rows, tp = step.rows, step.layout.tp
    channels = mixer.conv_channels / tp
    if isinstance(mixer, GatedDelta):
        work = scan.delta_flops(
            rows, mixer.value_heads / tp, float(mixer.key_dim), float(mixer.value_dim)
        )
    else:
        work = scan.ssm_flops(rows, mixer.inner / tp, float(mixer.state))
    seqs = total(*(group.seqs for group in step.groups))
    state = scan.state_bytes(seqs, mixer.state_elements / tp, _STATE_BYTES)
    convolution = step.pointwise("short_conv", count, channels, channels)
    scanned = Operator(
        "scan",
        "scan",
        count,
        "fp32",
        work + scan.short_conv_flops(rows, channels, float(mixer.conv)),
        kv_bytes=state,
        activation_bytes=2 * rows * channels * step.width,
    )
    return [
        *(step.gemm(linear, count) for linear in inputs),
        convolution,
        scanned,
        step.gemm(out, count),
    ]
