"""The first generation of decoders: layer norms with bias, plain feed-forward networks.

Here: gpt2, gptj, gpt_neox, opt, bloom, falcon, phi, starcoder2, nemotron (dense).
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.models.architecture import Architecture, Layer, stacked
from perfmodel.models.blocks import DenseFfn
from perfmodel.models.families._config import Config, Family, divided
from perfmodel.models.families._decoder import (
    attention,
    decoder,
    depth,
    head_norms,
    layer,
    windowed,
    windows,
)
from perfmodel.models.mixers import SoftmaxAttention


def _heads(config: Config, hidden: int, *keys: str, bias: bool = True) -> SoftmaxAttention:
    heads = config.size(*keys)
    dim = divided(config, hidden, heads, f"hidden size / {keys[0]}")
    return SoftmaxAttention(heads, heads, dim, qkv_bias=bias, out_bias=bias)


def _plain(config: Config, hidden: int, *keys: str, bias: bool = True) -> DenseFfn:
    """Two matrices; four times the width where the configuration names none."""
    return DenseFfn(config.size(*keys, default=4 * hidden), gated=False, bias=bias)


def _gpt2(config: Config) -> Architecture:
    config.skip("n_ctx", "summary_activation", "summary_proj_to_labels", "summary_type")
    config.skip("summary_use_proj")
    config.fixed("add_cross_attention", False)
    hidden = config.size("n_embd", "hidden_size")
    positions = config.size("n_positions", "max_position_embeddings")
    mixer = _heads(config, hidden, "n_head", "num_attention_heads")
    one = layer(mixer, _plain(config, hidden, "n_inner"))
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=positions,
        runs=stacked([one] * depth(config, "n_layer", "num_hidden_layers")),
        tied=config.flag("tie_word_embeddings", default=True),
        norm_bias=True,
        positions=positions,
    )


def _gptj(config: Config) -> Architecture:
    """Attention without, network and head with bias; both blocks read the same norm."""
    config.skip("n_ctx", "summary_activation", "summary_proj_to_labels", "summary_type")
    config.skip("summary_use_proj")
    hidden = config.size("n_embd", "hidden_size")
    mixer = _heads(config, hidden, "n_head", "num_attention_heads", bias=False)
    one = layer(mixer, _plain(config, hidden, "n_inner"), norms=1, parallel=True)
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=config.size("n_positions", "max_position_embeddings"),
        runs=stacked([one] * depth(config, "n_layer", "num_hidden_layers")),
        tied=config.flag("tie_word_embeddings", default=False),
        head_bias=True,
        norm_bias=True,
    )


def _gpt_neox(config: Config) -> Architecture:
    bias = config.flag("attention_bias", default=True)
    parallel = config.flag("use_parallel_residual", default=True)
    hidden = config.size("hidden_size")
    mixer = _heads(config, hidden, "num_attention_heads", bias=bias)
    ffn = DenseFfn(config.size("intermediate_size"), gated=False, bias=True)
    layers = [layer(mixer, ffn, parallel=parallel)] * depth(config)
    return decoder(config, layers, norm_bias=True)


def _opt(config: Config) -> Architecture:
    """Learned positions with two extra rows; OPT-350M has narrower embeddings, which is refused."""
    config.skip("do_layer_norm_before")
    config.fixed("enable_bias", True)
    config.fixed("layer_norm_elementwise_affine", True)
    hidden = config.size("hidden_size")
    config.fixed("word_embed_proj_dim", hidden)
    bare = config.flag("_remove_final_layer_norm", default=False)
    final = config.flag("do_layer_norm_before", default=True) and not bare
    mixer = _heads(config, hidden, "num_attention_heads")
    layers = [layer(mixer, _plain(config, hidden, "ffn_dim"))] * depth(config)
    model = decoder(config, layers, tied=True, norm_bias=True)
    return replace(model, final_norm=final, positions=model.context + 2)


def _bloom(config: Config) -> Architecture:
    config.skip("offset_alibi", "masked_softmax_fusion", "bias_dropout_fusion", "attention_type")
    config.skip("unk_token_id", "n_inner")
    hidden = config.size("hidden_size", "n_embed")
    mixer = _heads(config, hidden, "n_head", "num_attention_heads")
    one = layer(mixer, DenseFfn(4 * hidden, gated=False, bias=True))
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=config.size("seq_length", default=2048),
        runs=stacked([one] * depth(config, "n_layer", "num_hidden_layers")),
        tied=config.flag("tie_word_embeddings", default=True),
        norm_bias=True,
        embedding_norms=1,
    )


def _falcon(config: Config) -> Architecture:
    """Multi-query, or grouped-query in the "new decoder architecture" (40B, 180B, Falcon 2)."""
    hidden, bias = config.size("hidden_size"), config.flag("bias", default=False)
    heads = config.size("num_attention_heads", "n_head")
    groups = config.size("num_kv_heads", "n_head_kv", default=heads)
    new = config.flag("new_decoder_architecture", default=False)
    single = config.flag("multi_query", default=True)
    kv_heads = groups if new else 1 if single else heads
    dim = divided(config, hidden, heads, "hidden_size / num_attention_heads")
    mixer = SoftmaxAttention(heads, kv_heads, dim, qkv_bias=bias, out_bias=bias)
    parallel = config.flag("parallel_attn", default=True) or new
    norms = config.size("num_ln_in_parallel_attn", default=2 if new else 1) if parallel else 2
    config.skip("num_ln_in_parallel_attn")
    ffn = _plain(config, hidden, "ffn_hidden_size", "n_inner", bias=bias)
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=config.size("max_position_embeddings", default=2048),
        runs=stacked(
            [layer(mixer, ffn, norms, parallel)] * depth(config, "num_hidden_layers", "n_layer")
        ),
        tied=config.flag("tie_word_embeddings", default=True),
        norm_bias=True,
    )


def _phi(config: Config) -> Architecture:
    hidden = config.size("hidden_size")
    mixer = replace(attention(config, hidden), qkv_bias=True, out_bias=True)
    if config.flag("qk_layernorm", default=False):
        mixer = replace(head_norms(mixer), qk_norm=4 * mixer.head_dim)
    one = layer(mixer, _plain(config, hidden, "intermediate_size"), norms=1, parallel=True)
    return decoder(config, [one] * depth(config), norm_bias=True, head_bias=True)


def _starcoder2(config: Config) -> Architecture:
    bias = config.flag("use_bias", default=True)
    config.fixed("mlp_type", "default")
    hidden, count = config.size("hidden_size"), depth(config)
    mixer = replace(attention(config, hidden), qkv_bias=bias, out_bias=bias)
    ffns = [_plain(config, hidden, "intermediate_size", bias=bias)] * count
    layers: list[Layer] = windowed(mixer, ffns, windows(config, count))
    return decoder(config, layers, tied=True, norm_bias=True)


def _nemotron(config: Config) -> Architecture:
    hidden, bias = config.size("hidden_size"), config.flag("mlp_bias", default=False)
    ffn = DenseFfn(config.size("intermediate_size"), gated=False, bias=bias)
    one = layer(attention(config, hidden), ffn)
    return decoder(config, [one] * depth(config), norm_bias=True)


FAMILY = Family(
    "gpt",
    {
        "gpt2": _gpt2,
        "gptj": _gptj,
        "gpt_neox": _gpt_neox,
        "opt": _opt,
        "bloom": _bloom,
        "falcon": _falcon,
        "phi": _phi,
        "starcoder2": _starcoder2,
        "nemotron": _nemotron,
    },
)
