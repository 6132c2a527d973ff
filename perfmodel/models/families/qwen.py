"""Qwen: 2, 2-MoE, 3, 3-MoE, 3-Next and 3.5 with their vision-language variants.

Qwen3-Next and Qwen3.5 alternate three Gated DeltaNet layers with one layer of gated attention.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.models.architecture import Architecture, Layer, Run
from perfmodel.models.blocks import Ffn, MoeFfn
from perfmodel.models.families._config import Config, Family, divided
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
    sparse,
    windowed,
)
from perfmodel.models.families._towers import qwen_vision
from perfmodel.models.mixers import GatedDelta

LINEAR = "linear_attention"


def _spans(config: Config, layers: int) -> list[int | None]:
    """Windows: layers from ``max_window_layers`` on slide, if ``use_sliding_window`` is set."""
    first = config.count("max_window_layers", default=layers)
    types = config.names("layer_types", layers, (FULL, SLIDING))
    size = config.optional("sliding_window")
    if not config.flag("use_sliding_window", default=False):
        return [None] * layers
    if types:
        return [size if kind == SLIDING else None for kind in types]
    return [size if i >= first else None for i in range(layers)]


def _ffns(config: Config, layers: int, moe: MoeFfn | None) -> list[Ffn]:
    """Mixtures of experts where ``decoder_sparse_step`` puts them, else dense networks."""
    if moe is None:
        return [dense_ffn(config)] * layers
    chosen = sparse(config, layers)
    if all(chosen):
        config.skip("intermediate_size")
        return [moe] * layers
    dense = dense_ffn(config)
    return [moe if is_moe else dense for is_moe in chosen]


def _moe(config: Config) -> MoeFfn:
    """Routed experts; a shared expert, where there is one, has a scalar gate."""
    shared = config.count("shared_expert_intermediate_size", default=0)
    return MoeFfn(
        experts=config.size("num_experts", "num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        inner=config.size("moe_intermediate_size"),
        shared_inner=shared,
        shared_gate=shared > 0,
    )


def _qwen2(config: Config, moe: MoeFfn | None = None) -> Architecture:
    bias = config.flag("qkv_bias", "attention_bias", default=True)
    mixer = replace(attention(config, config.size("hidden_size")), qkv_bias=bias, out_bias=False)
    layers = depth(config)
    return decoder(config, windowed(mixer, _ffns(config, layers, moe), _spans(config, layers)))


def _qwen2_moe(config: Config) -> Architecture:
    return _qwen2(config, _moe(config))


def _qwen3(config: Config, moe: MoeFfn | None = None) -> Architecture:
    config.fixed("use_qk_norm", True)
    mixer = head_norms(attention(config, config.size("hidden_size")))
    layers = depth(config)
    return decoder(config, windowed(mixer, _ffns(config, layers, moe), _spans(config, layers)))


def _qwen3_moe(config: Config) -> Architecture:
    return _qwen3(config, _moe(config))


def _delta(config: Config) -> GatedDelta:
    key_heads, value_heads = (config.size(f"linear_num_{k}_heads") for k in ("key", "value"))
    divided(config, value_heads, key_heads, "linear_num_value_heads / linear_num_key_heads")
    return GatedDelta(
        key_heads=key_heads,
        value_heads=value_heads,
        key_dim=config.size("linear_key_head_dim"),
        value_dim=config.size("linear_value_head_dim"),
        conv=config.size("linear_conv_kernel_dim"),
    )


def _hybrid(config: Config, moe: MoeFfn | None) -> Architecture:
    config.fixed("attn_output_gate", True)
    config.fixed("mtp_use_dedicated_embeddings", False)
    config.skip("use_sliding_window", "sliding_window", "max_window_layers")
    mixer = replace(head_norms(attention(config, config.size("hidden_size"))), gated=True)
    count, delta = depth(config), _delta(config)
    every = config.size("full_attention_interval", default=4)
    kinds = config.names("layer_types", count, (FULL, LINEAR)) or tuple(
        FULL if (i + 1) % every == 0 else LINEAR for i in range(count)
    )
    ffns = _ffns(config, count, moe)
    layers: list[Layer] = [
        layer(mixer if kind == FULL else delta, ffn) for kind, ffn in zip(kinds, ffns, strict=True)
    ]
    drafts = config.count("mtp_num_hidden_layers", "num_nextn_predict_layers", default=0)
    mtp = (Run(layer(mixer, ffns[-1]), drafts),) if drafts else ()
    return decoder(config, layers, mtp=mtp)


def _qwen3_next(config: Config) -> Architecture:
    return _hybrid(config, _moe(config))


def _qwen3_5(config: Config) -> Architecture:
    config.skip("mlp_only_layers")
    return _hybrid(config, None)


def _qwen3_vl(config: Config) -> Architecture:
    return multimodal(config, _qwen3, qwen_vision)


def _qwen3_vl_moe(config: Config) -> Architecture:
    return multimodal(config, _qwen3_moe, qwen_vision)


def _qwen3_5_vl(config: Config) -> Architecture:
    return multimodal(config, _qwen3_5, qwen_vision)


def _qwen3_5_vl_moe(config: Config) -> Architecture:
    return multimodal(config, _qwen3_next, qwen_vision)


FAMILY = Family(
    "qwen",
    {
        "qwen2": _qwen2,
        "qwen2_moe": _qwen2_moe,
        "qwen3": _qwen3,
        "qwen3_moe": _qwen3_moe,
        "qwen3_next": _qwen3_next,
        "qwen3_5": _qwen3_5_vl,
        "qwen3_5_text": _qwen3_5,
        "qwen3_5_moe": _qwen3_5_vl_moe,
        "qwen3_5_moe_text": _qwen3_next,
        "qwen3_vl": _qwen3_vl,
        "qwen3_vl_text": _qwen3,
        "qwen3_vl_moe": _qwen3_vl_moe,
        "qwen3_vl_moe_text": _qwen3_moe,
    },
)
