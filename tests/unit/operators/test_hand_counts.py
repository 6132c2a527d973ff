"""Steps of published models against counts done by hand, written out with their arithmetic."""

import pytest

from perfmodel.core.precision import SCHEMES
from perfmodel.core.types import TokenGroup
from perfmodel.memory.fit import checkpoint_bytes, sequence_bytes, weight_bytes
from perfmodel.models.architecture import Architecture, Layer, Run
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.mixers import LatentAttention, SoftmaxAttention
from perfmodel.operators.base import Operator
from perfmodel.operators.model import step_operators
from perfmodel.parallel.layout import Layout

BF16 = SCHEMES["bf16"]

LLAMA_8B = Architecture(
    "llama-3.1-8b", 4096, 128256, 131072,
    (Run(Layer("l", SoftmaxAttention(32, 8, 128), DenseFfn(14336)), 32),),
)  # fmt: skip
MIXTRAL = Architecture(
    "mixtral-8x7b", 4096, 32000, 32768,
    (Run(Layer("l", SoftmaxAttention(32, 8, 128), MoeFfn(8, 2, 14336)), 32),),
)  # fmt: skip
_MLA = LatentAttention(128, 1536, 512, 128, 64, 128)
_V3_MOE = MoeFfn(256, 8, 2048, shared_inner=2048, router_bias=True)
DEEPSEEK_V3 = Architecture(
    "deepseek-v3", 7168, 129280, 163840,
    (Run(Layer("dense", _MLA, DenseFfn(18432)), 3), Run(Layer("moe", _MLA, _V3_MOE), 58)),
)  # fmt: skip


def decode(architecture: Architecture, seqs: int, past: int) -> list[Operator]:
    group = TokenGroup(float(seqs), 1.0, float(past), "decode")
    return list(step_operators(architecture, Layout(), BF16, [group]))


def summed(operators: list[Operator], what: str, *names: str) -> float:
    chosen = [o for o in operators if not names or o.name in names]
    assert {o.name for o in chosen} >= set(names)
    return float(sum(o.count * getattr(o, what) for o in chosen))


# one layer of Llama-3.1-8B, elements
LLAMA_LAYER = (
    4096 * (32 * 128 + 2 * 8 * 128)  # q, k, v: 25,165,824
    + 32 * 128 * 4096  # o: 16,777,216
    + 4096 * 2 * 14336  # gate and up: 117,440,512
    + 14336 * 4096  # down: 58,720,256
)
LLAMA_ELEMENTS = 32 * 218_103_808 + 4096 * 128256  # = 7,504,658,432 with the head


def test_llama_8b_by_hand() -> None:
    assert LLAMA_LAYER == 218_103_808
    assert LLAMA_ELEMENTS == 7_504_658_432


@pytest.mark.parametrize("seqs", [1, 64])
def test_llama_8b_decode(seqs: int) -> None:
    operators = decode(LLAMA_8B, seqs, 8191)
    # every weight once in bf16, whatever the batch: 15.0 GB
    assert summed(operators, "weight_bytes") == 2 * 7_504_658_432
    # cache: 32 layers x 2 (K, V) x 8 heads x 128 x 2 B = 131,072 B a token; 8192 tokens = 2^30 B;
    # and one token written
    assert summed(operators, "kv_bytes") == seqs * (2**30 + 131_072)
    matrices = [o for o in operators if o.family == "gemm"]
    assert summed(matrices, "flops") == seqs * 2 * 7_504_658_432
    # 32 layers x 32 heads x 8192 keys x (128 + 128) x 2 FLOP = 2^32
    assert summed(operators, "flops", "decode_attention") == seqs * 2**32


def test_llama_8b_prefill_of_one_prompt() -> None:
    group = TokenGroup(1.0, 2048.0, 0.0)
    operators = list(step_operators(LLAMA_8B, Layout(), BF16, [group]))
    body = [o for o in operators if o.family == "gemm" and o.name != "lm_head"]
    assert summed(body, "flops") == 2 * 2048 * 32 * 218_103_808
    assert summed(operators, "flops", "lm_head") == 2 * 4096 * 128256  # last token only
    # 2048 x 2049 / 2 pairs x 32 layers x 32 heads x 512
    assert summed(operators, "flops", "prefill_attention") == 2_098_176 * 32 * 32 * 512


def test_llama_8b_memory() -> None:
    # 7,504,658,432 + input embedding 525,336,576 + norms (2 x 32 + 1) x 4096 = 8,030,261,248
    assert checkpoint_bytes(LLAMA_8B, BF16) == 2 * 8_030_261_248
    assert weight_bytes(LLAMA_8B, Layout(), BF16) == 2 * 8_030_261_248
    # 100 tokens in pages of 16: 7 pages = 112 tokens
    assert sequence_bytes(LLAMA_8B, Layout(), BF16, 100.0, 16.0) == 112 * 131_072


