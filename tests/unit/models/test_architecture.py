"""Counting: blocks and architectures small enough to count by hand, and what must always hold."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.models.architecture import (
    Architecture,
    Layer,
    Run,
    cache_elements,
    dense_inner,
    moe_layers,
)
from perfmodel.models.blocks import DenseFfn, Dim, Linear, MoeFfn
from perfmodel.models.graph import Conv, OperatorGraph
from perfmodel.models.mixers import GatedDelta, Indexer, LatentAttention, Mamba, SoftmaxAttention

HIDDEN = 8
GQA = SoftmaxAttention(heads=4, kv_heads=2, head_dim=3)
SWIGLU = DenseFfn(inner=5)
MOE = MoeFfn(experts=6, top_k=2, inner=3, shared_inner=4)


def size(block: GatedDelta | Mamba | LatentAttention | SoftmaxAttention | DenseFfn | MoeFfn) -> int:
    """Parameters of a block at the test's width, routed experts apart."""
    return sum(map_.elements for map_ in block.linears(HIDDEN)) + block.small_elements(HIDDEN)


def toy(*layers: Layer, **keys: object) -> Architecture:
    """An architecture of width 8 with 10 words."""
    runs = tuple(Run(layer, 1) for layer in layers)
    return replace(Architecture("toy", HIDDEN, 10, 32, runs), **keys)


def test_linear_counts_its_bias_once_per_output() -> None:
    outputs = (Dim(3), Dim(4))
    assert Linear("w", Dim(2), outputs, "ffn").elements == 14
    assert Linear("w", Dim(2), outputs, "ffn", bias=True).elements == 21


@pytest.mark.parametrize(
    ("mixer", "elements"),
    [
        # q 8x12, k and v 8x6, o 12x8
        (GQA, 96 + 96 + 96),
        (replace(GQA, qkv_bias=True, out_bias=True), 288 + 24 + 8),
        # whisper: keys have no bias
        (replace(GQA, qkv_bias=True, key_bias=False), 288 + 24 - 6),
        (replace(GQA, gated=True), 288 + 96),
        (replace(GQA, qk_norm=6, sinks=True), 288 + 6 + 4),
        (replace(GQA, relative_buckets=5), 288 + 20),
        (replace(GQA, cross=True, memory_width=2), 96 + 2 * 12 + 96),
        (replace(GQA, window=4, chunk=4), 288),
        # queries 8x(4x(3+2)), latent 8x(6+2), up 6x(4x(3+5)), out (4x5)x8, norm of the latent
        (LatentAttention(4, 0, 6, 3, 2, 5), 160 + 64 + 192 + 160 + 6),
        # queries through a latent of 7: 8x7, 7x20, its norm
        (LatentAttention(4, 7, 6, 3, 2, 5), 56 + 140 + 64 + 192 + 160 + 6 + 7),
        # index queries 7x(2x4), key 8x4, weights 8x2, key norm with bias
        (LatentAttention(4, 7, 6, 3, 2, 5, Indexer(2, 4, 16)), 625 + 56 + 32 + 16 + 8),
        # q, k 8x(2x3) each; v, gate 8x(4x5) each; decay, strength 8x4 each; out 20x8;
        # taps 4x(12+20), decay and bias 4 each, norm 5
        (GatedDelta(2, 4, 3, 5, 4), 96 + 320 + 64 + 160 + 128 + 8 + 5),
        # in 8x(2x6), x 6x(2+2x3), dt 2x6+6, out 6x8; taps 6x(4+1), A 6x3, D 6
        (Mamba(6, 3, 4, dt_rank=2), 96 + 48 + 18 + 48 + 30 + 18 + 6),
        (Mamba(6, 3, 4, dt_rank=2, inner_norms=True), 264 + 2 + 3 + 3),
        # in 8x(2x6+2x3+2), out 6x8; taps (6+6)x(4+1), A, D, dt bias 2 each, norm 6
        (Mamba(6, 3, 4, heads=2), 160 + 48 + 60 + 6 + 6),
    ],
)
def test_mixer_by_hand(
    mixer: SoftmaxAttention | LatentAttention | GatedDelta | Mamba, elements: int
) -> None:
    assert size(mixer) == elements


@pytest.mark.parametrize(
    ("ffn", "elements", "expert"),
    [
        (SWIGLU, 3 * 8 * 5, 0),
        (DenseFfn(5, gated=False, bias=True), 2 * 8 * 5 + 5 + 8, 0),
        # router 8x6, shared expert 3x8x4
        (MOE, 48 + 96, 72),
        (replace(MOE, router_bias=True, shared_gate=True), 48 + 6 + 96 + 8, 72),
        (replace(MOE, gated=False), 48 + 64, 48),
        (replace(MOE, gated=False, shared_gated=True), 48 + 96, 48),
        # experts in a latent of 2, reached by 8x2 and left by 2x8; the shared expert stays outside
        (replace(MOE, latent=2), 48 + 96 + 32, 18),
        (replace(MOE, bias=True), 48 + 96 + 8 + 8, 72 + 6 + 8),
    ],
)
def test_ffn_by_hand(ffn: DenseFfn | MoeFfn, elements: int, expert: int) -> None:
    assert size(ffn) == elements
    if isinstance(ffn, MoeFfn):
        assert sum(map_.elements for map_ in ffn.expert_linears(HIDDEN)) == expert


