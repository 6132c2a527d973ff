"""Vision towers: a patch embedding, an encoder and the projector into the language model.

Each reader takes the ``vision_config`` object and the width of the language model.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.models.architecture import Architecture, Layer, Run
from perfmodel.models.blocks import DenseFfn, Dim, Linear
from perfmodel.models.families._config import Config, divided
from perfmodel.models.families._decoder import depth, layer
from perfmodel.models.mixers import SoftmaxAttention


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Linear:
    """A map outside the layers (patch embedding, projector, pooler); no rank splits it."""
    return Linear(name, Dim(inputs), (Dim(outputs),), "ffn", bias)


def tower(
    config: Config, hidden: int, runs: tuple[Run, ...], positions: int, extra: tuple[Linear, ...]
) -> Architecture:
    """An encoder without vocabulary or head; ``positions`` is also its longest sequence."""
    return Architecture(
        name=f"{config.name}:vision",
        hidden=hidden,
        vocab=0,
        context=positions,
        runs=runs,
        causal=False,
        head=False,
        norm_bias=True,
        positions=positions,
        extra=extra,
    )


def encoder_layer(config: Config, hidden: int, heads: int, inner: int, bias: bool = True) -> Layer:
    """Pre-norm layer of a vision transformer: full attention, two-matrix network."""
    dim = divided(config, hidden, heads, "hidden size / heads")
    mixer = SoftmaxAttention(heads, heads, dim, qkv_bias=bias, out_bias=bias)
    return layer(mixer, DenseFfn(inner, gated=False, bias=bias))


def _plain(config: Config, hidden: int) -> Run:
    heads, inner = config.size("num_attention_heads"), config.size("intermediate_size")
    return Run(encoder_layer(config, hidden, heads, inner), depth(config))


def grid(config: Config, image: int | None = None, patch: int | None = None) -> tuple[int, int]:
    """Patches of one image, and pixels of one patch."""
    height, width = config.pair("image_size", default=image)
    rows, columns = config.pair("patch_size", default=patch)
    return (height // rows) * (width // columns), rows * columns


def qwen_vision(config: Config, width: int) -> Architecture:
    """Qwen3-VL and Qwen3.5: merges 2x2 patches; DeepStack mergers feed early layers too."""
    hidden, patch = config.size("hidden_size"), config.size("patch_size")
    inner, heads = config.size("intermediate_size"), config.size("num_heads")
    out = config.size("out_hidden_size", default=width)
    merged = hidden * config.size("spatial_merge_size") ** 2
    deep = len(config.integers("deepstack_visual_indexes"))
    pixels = config.size("temporal_patch_size") * patch**2 * config.size("in_channels")
    merger = (linear("merger_fc1", merged, merged), linear("merger_fc2", merged, out))
    run = Run(encoder_layer(config, hidden, heads, inner), depth(config, "depth"))
    positions = config.size("num_position_embeddings")
    extra = (linear("patch_embed", pixels, hidden), *merger * (1 + deep))
    model = tower(config, hidden, (run,), positions, extra)
    return replace(model, extra_elements=2 * deep * merged)


def kimi_vision(config: Config, width: int) -> Architecture:
    """MoonViT of Kimi-K2.5 with its patch merger."""
    config.fixed("mm_projector_type", "patchmerger")
    config.skip("init_pos_emb_time", "merge_type", "pos_emb_type", "video_attn_type")
    config.skip("text_hidden_size")
    hidden, patch = config.size("vt_hidden_size", "hidden_size"), config.size("patch_size")
    config.fixed("mm_hidden_size", hidden)
    heads = config.size("vt_num_attention_heads", "num_attention_heads")
    inner = config.size("vt_intermediate_size", "intermediate_size")
    run = Run(
        encoder_layer(config, hidden, heads, inner),
        depth(config, "vt_num_hidden_layers", "num_hidden_layers"),
    )
    rows, columns = config.pair("merge_kernel_size")
    merged = hidden * rows * columns
    positions = config.size("init_pos_emb_height") * config.size("init_pos_emb_width")
    extra = (
        linear("patch_embed", 3 * patch**2, hidden),
        linear("projector_in", merged, merged),
        linear("projector_out", merged, width),
    )
    model = tower(config, hidden, (run,), positions, extra)
    return replace(model, extra_elements=2 * hidden)


def gemma3_vision(config: Config, width: int) -> Architecture:
    """SigLIP encoder without pooling head, a norm and one projection matrix."""
    config.fixed("vision_use_head", False)
    model = siglip_encoder(config)
    projector = linear("projector", model.hidden, width, bias=False)
    return replace(model, extra=(*model.extra, projector), extra_elements=model.hidden)


def siglip_encoder(config: Config) -> Architecture:
    """SigLIP: learned positions, no class token, a final norm."""
    hidden, channels = config.size("hidden_size"), config.size("num_channels", default=3)
    patches, pixels = grid(config, 224, 16)
    patch = linear("patch_embed", channels * pixels, hidden)
    return tower(config, hidden, (_plain(config, hidden),), patches, (patch,))


def clip_encoder(config: Config) -> Architecture:
    """CLIP: class token, a norm before and one after the layers."""
    hidden, channels = config.size("hidden_size"), config.size("num_channels", default=3)
    patches, pixels = grid(config, 224, 32)
    patch = linear("patch_embed", channels * pixels, hidden, bias=False)
    model = tower(config, hidden, (_plain(config, hidden),), patches + 1, (patch,))
    return replace(model, embedding_norms=1, extra_elements=hidden)


def llama4_vision(config: Config, width: int) -> Architecture:
    """Llama 4's encoder, pixel shuffle adapter and projector."""
    config.skip("vision_feature_layer", "vision_feature_select_strategy", "projector_dropout")
    config.fixed("multi_modal_projector_bias", False)
    hidden, inner = config.size("hidden_size"), config.size("intermediate_size")
    channels, output = config.size("num_channels", default=3), config.size("vision_output_dim")
    middle = config.size("projector_input_dim")
    adapted = config.size("projector_output_dim")
    config.number("pixel_shuffle_ratio", default=0.5)
    patches, pixels = grid(config, 448, 14)
    extra = (
        linear("patch_embed", channels * pixels, hidden, bias=False),
        linear("adapter_fc1", inner, middle, bias=False),
        linear("adapter_fc2", adapted, adapted, bias=False),
        linear("projector", output, width, bias=False),
    )
    model = tower(config, hidden, (_plain(config, hidden),), patches + 1, extra)
    return replace(model, embedding_norms=1, extra_elements=hidden)


def gemma4_vision(config: Config, width: int) -> Architecture:
    """Gemma 4: gated networks, four norms per layer, one position table per axis."""
    config.fixed("use_clipped_linears", False)
    config.fixed("attention_bias", False)
    config.skip("max_position_embeddings", "pooling_kernel_size", "global_head_dim", "standardize")
    config.skip("is_encoder_decoder", "id2label")
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    kv_heads, dim = config.size("num_key_value_heads"), config.size("head_dim")
    mixer = SoftmaxAttention(heads, kv_heads, dim, qk_norm=2 * dim)
    run = Run(layer(mixer, DenseFfn(config.size("intermediate_size")), norms=4), depth(config))
    patch, table = config.size("patch_size"), config.size("position_embedding_size")
    extra = (
        linear("patch_embed", 3 * patch**2, hidden, bias=False),
        linear("projector", hidden, width, bias=False),
    )
    model = tower(config, hidden, (run,), 2 * table, extra)
    return replace(model, norm_bias=False, final_norm=False)