# Parts of a DeepSeek-V3 layer, elements
V3_QKV_A = 7168 * (1536 + 512 + 64)  # 15,138,816
V3_Q_B = 1536 * 128 * (128 + 64)  # 37,748,736
V3_KV_B = 512 * 128 * (128 + 128)  # 16,777,216
V3_O = 128 * 128 * 7168  # 117,440,512
V3_EXPERT = 3 * 7168 * 2048  # 44,040,192
V3_ROUTER = 7168 * 256  # 1,835,008
V3_DENSE = 3 * 7168 * 18432  # 396,361,728


def test_deepseek_v3_decode_of_one_sequence() -> None:
    operators = decode(DEEPSEEK_V3, 1, 4095)
    attention = V3_QKV_A + V3_Q_B + V3_KV_B + V3_O
    assert attention == 187_105_280
    # 61 x attention + 3 dense + 58 x (router + shared + 8 routed) + head 7168 x 129280
    read = 61 * attention + 3 * V3_DENSE + 58 * (V3_ROUTER + 9 * V3_EXPERT) + 926_679_040
    assert read == 36_624_596_992
    assert summed(operators, "weight_bytes") == pytest.approx(2 * read, rel=1e-12)
    # one latent of 512 + 64 elements: 61 x 576 x 2 B = 70,272 B a token
    assert summed(operators, "kv_bytes") == (4096 + 1) * 70_272
    matrices = [o for o in operators if o.family == "gemm"]
    # dense matrices: everything but the routed experts
    assert summed(matrices, "flops") == 2 * (read - 58 * 8 * V3_EXPERT)
    # absorbed: scores over 576, values over 512, 128 heads, 4096 keys
    assert summed(operators, "flops", "decode_attention") == 61 * 2 * 128 * (576 + 512) * 4096


def test_deepseek_v3_prefill_uses_short_heads() -> None:
    group = TokenGroup(1.0, 4096.0, 0.0)
    operators = list(step_operators(DEEPSEEK_V3, Layout(), BF16, [group]))
    pairs = 4096 * 4097 // 2
    # expanded: scores over 128 + 64, values over 128
    assert summed(operators, "flops", "prefill_attention") == 61 * 2 * 128 * (192 + 128) * pairs
    assert summed(operators, "flops", "kv_b_proj") == 61 * 2 * 4096 * V3_KV_B


def test_deepseek_v3_touches_more_experts_with_the_batch() -> None:
    # 256 (1 - (1 - 8/256)^T): 8 at T = 1, 15.75 at T = 2, 222.4 at T = 64
    for tokens, touched in ((1, 8.0), (2, 15.75), (64, 256 * (1 - (31 / 32) ** 64))):
        operators = decode(DEEPSEEK_V3, tokens, 100)
        read = summed(operators, "weight_bytes", "expert_gate_up_proj", "expert_down_proj")
        assert read == pytest.approx(58 * touched * V3_EXPERT * 2, rel=1e-9)


def test_deepseek_v3_weighs_671_gb_in_fp8() -> None:
    # 671.03e9 parameters, embedding and head (1.85e9) and router in two bytes, fp32 block scales
    fp8 = checkpoint_bytes(DEEPSEEK_V3, SCHEMES["fp8_block"])
    assert sum(DEEPSEEK_V3.elements().values()) == 671_026_419_200
    wide = 2 * 7168 * 129280 + 58 * V3_ROUTER  # stays in bf16; its norms and biases are small
    narrow = 671_026_419_200 - wide
    assert fp8 == pytest.approx(2 * wide + narrow * (1 + 4 / 128**2), rel=1e-5)
    assert 671e9 < fp8 < 674e9


def test_mixtral_reads_nearly_all_experts_at_batch_64() -> None:
    expert = 3 * 4096 * 14336  # 176,160,768
    names = ("expert_gate_up_proj", "expert_down_proj")
    one = summed(decode(MIXTRAL, 1, 100), "weight_bytes", *names)
    many = summed(decode(MIXTRAL, 64, 100), "weight_bytes", *names)
    assert one == pytest.approx(32 * 2 * expert * 2, rel=1e-12)  # two experts, bf16
    assert 7.9 < many / (32 * expert * 2) <= 8
    # yet each token multiplies with two experts only
    assert summed(decode(MIXTRAL, 64, 100), "flops", *names) == 64 * 32 * 2 * expert * 2


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("meta-llama/Llama-3.1-8B", LLAMA_8B),
        ("mistralai/Mixtral-8x7B-v0.1", MIXTRAL),
        ("deepseek-ai/DeepSeek-V3", DEEPSEEK_V3),
    ],
)
def test_presets_are_the_models_counted_here(name: str, twin: Architecture) -> None:
    from perfmodel.models import preset

    made = preset.load(name).architecture
    assert made.parameters == twin.parameters
    assert [(run.layer.mixer, run.layer.ffn, run.count) for run in made.runs] == [
        (run.layer.mixer, run.layer.ffn, run.count) for run in twin.runs
    ]
