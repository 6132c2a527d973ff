"""Gemma 1 to 4: tied embeddings, wide heads, (from 2) norms before and after each block.

Configurations of the 4 B Gemma 3 leave out what its Hugging Face class has as default; so do we.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.models.architecture import Architecture, Layer, stacked
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.families._config import Config, Family
from perfmodel.models.families._decoder import (
    FULL,
    SLIDING,
    attention,
    decoder,
    dense_ffn,
    depth,
    head_norms,
    layer,
    multimodal,
    windowed,
    windows,
)
from perfmodel.models.families._towers import gemma3_vision, gemma4_vision
from perfmodel.models.mixers import SoftmaxAttention


def _gemma(config: Config, norms: int = 2, period: int = 0) -> Architecture:
    mixer = attention(config, config.size("hidden_size"))
    layers = depth(config)
    spans = windows(config, layers, period)
    return decoder(config, windowed(mixer, [dense_ffn(config)] * layers, spans, norms), tied=True)


def _gemma2(config: Config) -> Architecture:
    return _gemma(config, norms=4, period=2)


def _gemma3_text(config: Config) -> Architecture:
    # defaults: transformers 5.23.0, configuration_gemma3.py
    hidden, layers = config.size("hidden_size"), depth(config)
    bias = config.flag("attention_bias", default=False)
    mixer = head_norms(
        SoftmaxAttention(
            heads=config.size("num_attention_heads", default=8),
            kv_heads=config.size("num_key_value_heads", default=4),
            head_dim=config.size("head_dim", default=256),
            qkv_bias=bias,
            out_bias=bias,
        )
    )
    spans = windows(config, layers, period=6)
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size", default=262208),
        context=config.size("max_position_embeddings", default=131072),
        runs=stacked(windowed(mixer, [dense_ffn(config)] * layers, spans, norms=4)),
        tied=config.flag("tie_word_embeddings", default=True),
    )


def _gemma3(config: Config) -> Architecture:
    return multimodal(config, _gemma3_text, gemma3_vision)


def _gemma4_text(config: Config) -> Architecture:
    config.fixed("hidden_size_per_layer_input", 0)
    config.fixed("num_kv_shared_layers", 0)
    config.fixed("use_double_wide_mlp", False)
    config.skip("vocab_size_per_layer_input")
    count = depth(config)
    local = head_norms(attention(config, config.size("hidden_size")))
    dim = config.size("global_head_dim", default=local.head_dim)
    shared = config.flag("attention_k_eq_v", default=False)
    kv_heads = config.size("num_global_key_value_heads", default=local.kv_heads)
    wide = replace(local, head_dim=dim, kv_heads=kv_heads if shared else local.kv_heads)
    full = head_norms(replace(wide, shared_kv=shared))
    local = replace(local, window=config.size("sliding_window"))
    kinds = config.names("layer_types", count, (FULL, SLIDING)) or (SLIDING,) * count
    ffn, norms = _gemma4_ffn(config)
    layers: list[Layer] = [layer(full if k == FULL else local, ffn, norms) for k in kinds]
    return decoder(config, layers, tied=True)


def _gemma4_ffn(config: Config) -> tuple[DenseFfn | MoeFfn, int]:
    """Network and norms per layer; the dense network stays beside the experts as a shared one."""
    dense = dense_ffn(config)
    experts = config.optional("num_experts")
    top_k, inner = config.optional("top_k_experts"), config.optional("moe_intermediate_size")
    if not config.flag("enable_moe_block", default=False):
        return dense, 4
    moe = MoeFfn(
        experts=experts or config.size("num_experts"),
        top_k=top_k or config.size("top_k_experts"),
        inner=inner or config.size("moe_intermediate_size"),
        shared_inner=dense.inner,
        router_scales=True,
    )
    return moe, 7


def _gemma4(config: Config) -> Architecture:
    config.fixed("audio_config")
    return multimodal(config, _gemma4_text, gemma4_vision)


FAMILY = Family(
    "gemma",
    {
        "gemma": _gemma,
        "gemma2": _gemma2,
        "gemma3": _gemma3,
        "gemma3_text": _gemma3_text,
        "gemma4": _gemma4,
        "gemma4_text": _gemma4_text,
    },
)