@pytest.mark.parametrize(
    ("mixer", "cache", "state"),
    [
        (GQA, 2 * 2 * 3, 0),
        (LatentAttention(4, 7, 6, 3, 2, 5), 6 + 2, 0),
        # 4 matrices of 3x5; 32 channels of 3 earlier inputs
        (GatedDelta(2, 4, 3, 5, 4), 0, 60 + 96),
        (Mamba(6, 3, 4, dt_rank=2), 0, 18 + 18),
        (Mamba(6, 3, 4, heads=2), 0, 18 + 36),
        (None, 0, 0),
    ],
)
def test_what_a_sequence_keeps(
    mixer: SoftmaxAttention | LatentAttention | GatedDelta | Mamba | None, cache: int, state: int
) -> None:
    assert cache_elements(mixer) == cache
    model = toy(*[Layer("a", mixer, SWIGLU)] * 3)
    assert model.kv_elements_per_token() == 3 * cache
    assert model.state_elements() == 3 * state


def test_frame_by_hand() -> None:
    dense, moe = Layer("dense", GQA, SWIGLU), Layer("moe", GQA, MOE)
    model = toy(dense, moe, moe)
    attention, norms = 3 * 288, (2 * 3 + 1) * 8
    assert model.elements() == {
        "embedding": 80,
        "head": 80,
        "norm": norms,
        "attention": attention,
        "ffn": 120,
        "router": 2 * 48,
        "shared_experts": 2 * 96,
        "experts": 2 * 6 * 72,
    }
    assert model.parameters == 160 + norms + attention + 120 + 96 + 192 + 864
    # two of six experts, the head, not the embedding
    assert model.active_parameters == model.parameters - 80 - 2 * 4 * 72
    assert (model.layers, moe_layers(model), dense_inner(model)) == (3, 2, 5)
    assert model.distinct() == ((dense, 1), (moe, 2))


def test_a_tied_head_is_stored_once_and_multiplied_with() -> None:
    plain = toy(Layer("a", GQA, SWIGLU))
    tied = replace(plain, tied=True)
    assert plain.parameters - tied.parameters == 80
    assert plain.active_parameters == tied.active_parameters
    headless = replace(plain, head=False)
    assert headless.active_parameters == plain.active_parameters - 80


def test_what_stands_around_the_layers() -> None:
    plain = toy(Layer("a", GQA, SWIGLU))
    extra = Linear("pooler", Dim(8), (Dim(8),), "head", bias=True)
    for change, more in (
        ({"norm_bias": True}, 3 * 8),
        ({"final_norm": False}, -8),
        ({"embedding_norms": 1}, 8),
        ({"positions": 32, "token_types": 2}, 34 * 8),
        ({"head_bias": True}, 10),
        ({"extra": (extra,), "extra_elements": 3}, 72 + 3),
        ({"graph": OperatorGraph("g", (Conv("c", 3, 4, 3, 8, 8),))}, 4 * 28),
    ):
        assert replace(plain, **change).parameters == plain.parameters + more, change


def test_encoder_and_towers_count_but_text_passes_no_tower() -> None:
    part = replace(toy(Layer("a", GQA, SWIGLU)), vocab=0, head=False, causal=False, positions=5)
    plain = toy(Layer("b", GQA, SWIGLU))
    cross = toy(Layer("b", GQA, SWIGLU, cross=replace(GQA, cross=True), norms=3), encoder=part)
    assert cross.parameters == plain.parameters + 288 + 8 + part.parameters
    seeing = replace(plain, towers=(part, part))
    assert seeing.parameters == plain.parameters + 2 * part.parameters
    assert seeing.active_parameters == plain.active_parameters


def test_mtp_is_stored_beside_the_model() -> None:
    layer = Layer("a", GQA, SWIGLU)
    plain, drafting = toy(layer), toy(layer, mtp=(Run(layer, 2),))
    assert drafting.parameters == plain.parameters
    assert plain.mtp_parameters == 0
    # per module: the layer, 16x8 to merge, three norms
    assert drafting.mtp_parameters == 2 * (288 + 120 + 16 + 128 + 24)
    halves = (
        Run(replace(layer, ffn=None, norms=1), 1),
        Run(replace(layer, mixer=None, norms=1), 1),
    )
    assert toy(layer, mtp=halves).mtp_parameters * 2 == drafting.mtp_parameters


def grouped(kv_heads: int, group: int, dim: int, gated: bool) -> SoftmaxAttention:
    """Attention with ``group`` query heads per key-value head."""
    return SoftmaxAttention(kv_heads * group, kv_heads, dim, gated=gated)


heads = st.integers(1, 8)
mixers = st.one_of(
    st.none(),
    st.builds(grouped, heads, heads, heads, st.booleans()),
    st.builds(LatentAttention, heads, st.integers(0, 9), heads, heads, heads, heads),
    st.builds(GatedDelta, heads, heads, heads, heads, st.just(4)),
)  # fmt: skip
ffns = st.one_of(
    st.builds(DenseFfn, heads, st.booleans(), st.booleans()),
    st.integers(1, 6).flatmap(
        lambda experts: st.builds(MoeFfn, st.just(experts), st.integers(1, experts), heads, heads)
    ),
)
layers = st.builds(Layer, st.sampled_from("ab"), mixers, ffns)


@given(st.lists(layers, min_size=1, max_size=6), st.booleans())
def test_counts_are_consistent(stack: list[Layer], tied: bool) -> None:
    model = toy(*stack, tied=tied)
    assert model.parameters == sum(model.elements().values())
    assert model.active_parameters <= model.parameters + (80 if tied else 0)
    assert sum(count for _, count in model.distinct()) == model.layers == len(stack)
    alone = [toy(layer) for layer in stack]
    assert model.kv_elements_per_token() == sum(one.kv_elements_per_token() for one in alone)
    shell = toy(tied=tied).parameters
    assert model.parameters - shell == sum(one.parameters - toy().parameters for one in alone)
