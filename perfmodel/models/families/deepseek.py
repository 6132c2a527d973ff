"""DeepSeek V2 to V4, and what follows V3's layout: Kimi K2 and K2.5, GLM-5.

V2 and V3: multi-head latent attention, a few dense layers, then experts with a shared one. V3.2 and
GLM-5 add a lightning indexer to every layer. V4 compresses its cache along the tokens and mixes
several residual streams.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.core.errors import DataError
from perfmodel.models.architecture import Architecture, stacked
from perfmodel.models.blocks import DenseFfn, Dim, Linear, MoeFfn
from perfmodel.models.families._config import Config, Family, divided
from perfmodel.models.families._decoder import (
    DEEPEST,
    decoder,
    depth,
    drafting,
    layer,
    multimodal,
)
from perfmodel.models.families._towers import kimi_vision
from perfmodel.models.mixers import CompressedAttention, Indexer, LatentAttention


def _latent(config: Config, indexer: Indexer | None) -> LatentAttention:
    config.fixed("attention_bias", False)
    config.skip("num_key_value_heads", "head_dim")
    return LatentAttention(
        heads=config.size("num_attention_heads"),
        q_rank=config.count("q_lora_rank", default=0),
        kv_rank=config.size("kv_lora_rank"),
        nope_dim=config.size("qk_nope_head_dim"),
        rope_dim=config.size("qk_rope_head_dim"),
        value_dim=config.size("v_head_dim"),
        indexer=indexer,
    )


def _moe(config: Config, method: str) -> MoeFfn:
    """A bias per expert steers load where routing is ``noaux_tc`` (DeepSeek-V3 report, 2.1.2)."""
    inner = config.size("moe_intermediate_size")
    return MoeFfn(
        experts=config.size("n_routed_experts"),
        top_k=config.size("num_experts_per_tok"),
        inner=inner,
        shared_inner=inner * config.count("n_shared_experts", default=0),
        router_bias=config.text("topk_method", default=method) == "noaux_tc",
    )


def _deepseek(
    config: Config, indexer: Indexer | None = None, method: str = "noaux_tc"
) -> Architecture:
    config.skip("rope_interleave")
    config.fixed("mlp_bias", False)
    count, mixer = depth(config), _latent(config, indexer)
    dense, moe = DenseFfn(config.size("intermediate_size")), _moe(config, method)
    first = config.count("first_k_dense_replace", default=0)
    every = config.size("moe_layer_freq", default=1)
    kinds = config.names("mlp_layer_types", count, ("dense", "sparse")) or tuple(
        "sparse" if i >= first and i % every == 0 else "dense" for i in range(count)
    )
    layers = [layer(mixer, moe if kind == "sparse" else dense) for kind in kinds]
    return decoder(config, layers, mtp=drafting(config, "num_nextn_predict_layers", layers))


def _deepseek_v2(config: Config) -> Architecture:
    return _deepseek(config, method="greedy")


def _indexer(config: Config) -> Indexer:
    return Indexer(
        heads=config.size("index_n_heads"),
        head_dim=config.size("index_head_dim"),
        top_k=config.size("index_topk"),
    )


def _sparse(config: Config) -> Architecture:
    return _deepseek(config, _indexer(config))


def _kimi_k25(config: Config) -> Architecture:
    return multimodal(config, _deepseek, kimi_vision)


def _deepseek_v4(config: Config) -> Architecture:
    """Layers by ``compress_ratios``: window only (0), selected (4) or all (128) pooled keys."""
    config.fixed("num_key_value_heads", 1)
    config.fixed("attention_bias", False)
    config.skip("qk_rope_head_dim")
    count, moe, streams = depth(config), _moe(config, "noaux_tc"), config.size("hc_mult")
    mixers = _compressed(config)
    drafts = config.size("num_nextn_predict_layers", default=0, least=0, most=DEEPEST)
    ratios = config.integers("compress_ratios", count + drafts)
    if len(ratios) != count + drafts or set(ratios) - set(mixers):
        known = ", ".join(map(str, mixers))
        raise DataError(f"{config.where}: compress_ratios must be {count + drafts} of {known}")
    hashed = config.count("num_hash_layers", default=0)
    layers = [
        replace(layer(mixers[ratio], replace(moe, router_bias=i >= hashed)), streams=streams)
        for i, ratio in enumerate(ratios)
    ]
    model = decoder(config, layers[:count], mtp=stacked(layers[count:]))
    merge = Linear("hyper_head", Dim(streams * model.hidden), (Dim(streams),), "mixer", bias=True)
    return replace(model, extra=(merge,), extra_elements=1)


def _compressed(config: Config) -> dict[int, CompressedAttention]:
    heads, groups = config.size("num_attention_heads"), config.size("o_groups")
    divided(config, heads, groups, "num_attention_heads / o_groups")
    local = CompressedAttention(
        heads=heads,
        head_dim=config.size("head_dim"),
        q_rank=config.size("q_lora_rank"),
        o_rank=config.size("o_lora_rank"),
        groups=groups,
        window=config.size("sliding_window"),
    )
    selected = replace(local, ratio=4, indexer=_indexer(config))
    return {0: local, 4: selected, 128: replace(local, ratio=128)}


FAMILY = Family(
    "deepseek",
    {
        "deepseek_v2": _deepseek_v2,
        "deepseek_v3": _deepseek,
        "deepseek_v32": _sparse,
        "deepseek_v4": _deepseek_v4,
        "deepseek_ref": _deepseek_v4,
        "kimi_k2": _deepseek,
        "kimi_k25": _kimi_k25,
        "glm_moe_dsa": _sparse,
    },
)
