"""Llama and its near relatives: pre-norm or post-norm decoders with one kind of dense layer.

Here: llama (Yi too), mistral, ministral, phi3, granite, smollm3, olmo2/3, exaone4, cohere/2, glm,
glm4, stablelm, mimo and Nemotron's block-wise pruned Llamas. Mixtures of experts have own modules.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.core.errors import DataError
from perfmodel.models.architecture import Architecture, Layer
from perfmodel.models.blocks import DenseFfn
from perfmodel.models.families._config import Config, Family, divided
from perfmodel.models.families._decoder import (
    attention,
    decoder,
    dense_ffn,
    depth,
    drafting,
    head_norms,
    layer,
    wide_norms,
    windowed,
    windows,
)
from perfmodel.models.mixers import SoftmaxAttention


def _uniform(
    config: Config, mixer: SoftmaxAttention, norms: int = 2, parallel: bool = False, period: int = 0
) -> list[Layer]:
    count = depth(config)
    ffns = [dense_ffn(config)] * count
    return windowed(mixer, ffns, windows(config, count, period), norms, parallel)


def _hidden(config: Config) -> int:
    return config.size("hidden_size")


def _llama(config: Config) -> Architecture:
    return decoder(config, _uniform(config, attention(config, _hidden(config))))


def _smollm3(config: Config) -> Architecture:
    config.skip("max_window_layers")
    return decoder(config, _uniform(config, attention(config, _hidden(config))), tied=True)


def _phi3(config: Config) -> Architecture:
    config.skip("embd_pdrop", "resid_pdrop")
    return decoder(config, _uniform(config, attention(config, _hidden(config))))


def _olmo(config: Config) -> Architecture:
    mixer = wide_norms(attention(config, _hidden(config)))
    return decoder(config, _uniform(config, mixer, period=4))


def _exaone4(config: Config) -> Architecture:
    mixer = head_norms(attention(config, _hidden(config)))
    return decoder(config, _uniform(config, mixer, period=4))


def _cohere(config: Config) -> Architecture:
    mixer = attention(config, _hidden(config))
    if config.flag("use_qk_norm", default=False):
        mixer = wide_norms(mixer)
    config.fixed("use_parallel_block", True)
    config.fixed("use_gated_activation", True)
    config.fixed("use_embedding_sharing", True)
    config.fixed("use_parallel_embedding", False)
    config.skip("order_of_interleaved_layers", "position_embedding_type", "_sliding_window_pattern")
    layers = _uniform(config, mixer, norms=1, parallel=True, period=4)
    return decoder(config, layers, tied=True)


def _glm(config: Config) -> Architecture:
    mixer = attention(config, _hidden(config), out_bias=False)
    return decoder(config, _uniform(config, mixer))


def _glm4(config: Config) -> Architecture:
    mixer = attention(config, _hidden(config), out_bias=False)
    return decoder(config, _uniform(config, mixer, norms=4))


def _stablelm(config: Config) -> Architecture:
    config.fixed("qk_layernorm", False)
    bias = config.flag("use_qkv_bias", default=False)
    mixer = replace(attention(config, _hidden(config)), qkv_bias=bias)
    parallel = config.flag("use_parallel_residual", default=False)
    layers = _uniform(config, mixer, norms=1 if parallel else 2, parallel=parallel)
    return decoder(config, layers, norm_bias=True)


def _mimo(config: Config) -> Architecture:
    """MiMo-7B: Qwen2's layer; the configuration's ``attention_bias`` covers q, k and v."""
    config.skip("max_window_layers")
    mixer = attention(config, _hidden(config), out_bias=False)
    layers = _uniform(config, mixer)
    return decoder(config, layers, mtp=drafting(config, "num_nextn_predict_layers", layers))


def _nas(config: Config) -> Architecture:
    """Llama-Nemotron: layers pruned one by one (Puzzle, arXiv 2411.19146), given in a list."""
    hidden, heads = _hidden(config), config.size("num_attention_heads")
    config.skip("intermediate_size", "num_key_value_heads")
    config.fixed("mlp_bias", False)
    config.fixed("attention_bias", False)
    head_dim = divided(config, hidden, heads, "hidden_size / num_attention_heads")
    layers: list[Layer] = []
    for block in config.entries("block_configs", depth(config)):
        mixer = _nas_attention(block.child("attention"), heads, head_dim)
        ffn = _nas_ffn(block.child("ffn"), hidden)
        layers.append(layer(mixer, ffn, norms=int(mixer is not None) + int(ffn is not None)))
    return decoder(config, layers)


def _nas_attention(block: Config, heads: int, head_dim: int) -> SoftmaxAttention | None:
    block.fixed("replace_with_linear", False)
    block.fixed("num_sink_tokens")
    block.skip("sparsify", "unshifted_sink", "use_prefill_window_in_sink_attention")
    window, group = block.optional("window_length"), block.optional("n_heads_in_group")
    if block.flag("no_op", default=False):
        return None
    groups = divided(block, heads, group or heads, "num_attention_heads / n_heads_in_group")
    return SoftmaxAttention(heads, groups, head_dim, window=window)


def _nas_ffn(block: Config, hidden: int) -> DenseFfn | None:
    block.fixed("replace_with_linear", False)
    block.skip("sparsify")
    factor = block.number("ffn_mult", default=0.0)
    if block.flag("no_op", default=False):
        return None
    if not factor:
        block.number("ffn_mult")
        raise DataError(f"{block.where}: ffn_mult is 0, must be positive")
    # two thirds of the widened layer, up to a multiple of 256 (vLLM, models/nemotron_nas.py)
    inner = int(2 * factor * hidden / 3)
    return DenseFfn(-(-inner // 256) * 256)


FAMILY = Family(
    "llama",
    {
        "llama": _llama,
        "mistral": _llama,
        "ministral": _llama,
        "ministral3": _llama,
        "phi3": _phi3,
        "granite": _llama,
        "smollm3": _smollm3,
        "olmo2": _olmo,
        "olmo3": _olmo,
        "exaone4": _exaone4,
        "cohere": _cohere,
        "cohere2": _cohere,
        "glm": _glm,
        "glm4": _glm4,
        "stablelm": _stablelm,
        "mimo": _mimo,
        "nemotron-nas": _nas,
    },
)
