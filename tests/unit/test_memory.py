"""Device memory: parts by hand, what is left for the cache, how many sequences fit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.core.precision import SCHEMES
from perfmodel.memory.fit import (
    Footprint,
    checkpoint_bytes,
    footprint,
    sequence_bytes,
    weight_bytes,
)
from perfmodel.models import preset
from perfmodel.models.architecture import Architecture, Layer, Run
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.mixers import GatedDelta, Indexer, LatentAttention, Mixer, SoftmaxAttention
from perfmodel.parallel.layout import Layout

BF16 = SCHEMES["bf16"]
FULL = SoftmaxAttention(8, 2, 16)
GB = 1e9
ASKED: dict[str, Any] = {
    "capacity": 80 * GB, "utilization": 0.9, "budget": 8192.0, "seqs": 256.0, "page": 16.0,
    "mean_tokens": 1000.0, "full_tokens": 2000.0, "runtime": 1 * GB, "graphs": 2 * GB,
    "communication": 0.5 * GB,
}  # fmt: skip


def model(mixer: Mixer, ffn: DenseFfn | MoeFfn | None = None, **changes: Any) -> Architecture:
    layer = Layer("l", mixer, ffn or DenseFfn(512))
    return replace(Architecture("m", 128, 1000, 4096, (Run(layer, 4),)), **changes)


def cache(
    mixer: Mixer, tokens: float, scheme: str = "bf16", page: float = 16.0, **layout: Any
) -> Any:
    return sequence_bytes(model(mixer), Layout(**layout), SCHEMES[scheme], tokens, page)


def fit(architecture: Architecture, layout: Layout | None = None, **changes: Any) -> Footprint:
    return footprint(architecture, layout or Layout(), BF16, **(ASKED | changes))


def test_cache_of_each_kind_of_layer() -> None:
    # 4 layers; 2 KV heads x (16 + 16) elements x 2 B = 128 B a token
    assert cache(FULL, 160.0) == 4 * 160 * 128
    assert cache(FULL, 161.0) == 4 * 176 * 128  # one more page of 16
    assert cache(FULL, 161.0, page=1.0) == 4 * 161 * 128
    assert cache(replace(FULL, window=64), 160.0) == 4 * 64 * 128
    assert cache(replace(FULL, window=64), 32.0) == 4 * 32 * 128
    assert cache(replace(FULL, chunk=64), 160.0) == 4 * 64 * 128
    assert cache(replace(FULL, value_dim=8), 160.0) == 4 * 160 * 2 * (16 + 8) * 2
    latent = LatentAttention(8, 32, 48, 8, 16, 8)
    assert cache(latent, 160.0) == 4 * 160 * (48 + 16) * 2
    # an indexer adds one fp8 key and its fp32 scale
    assert cache(replace(latent, indexer=Indexer(4, 32, 64)), 160.0) == 4 * 160 * (128 + 32 + 4)


def test_recurrent_state_does_not_grow() -> None:
    mixer = GatedDelta(4, 8, 16, 16, 4)
    # 8 heads x 16 x 16 state, 3 past inputs of (2 x 4 + 8) x 16 channels, fp32
    state = 4 * 4 * (8 * 16 * 16 + 3 * 256)
    assert cache(mixer, 10.0) == cache(mixer, 1e6) == state
    assert cache(mixer, 10.0, tp=4.0) == state / 4


def test_cache_format_scales_the_cache() -> None:
    wide = sequence_bytes(model(FULL), Layout(), BF16, 160.0, 16.0)
    assert sequence_bytes(model(FULL), Layout(), BF16.with_kv("fp8"), 160.0, 16.0) == wide / 2


def test_encoder_keys_are_kept_for_cross_attention() -> None:
    layer = Layer("l", FULL, DenseFfn(512), replace(FULL, cross=True))
    crossed = replace(model(FULL), runs=(Run(layer, 4),))
    own = sequence_bytes(crossed, Layout(), BF16, 160.0, 16.0, 0.0)
    both = sequence_bytes(crossed, Layout(), BF16, 160.0, 16.0, 320.0)
    assert own == cache(FULL, 160.0)
    assert both - own == 4 * 320 * 128


def test_parts_add_up_to_the_share_of_the_device() -> None:
    made = fit(model(FULL), Layout(tp=2.0))
    assert made.fixed + made.pool == pytest.approx(0.9 * 80 * GB, rel=1e-12)
    assert made.runtime == 1 * GB
    assert made.graphs == 2 * GB
    assert made.communication == 0.5 * GB
    assert fit(model(FULL)).communication == 0.0  # one GPU talks to nobody
    # residual and normed input (2 x 128), gate and up in and out (2 x 1024), bf16; fp32 logits
    assert fit(model(FULL)).activations == 8192 * (2 * 128 + 2 * 1024) * 2 + 256 * 1000 * 4
    assert made.max_seqs == np.floor(made.pool / made.sequence)


def test_what_does_not_fit_leaves_a_negative_pool() -> None:
    made = fit(model(FULL), capacity=2 * GB)
    assert made.pool < 0
    assert not made.fits
    assert made.max_seqs == 0


def test_one_sequence_of_full_length_must_fit() -> None:
    room = fit(model(FULL)).fixed / 0.9
    longest = fit(model(FULL)).longest / 0.9
    assert not fit(model(FULL), capacity=room + 0.99 * longest).fits
    assert fit(model(FULL), capacity=room + 1.01 * longest).fits


def test_arrays_of_questions() -> None:
    lengths = np.array([100.0, 1000.0, 10000.0])
    table = fit(model(FULL), mean_tokens=lengths, full_tokens=2 * lengths)
    assert table.max_seqs.shape == (3,)
    for i, length in enumerate(lengths):
        single = fit(model(FULL), mean_tokens=float(length), full_tokens=float(2 * length))
        assert single.max_seqs == table.max_seqs[i]
        assert single.fits == table.fits[i]


@pytest.mark.parametrize("name", preset.ids())
def test_one_rank_holds_the_checkpoint(name: str) -> None:
    """Two ways to the same bytes: sums over tensor classes, and over what a rank holds."""
    known = preset.load(name)
    precision = SCHEMES[known.facts.checkpoint]
    whole = checkpoint_bytes(known.architecture, precision)
    assert weight_bytes(known.architecture, Layout(), precision) == pytest.approx(whole, rel=5e-3)


@pytest.mark.parametrize("name", preset.ids())
def test_sharding_never_adds_weights_to_a_rank(name: str) -> None:
    architecture = preset.load(name).architecture
    sizes = [weight_bytes(architecture, Layout(tp=float(tp)), BF16) for tp in (1, 2, 4, 8)]
    assert sizes == sorted(sizes, reverse=True)
    if architecture.layers > 8:
        stages = [weight_bytes(architecture, Layout(pp=float(pp)), BF16) for pp in (1, 2, 4, 8)]
        assert stages == sorted(stages, reverse=True)
