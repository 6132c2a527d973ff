"""Mixtures of experts over softmax attention that have no denser relatives of their own.

Here: mixtral, phimoe, dbrx, gpt_oss, llama4, minimax_m2 and m3, glm4_moe, mimo_v2_flash.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.models.architecture import Architecture, Layer, stacked
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.families._config import Config, Family, divided
from perfmodel.models.families._decoder import (
    FULL,
    attention,
    decoder,
    depth,
    drafting,
    head_norms,
    layer,
    multimodal,
    wide_norms,
    windowed,
    windows,
)
from perfmodel.models.families._towers import llama4_vision
from perfmodel.models.mixers import Indexer, SoftmaxAttention

CHUNKED = "chunked_attention"


def _experts(config: Config, inner: str = "intermediate_size") -> MoeFfn:
    return MoeFfn(
        experts=config.size("num_local_experts", "num_experts", "n_routed_experts"),
        top_k=config.size("num_experts_per_tok"),
        inner=config.size(inner),
    )


def _mixtral(config: Config) -> Architecture:
    mixer, count = attention(config, config.size("hidden_size")), depth(config)
    return decoder(config, windowed(mixer, [_experts(config)] * count, windows(config, count)))


def _phimoe(config: Config) -> Architecture:
    mixer, count = attention(config, config.size("hidden_size")), depth(config)
    layers = windowed(mixer, [_experts(config)] * count, windows(config, count))
    bias = config.flag("lm_head_bias", default=False)
    return decoder(config, layers, norm_bias=True, head_bias=bias)


def _dbrx(config: Config) -> Architecture:
    attn, ffn = config.child("attn_config"), config.child("ffn_config")
    config.skip("resid_pdrop", "emb_pdrop")
    attn.skip("attn_pdrop")
    ffn.skip(
        "ffn_act_fn", "moe_loss_weight", "moe_normalize_expert_weights", "uniform_expert_assignment"
    )
    hidden, heads = config.size("d_model"), config.size("n_heads")
    dim = divided(config, hidden, heads, "d_model / n_heads")
    mixer = SoftmaxAttention(heads, attn.size("kv_n_heads", default=heads), dim)
    moe = MoeFfn(
        experts=ffn.size("moe_num_experts"),
        top_k=ffn.size("moe_top_k"),
        inner=ffn.size("ffn_hidden_size"),
    )
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=config.size("max_seq_len"),
        runs=stacked([layer(mixer, moe)] * depth(config, "n_layers")),
        tied=config.flag("tie_word_embeddings", default=False),
    )


def _gpt_oss(config: Config) -> Architecture:
    mixer = replace(attention(config, config.size("hidden_size")), sinks=True)
    config.skip("experts_per_token")
    moe = replace(_experts(config), bias=True, router_bias=True)
    count = depth(config)
    return decoder(config, windowed(mixer, [moe] * count, windows(config, count, period=2)))


def _llama4_text(config: Config) -> Architecture:
    """Chunked attention except on layers without rotary positions (every fourth)."""
    config.skip("use_qk_norm", "attention_chunk_size", "for_llm_compressor")
    count, hidden = depth(config), config.size("hidden_size")
    mixer = attention(config, hidden)
    chunk = config.optional("attention_chunk_size")
    step = config.size("interleave_moe_layer_step", default=1)
    shared = replace(_experts(config), shared_inner=config.size("intermediate_size"))
    dense = DenseFfn(config.size("intermediate_size_mlp"))
    moe = set(config.integers("moe_layers")) or set(range(step - 1, count, step))
    layers: list[Layer] = []
    for i, local in enumerate(_local(config, count)):
        part = replace(mixer, chunk=chunk if local else None)
        layers.append(layer(part, shared if i in moe else dense))
    return decoder(config, layers)


def _local(config: Config, count: int) -> tuple[bool, ...]:
    """Which layers of Llama 4 chunk their attention."""
    every = config.size("no_rope_layer_interval", default=4)
    rotated = config.integers("no_rope_layers")
    kinds = config.names("layer_types", count, (FULL, CHUNKED))
    if kinds:
        return tuple(kind == CHUNKED for kind in kinds)
    if rotated:
        return tuple(bool(flag) for flag in config.integers("no_rope_layers", count))
    return tuple((i + 1) % every != 0 for i in range(count))


def _llama4(config: Config) -> Architecture:
    return multimodal(config, _llama4_text, llama4_vision)


def _minimax_m2(config: Config) -> Architecture:
    config.fixed("use_qk_norm", True)
    config.fixed("qk_norm_type", "per_layer")
    config.fixed("sliding_window")
    config.fixed("shared_intermediate_size", 0)
    config.fixed("mtp_transformer_layers", 1)
    # attn_type_list: 1 is softmax attention, which is all M2 has
    config.fixed("attn_type_list", [1] * depth(config))
    mixer = wide_norms(attention(config, config.size("hidden_size")))
    moe = replace(_experts(config), router_bias=config.flag("use_routing_bias", default=True))
    # all layers have experts, so the width of a dense network is not used
    config.skip("mlp_intermediate_size")
    # the file counts draft modules whose weights were not published
    config.skip("use_mtp", "num_mtp_modules")
    return decoder(config, [layer(mixer, moe)] * depth(config))


def _minimax_m3(config: Config) -> Architecture:
    """Block-sparse attention on the layers with experts; the first layers are dense throughout."""
    config.fixed("use_qk_norm", True)
    config.skip("intermediate_size")
    count, first = depth(config), config.count("first_k_dense_replace")
    mixer = head_norms(attention(config, config.size("hidden_size")))
    sparse = replace(mixer, indexer=_block_indexer(config.child("sparse_attention_config")))
    shared = config.size("shared_intermediate_size") * config.count("n_shared_experts")
    moe = replace(_experts(config, "moe_intermediate_size"), shared_inner=shared, router_bias=True)
    dense = DenseFfn(config.size("dense_intermediate_size"))
    layers = [layer(mixer, dense) if i < first else layer(sparse, moe) for i in range(count)]
    return decoder(config, layers)


def _block_indexer(config: Config) -> Indexer:
    config.fixed("use_sparse_attention", True)
    block = config.size("sparse_block_size")
    return Indexer(
        heads=config.size("sparse_num_index_heads"),
        head_dim=config.size("sparse_index_dim"),
        top_k=block * config.size("sparse_topk_blocks"),
        block=block,
        weighted=False,
    )


def _glm4_moe(config: Config) -> Architecture:
    mixer = attention(config, config.size("hidden_size"), out_bias=False)
    if config.flag("use_qk_norm", default=False):
        mixer = head_norms(mixer)
    count, first = depth(config), config.count("first_k_dense_replace", default=1)
    moe = replace(_experts(config, "moe_intermediate_size"), router_bias=True)
    moe = replace(moe, shared_inner=moe.inner * config.count("n_shared_experts", default=1))
    dense = DenseFfn(config.size("intermediate_size"))
    layers = [layer(mixer, dense if i < first else moe) for i in range(count)]
    return decoder(config, layers, mtp=drafting(config, "num_nextn_predict_layers", layers))


def _mimo_v2_flash(config: Config) -> Architecture:
    """Sliding layers have their own numbers of heads and attention sinks."""
    config.skip("attention_chunk_size", "sliding_window_size")
    config.fixed("n_shared_experts", 0)
    count = depth(config)
    bias = config.flag("attention_bias", default=False)
    window, moe = config.size("sliding_window"), replace(_mimo_moe(config), router_bias=True)
    full = SoftmaxAttention(
        heads=config.size("num_attention_heads"),
        kv_heads=config.size("num_key_value_heads"),
        head_dim=config.size("head_dim"),
        value_dim=config.size("v_head_dim"),
        qkv_bias=bias,
        sinks=config.flag("add_full_attention_sink_bias", default=False),
    )
    local = SoftmaxAttention(
        heads=config.size("swa_num_attention_heads"),
        kv_heads=config.size("swa_num_key_value_heads"),
        head_dim=config.size("swa_head_dim"),
        value_dim=config.size("swa_v_head_dim"),
        window=window,
        qkv_bias=bias,
        sinks=config.flag("add_swa_attention_sink_bias", default=True),
    )
    dense = DenseFfn(config.size("intermediate_size"))
    sliding, routed = (
        config.integers(key, count) or (0,) * count
        for key in ("hybrid_layer_pattern", "moe_layer_freq")
    )
    pairs = zip(sliding, routed, strict=True)
    return decoder(config, [layer(local if s else full, moe if r else dense) for s, r in pairs])


def _mimo_moe(config: Config) -> MoeFfn:
    return _experts(config, "moe_intermediate_size")


FAMILY = Family(
    "moe",
    {
        "mixtral": _mixtral,
        "phimoe": _phimoe,
        "dbrx": _dbrx,
        "gpt_oss": _gpt_oss,
        "llama4": _llama4,
        "llama4_text": _llama4_text,
        "minimax_m2": _minimax_m2,
        "minimax_m3": _minimax_m3,
        "glm4_moe": _glm4_moe,
        "mimo_v2_flash": _mimo_v2_flash,
    },
)
