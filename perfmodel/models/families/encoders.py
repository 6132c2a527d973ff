"""Encoders and encoder-decoders: bert, roberta, xlm-roberta, modernbert, t5, whisper.

BERT and RoBERTa are read with their pooler and without a task head, ModernBERT with neither:
what sentence embedding runs.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.core.errors import DataError
from perfmodel.models.architecture import Architecture, Layer, Run, stacked
from perfmodel.models.blocks import DenseFfn
from perfmodel.models.families._config import Config, Family, divided
from perfmodel.models.families._decoder import FULL, SLIDING, depth, layer
from perfmodel.models.families._towers import encoder_layer, linear
from perfmodel.models.mixers import SoftmaxAttention


def _bert(config: Config) -> Architecture:
    config.fixed("position_embedding_type", "absolute")
    config.fixed("is_decoder", False)
    config.fixed("add_cross_attention", False)
    config.skip("id2label", "tie_word_embeddings", "directionality", "pooler_fc_size")
    config.skip("pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head")
    config.skip("pooler_type")
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    one = encoder_layer(config, hidden, heads, config.size("intermediate_size"))
    positions = config.size("max_position_embeddings")
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=positions,
        runs=(Run(one, depth(config)),),
        causal=False,
        head=False,
        norm_bias=True,
        final_norm=False,
        embedding_norms=1,
        positions=positions,
        token_types=config.size("type_vocab_size", default=2),
        extra=(linear("pooler", hidden, hidden),),
    )


def _modernbert(config: Config) -> Architecture:
    """Every third layer attends globally; the first has no norm before attention."""
    config.skip("decoder_bias", "classifier_bias", "classifier_pooling", "tie_word_embeddings")
    config.skip("unpad_inputs", "id2label", "position_embedding_type")
    norm_bias = config.flag("norm_bias", default=False)
    attn_bias = config.flag("attention_bias", default=False)
    hidden, count = config.size("hidden_size"), depth(config)
    heads, every = (
        config.size("num_attention_heads"),
        config.size("global_attn_every_n_layers", default=3),
    )
    dim = divided(config, hidden, heads, "hidden_size / num_attention_heads")
    mixer = SoftmaxAttention(heads, heads, dim, qkv_bias=attn_bias, out_bias=attn_bias)
    ffn = DenseFfn(config.size("intermediate_size"), bias=config.flag("mlp_bias", default=False))
    local = replace(mixer, window=config.size("local_attention", default=128))
    kinds = config.names("layer_types", count, (FULL, SLIDING)) or tuple(
        SLIDING if i % every else FULL for i in range(count)
    )
    layers = [
        layer(mixer if kind == FULL else local, ffn, norms=2 if i else 1)
        for i, kind in enumerate(kinds)
    ]
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=config.size("max_position_embeddings"),
        runs=stacked(layers),
        causal=False,
        head=False,
        norm_bias=norm_bias,
        embedding_norms=1,
    )


def _t5(config: Config) -> Architecture:
    """The first layer of each side holds the table of relative positions; embeddings are shared."""
    config.skip("n_positions", "relative_attention_max_distance")
    config.fixed("is_encoder_decoder", True)
    config.skip("is_gated_act", "model_dim", "tie_encoder_decoder")
    kind = config.text("feed_forward_proj", default="relu")
    if kind not in ("relu", "gated-gelu", "gated-silu"):
        raise DataError(f"{config.where}: feed_forward_proj {kind!r} is not relu or gated-gelu")
    hidden, heads = config.size("d_model"), config.size("num_heads")
    mixer = SoftmaxAttention(heads, heads, config.size("d_kv"))
    ffn = DenseFfn(config.size("d_ff"), gated=kind != "relu")
    buckets = config.size("relative_attention_num_buckets", default=32)
    first = replace(mixer, relative_buckets=buckets)
    cross = replace(mixer, cross=True)
    count = depth(config, "num_layers")
    encoder = Architecture(
        name=f"{config.name}:encoder",
        hidden=hidden,
        vocab=0,
        context=512,
        runs=stacked([layer(first, ffn), *[layer(mixer, ffn)] * (count - 1)]),
        causal=False,
        head=False,
    )
    deep = config.size("num_decoder_layers", default=count, most=10_000)
    layers = [_crossed(first, cross, ffn), *[_crossed(mixer, cross, ffn)] * (deep - 1)]
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=512,
        runs=stacked(layers),
        tied=config.flag("tie_word_embeddings", default=True),
        encoder=encoder,
    )


def _crossed(mixer: SoftmaxAttention, cross: SoftmaxAttention, ffn: DenseFfn) -> Layer:
    return replace(layer(mixer, ffn, norms=3), cross=cross)


def _whisper(config: Config) -> Architecture:
    """Two convolutions over mel frames, then an encoder; keys have no bias."""
    config.fixed("is_encoder_decoder", True)
    config.skip("num_hidden_layers", "max_length", "use_weighted_layer_sum", "classifier_proj_size")
    config.skip("id2label")
    hidden, mels = config.size("d_model"), config.size("num_mel_bins")
    frames = config.size("max_source_positions")
    length = config.size("max_target_positions")
    encoder_mixer = _biased(config, hidden, config.size("encoder_attention_heads"))
    encoder_ffn = DenseFfn(config.size("encoder_ffn_dim"), gated=False, bias=True)
    encoder = Architecture(
        name=f"{config.name}:encoder",
        hidden=hidden,
        vocab=0,
        context=frames,
        runs=(Run(layer(encoder_mixer, encoder_ffn), depth(config, "encoder_layers")),),
        causal=False,
        head=False,
        norm_bias=True,
        positions=frames,
        extra=(linear("conv1", 3 * mels, hidden), linear("conv2", 3 * hidden, hidden)),
    )
    mixer = _biased(config, hidden, config.size("decoder_attention_heads"))
    ffn = DenseFfn(config.size("decoder_ffn_dim"), gated=False, bias=True)
    one = _crossed(mixer, replace(mixer, cross=True), ffn)
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=length,
        runs=(Run(one, depth(config, "decoder_layers")),),
        tied=config.flag("tie_word_embeddings", default=True),
        norm_bias=True,
        positions=length,
        encoder=encoder,
    )


def _biased(config: Config, hidden: int, heads: int) -> SoftmaxAttention:
    dim = divided(config, hidden, heads, "d_model / heads")
    return SoftmaxAttention(heads, heads, dim, qkv_bias=True, out_bias=True, key_bias=False)


FAMILY = Family(
    "encoders",
    {
        "bert": _bert,
        "roberta": _bert,
        "xlm-roberta": _bert,
        "modernbert": _modernbert,
        "t5": _t5,
        "whisper": _whisper,
    },
)
