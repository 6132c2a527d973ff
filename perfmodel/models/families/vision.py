"""Vision encoders on their own: vit, clip and siglip vision models."""

from __future__ import annotations

from dataclasses import replace

from perfmodel.core.errors import DataError
from perfmodel.models.architecture import Architecture, Run
from perfmodel.models.families._config import Config, Family
from perfmodel.models.families._decoder import depth
from perfmodel.models.families._towers import (
    clip_encoder,
    encoder_layer,
    grid,
    linear,
    siglip_encoder,
    tower,
)


def _vit(config: Config) -> Architecture:
    """ViT with a classifier of ``id2label`` outputs if ``architectures`` has one, else a pooler."""
    config.fixed("qkv_bias", True)
    config.skip("encoder_stride", "pooler_act")
    labels = len(config.keys("id2label")) or 2
    task = [str(item) for item in config.listed("architectures")]
    hidden, channels = config.size("hidden_size"), config.size("num_channels", default=3)
    pooled = config.size("pooler_output_size", default=hidden)
    inner, heads = config.size("intermediate_size"), config.size("num_attention_heads")
    patches, pixels = grid(config)
    classify = any(name.endswith("ForImageClassification") for name in task)
    head = linear("classifier", hidden, labels) if classify else linear("pooler", hidden, pooled)
    run = Run(encoder_layer(config, hidden, heads, inner), depth(config))
    extra = (linear("patch_embed", channels * pixels, hidden), head)
    model = tower(config, hidden, (run,), patches + 1, extra)
    return replace(model, name=config.name, extra_elements=hidden)


def _clip_vision(config: Config) -> Architecture:
    config.skip("projection_dim", "tie_word_embeddings")
    return replace(clip_encoder(config), name=config.name)


def _siglip_vision(config: Config) -> Architecture:
    """With the attention pooling head: a probe, one attention and one network."""
    model = replace(siglip_encoder(config), name=config.name)
    if not config.flag("vision_use_head", default=True):
        return model
    hidden, inner = model.hidden, config.size("intermediate_size")
    head = (
        linear("pool_qkv", hidden, 3 * hidden),
        linear("pool_out", hidden, hidden),
        linear("pool_fc1", hidden, inner),
        linear("pool_fc2", inner, hidden),
    )
    return replace(model, extra=(*model.extra, *head), extra_elements=3 * hidden)


def _unsupported(config: Config) -> Architecture:
    raise DataError(
        f"{config.where}: give the vision_config object of this two-tower model as a config.json"
    )


FAMILY = Family(
    "vision",
    {
        "vit": _vit,
        "clip_vision_model": _clip_vision,
        "siglip_vision_model": _siglip_vision,
        "clip": _unsupported,
        "siglip": _unsupported,
    },
)
