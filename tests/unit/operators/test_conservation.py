"""Work is conserved: cut a prompt into chunks or a model into ranks, the sum is the same.

What replication adds is computed from the blocks of each model, not from the functions under test.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import pytest

from perfmodel.core.precision import SCHEMES
from perfmodel.core.types import TokenGroup
from perfmodel.memory.fit import sequence_bytes, weight_bytes
from perfmodel.models.architecture import Architecture, Layer, Run, stacked
from perfmodel.models.blocks import DenseFfn, Linear, MoeFfn
from perfmodel.models.mixers import GatedDelta, Indexer, LatentAttention, Mamba, SoftmaxAttention
from perfmodel.operators.base import Operator
from perfmodel.operators.model import step_operators
from perfmodel.parallel.layout import Layout, legal

BF16 = SCHEMES["bf16"]
DENSE, MOE = DenseFfn(512), MoeFfn(16, 2, 64, shared_inner=128)
GQA = SoftmaxAttention(heads=16, kv_heads=4, head_dim=16)
MIXERS = {
    "causal": GQA,
    "windowed": replace(GQA, window=24),
    "chunked": replace(GQA, chunk=24),
    "gated": replace(GQA, gated=True, value_dim=8),
    "sparse": replace(GQA, indexer=Indexer(4, 8, 20)),
    "latent": LatentAttention(16, 48, 32, 8, 4, 12),
    "latent_sparse": LatentAttention(16, 48, 32, 8, 4, 12, Indexer(4, 8, 20)),
    "uncompressed_query": LatentAttention(16, 0, 32, 8, 4, 12),
    "delta": GatedDelta(8, 16, 16, 16, 4),
    "mamba": Mamba(256, 16, 4, dt_rank=8),
    "mamba2": Mamba(256, 16, 4, heads=16, groups=8),
}


def model(mixer: str, ffn: DenseFfn | MoeFfn = DENSE, layers: int = 4) -> Architecture:
    made = Layer("l", MIXERS[mixer], ffn)
    return Architecture(mixer, 128, 1024, 4096, (Run(made, layers),))


def operators(
    architecture: Architecture, groups: Sequence[TokenGroup], layout: Layout | None = None
) -> list[Operator]:
    return list(step_operators(architecture, layout or Layout(), BF16, groups))


def flops(found: Sequence[Operator], *skip: str) -> float:
    """Matrix, expert, attention and scan work; the head runs once a step and is counted apart."""
    return float(
        sum(
            o.count * o.flops
            for o in found
            if o.family not in ("pointwise", "collective") and o.name not in ("lm_head", *skip)
        )
    )


def prefill(
    architecture: Architecture, new: int, past: int = 0, seqs: int = 2, layout: Layout | None = None
) -> list[Operator]:
    return operators(architecture, [TokenGroup(float(seqs), float(new), float(past))], layout)


CHUNKS = [(100,), (50, 50), (24, 24, 24, 28), (1, 2, 3, 94), (99, 1), (30, 40, 30)]


@pytest.mark.parametrize("sizes", CHUNKS, ids=str)
@pytest.mark.parametrize("mixer", MIXERS)
def test_chunked_prefill_sums_to_the_whole(mixer: str, sizes: tuple[int, ...]) -> None:
    architecture = model(mixer)
    whole = flops(prefill(architecture, 100))
    past, total, again = 0, 0.0, 0
    for size in sizes:
        total += flops(prefill(architecture, size, past))
        again += past
        past += size
    block = MIXERS[mixer]
    if isinstance(block, LatentAttention) and block.indexer is None:
        # a chunk expands the latents of all its past once more: 2 sequences, 4 layers
        whole += 2 * 4 * 2 * again * block.kv_rank * block.heads * (8 + 12)
    assert total == whole


@pytest.mark.parametrize("mixer", ["causal", "windowed", "chunked", "sparse", "delta"])
def test_prefix_cache_saves_exactly_the_prefill_of_the_prefix(mixer: str) -> None:
    architecture = model(mixer)
    for prefix in (1, 23, 24, 25, 99):
        hit = flops(prefill(architecture, 100 - prefix, prefix))
        assert hit == flops(prefill(architecture, 100)) - flops(prefill(architecture, prefix))


@pytest.mark.parametrize("mixer", MIXERS)
def test_one_step_of_two_groups_is_the_sum_of_both(mixer: str) -> None:
    architecture = model(mixer)
    decode, prompt = TokenGroup(5.0, 1.0, 77.0, "decode"), TokenGroup(1.0, 40.0, 12.0)
    together = flops(operators(architecture, [decode, prompt]))
    apart = flops(operators(architecture, [decode])) + flops(operators(architecture, [prompt]))
    assert together == apart
    reads = [
        sum(float(o.count * o.kv_bytes) for o in operators(architecture, groups))
        for groups in ([decode, prompt], [decode], [prompt])
    ]
    assert reads[0] == reads[1] + reads[2]


@pytest.mark.parametrize("past", [0, 1, 19, 23, 24, 25, 48, 1000])
@pytest.mark.parametrize("mixer", ["causal", "windowed", "chunked", "sparse", "gated"])
def test_decode_reads_the_keys_it_multiplies(mixer: str, past: int) -> None:
    group = TokenGroup(1.0, 1.0, float(past), "decode")
    (core,) = [o for o in operators(model(mixer), [group]) if o.name == "decode_attention"]
    block = MIXERS[mixer]
    assert isinstance(block, SoftmaxAttention)
    dims = block.head_dim + (block.value_dim or block.head_dim)
    keys = float(core.flops) / (2 * block.heads * dims)
    assert keys == {
        "causal": past + 1, "gated": past + 1, "windowed": min(past + 1, 24),
        "chunked": past % 24 + 1, "sparse": min(past + 1, 20),
    }[mixer]  # fmt: skip
    assert core.kv_bytes == keys * block.kv_heads * dims * BF16.kv.bytes


def test_sparse_latent_attention_reads_index_keys_of_all_and_latents_of_few() -> None:
    found = operators(model("latent_sparse"), [TokenGroup(3.0, 1.0, 99.0, "decode")])
    by_name = {o.name: o for o in found}
    assert by_name["decode_attention"].kv_bytes == 3 * 20 * (32 + 4) * 2
    assert by_name["decode_index"].index_bytes == 3 * 100 * (8 + 4)  # fp8 keys, one fp32 scale
    assert by_name["rope_cache"].kv_bytes == 3 * ((32 + 4) * 2 + 8 + 4)


def share(linear: Linear, tp: int) -> int:
    """Elements of a matrix on the fullest of ``tp`` ranks, granule by granule."""

    def size(dim: object) -> int:
        units, whole = dim.units, dim.size  # type: ignore[attr-defined]
        return whole if units is None else ceil(units / tp) * (whole // units)

    return size(linear.inputs) * sum(size(dim) for dim in linear.outputs)


@pytest.mark.parametrize("tp", [2, 4, 8, 16])
@pytest.mark.parametrize("ffn", [DENSE, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_tensor_parallel_ranks_sum_to_the_whole(
    mixer: str, ffn: DenseFfn | MoeFfn, tp: int
) -> None:
    architecture = model(mixer, ffn)
    alone = {o.name: o for o in prefill(architecture, 50)}
    rank = {o.name: o for o in prefill(architecture, 50, layout=Layout(tp=float(tp)))}
    linears = {
        linear.name: linear for run in architecture.runs for linear in run.layer.linears(128)
    }
    linears["lm_head"] = architecture.head_linear()
    replicated = 0
    for name, linear in linears.items():
        extra = share(linear, tp) * tp - share(linear, 1)
        assert extra >= 0
        replicated += extra
        rows = 2 if name == "lm_head" else 100
        assert tp * rank[name].flops == alone[name].flops + 2 * rows * extra, name
        assert tp * rank[name].weight_bytes == alone[name].weight_bytes + 2 * extra, name
    for name in ("prefill_attention", "expert_gate_up_proj", "expert_down_proj"):
        if name in alone:
            assert tp * rank[name].flops == alone[name].flops
    for name in ("expert_gate_up_proj", "expert_down_proj"):
        if name in alone:
            assert tp * rank[name].weight_bytes == pytest.approx(alone[name].weight_bytes)
    # the router, latent down projections and index projections are what is replicated, and KV
    # heads where there are fewer than ranks
    whole = {name for name, x in linears.items() if share(x, tp) == share(x, 1)}
    names = {"router", "qkv_a_proj", "kv_a_proj", "index_q_proj", "index_k_proj"}
    assert whole <= names | {"index_weights_proj"}
    kv = {"qkv_proj"} if tp > 4 else set()
    groups = {"in_proj_qkvz", "in_proj"} if tp > 8 else set()
    partly = {name for name, x in linears.items() if share(x, tp) * tp > share(x, 1)} - whole
    assert partly <= kv | groups
    assert (replicated > 0) == bool(whole | partly)


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("ffn", [DENSE, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_weights_of_all_ranks(mixer: str, ffn: DenseFfn | MoeFfn, tp: int) -> None:
    architecture = model(mixer, ffn)
    alone = weight_bytes(architecture, Layout(), BF16)
    layer = architecture.runs[0].layer
    parts = (layer.mixer, layer.ffn)
    held = sum(part.small_elements(128) for part in parts if part) + 2 * architecture.norm_width
    extra = sum(share(linear, tp) * tp - share(linear, 1) for linear in layer.linears(128))
    copies = 4 * ((tp - 1) * held + extra) + (tp - 1) * architecture.norm_width  # final norm
    assert tp * weight_bytes(architecture, Layout(tp=float(tp)), BF16) == alone + 2 * copies
    if not any(linear.bias for linear in layer.linears(128)):
        assert alone == 2 * architecture.parameters


@pytest.mark.parametrize("mixer", ["causal", "windowed", "latent", "delta", "mamba2"])
def test_cache_of_all_ranks(mixer: str) -> None:
    architecture = model(mixer)
    alone = sequence_bytes(architecture, Layout(), BF16, 960.0, 16.0)
    for tp in (2, 4):
        rank = sequence_bytes(architecture, Layout(tp=float(tp)), BF16, 960.0, 16.0)
        # one latent serves all heads: every rank keeps it
        assert rank == (alone if mixer == "latent" else alone / tp)
    for pp in (2, 4):
        assert sequence_bytes(architecture, Layout(pp=float(pp)), BF16, 960.0, 16.0) == alone / pp
    if mixer in ("causal", "latent"):
        cp = sequence_bytes(architecture, Layout(cp=4.0), BF16, 960.0, 16.0)
        assert cp == alone / 4


def test_key_heads_are_replicated_beyond_their_number() -> None:
    architecture = model("causal")  # 4 KV heads
    widths = [
        sequence_bytes(architecture, Layout(tp=float(tp)), BF16, 16.0, 16.0) for tp in (4, 8, 16)
    ]
    assert widths[0] == widths[1] == widths[2] == 4 * 16 * 2 * 16 * 2


@pytest.mark.parametrize(("tp", "dp", "cp"), [(1, 4, 1), (2, 2, 1), (4, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("ep", [1, 2, 4])
def test_experts_get_every_token_once(tp: int, dp: int, cp: int, ep: int) -> None:
    architecture = model("causal", MOE)
    layout = Layout(tp=float(tp), dp=float(dp), ep=float(ep), cp=float(cp))
    assert legal(architecture, layout) == 0
    ranks = tp * dp * cp
    # each of the dp replicas brings its own two sequences of 48 tokens
    rank = {o.name: o for o in prefill(architecture, 48, layout=layout)}
    alone = {o.name: o for o in prefill(architecture, 48, seqs=2 * dp)}
    for name in ("expert_gate_up_proj", "expert_down_proj"):
        assert ranks * rank[name].flops == alone[name].flops
        assert ranks * rank[name].weight_bytes == pytest.approx(alone[name].weight_bytes)
    for name in ("qkv_proj", "o_proj", "prefill_attention", "gate_up_proj", "down_proj"):
        assert ranks * rank[name].flops == alone[name].flops
    expert = 3 * 128 * 64
    attention = weight_bytes(architecture, Layout(tp=float(tp)), BF16)
    attention -= 2 * 4 * 16 * expert / tp
    held = weight_bytes(architecture, layout, BF16) - attention
    assert held * ranks == pytest.approx(2 * 4 * 16 * expert)


@pytest.mark.parametrize("ep", [2, 4])
def test_tokens_travel_to_their_experts_and_back(ep: int) -> None:
    rank = {o.name: o for o in prefill(model("causal", MOE), 48, layout=Layout(dp=4.0, ep=ep))}
    # 96 tokens of a rank, two experts each, 128 values of 2 bytes
    assert rank["dispatch"].message == rank["combine"].message == 96 * 2 * 128 * 2
    assert rank["gather_tokens"].message == 0
    assert rank["dispatch"].group == 4
    sliced = {o.name: o for o in prefill(model("causal", MOE), 48, layout=Layout(dp=4.0))}
    assert sliced["dispatch"].message == 0
    assert sliced["gather_tokens"].message == 4 * 96 * 128 * 2


def test_imbalance_loads_the_heaviest_rank_only() -> None:
    architecture, group = model("causal", MOE), [TokenGroup(2.0, 48.0, 0.0)]
    layout = Layout(dp=4.0, ep=4.0)
    even, skewed = (
        {o.name: o for o in step_operators(architecture, layout, BF16, group, imbalance)}
        for imbalance in (1.0, 1.5)
    )
    for name, operator in even.items():
        factor = 1.5 if name.startswith("expert_") else 1.0
        assert skewed[name].flops == factor * operator.flops, name


@pytest.mark.parametrize("cp", [2, 4])
@pytest.mark.parametrize("mixer", ["causal", "latent"])
def test_context_parallel_ranks_share_tokens_and_pairs(mixer: str, cp: int) -> None:
    architecture = model(mixer)
    alone, rank = prefill(architecture, 48), prefill(architecture, 48, layout=Layout(cp=float(cp)))
    assert cp * flops(rank) == flops(alone)
    reads = [sum(float(o.count * o.kv_bytes) for o in found) for found in (alone, rank)]
    assert cp * reads[1] == reads[0]
    # weights are read by every rank
    weights = [sum(float(o.count * o.weight_bytes) for o in found) for found in (alone, rank)]
    assert weights[1] == weights[0]


def test_pipeline_stages_do_the_work_of_the_whole_once() -> None:
    layers = [Layer("a", GQA, DENSE), Layer("b", replace(GQA, window=24), MOE)] * 3
    architecture = Architecture("mixed", 128, 1024, 4096, stacked(layers))
    alone = prefill(architecture, 50)
    for pp in (2, 3, 6):
        staged = prefill(architecture, 50, layout=Layout(pp=float(pp)))
        assert flops(staged) == pytest.approx(flops(alone), rel=1e-12)
        (transfer,) = [o for o in staged if o.name == "stage_transfer"]
        assert (transfer.count, transfer.message) == (pp - 1, 100 * 128 * 2)
    # four stages of six layers: the deepest has two, so the pass takes as long as eight would
    deep = prefill(architecture, 50, layout=Layout(pp=4.0))
    assert flops(deep) == pytest.approx(flops(alone) * 8 / 6, rel=1e-12)


def test_pipeline_weights_cover_the_model() -> None:
    architecture = model("causal")
    alone = weight_bytes(architecture, Layout(), BF16)
    table, norm = 2 * 1024 * 128, 2 * 128
    for pp in (2, 4):
        stage = weight_bytes(architecture, Layout(pp=float(pp)), BF16)
        # the fullest stage: its layers, one of embedding and head, the final norm
        assert stage - table - norm == (alone - 2 * table - norm) / pp


def test_replicas_of_a_dense_model_do_not_share_work() -> None:
    architecture = model("causal")
    assert flops(prefill(architecture, 50, layout=Layout(dp=4.0))) == flops(
        prefill(architecture, 50)
    )
    assert weight_bytes(architecture, Layout(dp=4.0), BF16) == weight_bytes(
        architecture, Layout(), BF16
    )


@pytest.mark.parametrize("mixer", MIXERS)
def test_tensor_parallel_reduces_twice_a_layer(mixer: str) -> None:
    found = prefill(model(mixer), 50, layout=Layout(tp=4.0))
    sums = [o for o in found if o.collective == "all_reduce"]
    assert sum(float(o.count) for o in sums) == 2 * 4
    assert {float(o.message) for o in sums} == {100 * 128 * 2}
    (gather,) = [o for o in found if o.collective == "all_gather"]
    assert gather.message == 2 * 1024 * 2
    assert not [o for o in prefill(model(mixer), 50) if o.family == "collective"]
