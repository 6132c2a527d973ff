"""What most decoder-only families share: reading attention, sliding windows and the frame.

A key that a configuration leaves out has the default of the Hugging Face class (transformers
5.23.0, ``configuration_<family>.py``); sizes without a customary default are required.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from perfmodel.models.architecture import Architecture, Layer, Run, stacked
from perfmodel.models.blocks import DenseFfn, Ffn, MoeFfn
from perfmodel.models.families._config import Config, Reader, divided
from perfmodel.models.mixers import Mixer, SoftmaxAttention

DEEPEST: Final = 10_000
"""No stack may have more layers; they are held one by one while reading."""

FULL, SLIDING = "full_attention", "sliding_attention"


def depth(config: Config, *keys: str) -> int:
    """Number of layers, ``num_hidden_layers`` unless other keys are given."""
    return config.size(*(keys or ("num_hidden_layers",)), most=DEEPEST)


def attention(config: Config, hidden: int, out_bias: bool | None = None) -> SoftmaxAttention:
    """Grouped-query attention from the customary keys; ``attention_bias`` covers all projections.

    ``out_bias`` overrides it for the output projection.
    """
    heads = config.size("num_attention_heads", "n_head")
    bias = config.flag("attention_bias", "qkv_bias", default=False)
    dim = config.optional("head_dim")
    return SoftmaxAttention(
        heads=heads,
        kv_heads=_kv_heads(config, heads),
        head_dim=dim or divided(config, hidden, heads, "hidden_size / num_attention_heads"),
        qkv_bias=bias,
        out_bias=bias if out_bias is None else out_bias,
    )


def _kv_heads(config: Config, heads: int) -> int:
    kv_heads = config.size("num_key_value_heads", default=heads)
    divided(config, heads, kv_heads, "num_attention_heads / num_key_value_heads")
    return kv_heads


def head_norms(mixer: SoftmaxAttention) -> SoftmaxAttention:
    """With query and key norms as wide as one head."""
    return replace(mixer, qk_norm=2 * mixer.head_dim)


def wide_norms(mixer: SoftmaxAttention) -> SoftmaxAttention:
    """With query and key norms over all heads."""
    return replace(mixer, qk_norm=(mixer.heads + mixer.kv_heads) * mixer.head_dim)


def windows(config: Config, layers: int, period: int = 0) -> tuple[int | None, ...]:
    """Sliding window of each layer [tokens], None where attention is full.

    ``layer_types`` decides; without it every ``period``-th layer is full (0: none is).
    """
    size = config.optional("sliding_window")
    types = config.names("layer_types", layers, (FULL, SLIDING))
    config.skip("sliding_window_pattern")
    if size is None or not config.flag("use_sliding_window", default=True):
        return (None,) * layers
    if types:
        return tuple(size if kind == SLIDING else None for kind in types)
    period = config.count("sliding_window_pattern", default=period)
    return tuple(None if period and (i + 1) % period == 0 else size for i in range(layers))


def dense_ffn(config: Config, gated: bool = True) -> DenseFfn:
    """Feed-forward network from ``intermediate_size`` and ``mlp_bias``."""
    return DenseFfn(config.size("intermediate_size"), gated, config.flag("mlp_bias", default=False))


def sparse(config: Config, layers: int) -> tuple[bool, ...]:
    """Which layers have routed experts, from ``decoder_sparse_step`` and ``mlp_only_layers``."""
    step = config.size("decoder_sparse_step", default=1)
    dense = set(config.integers("mlp_only_layers"))
    return tuple(i not in dense and (i + 1) % step == 0 for i in range(layers))


def layer(mixer: Mixer | None, ffn: Ffn | None, norms: int = 2, parallel: bool = False) -> Layer:
    """A layer, named after its blocks."""
    kind = type(mixer).__name__ if mixer else ""
    if isinstance(mixer, SoftmaxAttention):
        kind = "sliding" if mixer.window else "chunked" if mixer.chunk else "full"
    moe = "moe" if isinstance(ffn, MoeFfn) else "" if ffn is None else "dense"
    return Layer("-".join(filter(None, (kind, moe))), mixer, ffn, norms=norms, parallel=parallel)


def windowed(
    mixer: SoftmaxAttention,
    ffns: Sequence[Ffn],
    spans: Iterable[int | None],
    norms: int = 2,
    parallel: bool = False,
) -> list[Layer]:
    """Layers that differ in window and feed-forward network."""
    pairs = zip(spans, ffns, strict=True)
    return [layer(replace(mixer, window=span), ffn, norms, parallel) for span, ffn in pairs]


def decoder(
    config: Config,
    layers: Sequence[Layer],
    *,
    tied: bool = False,
    norm_bias: bool = False,
    head_bias: bool = False,
    mtp: tuple[Run, ...] = (),
    context: int | None = None,
) -> Architecture:
    """The frame around the layers; ``tied`` is the family's default."""
    return Architecture(
        name=config.name,
        hidden=config.size("hidden_size"),
        vocab=config.size("vocab_size"),
        context=context or config.size("max_position_embeddings"),
        runs=stacked(layers),
        tied=config.flag("tie_word_embeddings", default=tied),
        norm_bias=norm_bias,
        head_bias=head_bias,
        mtp=mtp,
    )


def drafting(config: Config, key: str, layers: Sequence[Layer]) -> tuple[Run, ...]:
    """Multi-token-prediction layers: as many copies of the last layer as a key says."""
    extra = config.size(key, default=0, least=0, most=DEEPEST)
    return (Run(layers[-1], extra),) if extra and layers else ()


def multimodal(
    config: Config, text: Reader, tower: Callable[[Config, int], Architecture]
) -> Architecture:
    """A language model in ``text_config`` and, if ``vision_config`` is there, its tower.

    ``tower`` gets the width of the language model, to which it projects.
    """
    model = text(config.child("text_config"))
    tied = config.flag("tie_word_embeddings", default=model.tied)
    if not config.has("vision_config"):
        return replace(model, tied=tied)
    vision = tower(config.child("vision_config"), model.hidden)
    return replace(model, tied=tied, towers=(vision,))
