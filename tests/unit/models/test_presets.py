"""Presets against numbers worked out by hand or published elsewhere, and the format's messages."""

from pathlib import Path
from typing import Any

import pytest

from perfmodel.core.errors import DataError
from perfmodel.models import preset
from perfmodel.models.blocks import MoeFfn
from perfmodel.models.mixers import LatentAttention, SoftmaxAttention

BF16 = 2  # bytes
# layers with a cache x 2 (keys, values) x KV heads x head dim; MLA: layers x (latent + rotary);
# DeepSeek-V4: one vector of 512 per 4 or 128 tokens
KV_BYTES = {
    "meta-llama/Llama-2-7b-hf": 32 * 2 * 32 * 128 * BF16,
    "meta-llama/Llama-2-70b-hf": 80 * 2 * 8 * 128 * BF16,
    "meta-llama/Llama-3.1-8B": 131_072,
    "meta-llama/Llama-3.1-70B": 327_680,
    "meta-llama/Llama-3.1-405B": 126 * 2 * 8 * 128 * BF16,
    "meta-llama/Llama-3.2-1B": 16 * 2 * 8 * 64 * BF16,
    "meta-llama/Llama-3.2-3B": 28 * 2 * 8 * 128 * BF16,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 48 * 2 * 8 * 128 * BF16,
    "codellama/CodeLlama-34b-Instruct-hf": 48 * 2 * 8 * 128 * BF16,
    "01-ai/Yi-34B": 60 * 2 * 8 * 128 * BF16,
    "Qwen/Qwen-72B": 80 * 2 * 64 * 128 * BF16,
    "Qwen/Qwen2.5-0.5B": 24 * 2 * 2 * 64 * BF16,
    "Qwen/Qwen2.5-7B": 28 * 2 * 4 * 128 * BF16,
    "Qwen/Qwen2.5-72B": 80 * 2 * 8 * 128 * BF16,
    "Qwen/Qwen3-8B": 36 * 2 * 8 * 128 * BF16,
    "Qwen/Qwen3-32B": 262_144,
    "Qwen/Qwen3-30B-A3B": 48 * 2 * 4 * 128 * BF16,
    "Qwen/Qwen3-235B-A22B": 94 * 2 * 4 * 128 * BF16,
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 48 // 4 * 2 * 2 * 256 * BF16,
    "Qwen/Qwen3.5-397B-A17B": 60 // 4 * 2 * 2 * 256 * BF16,
    "mistralai/Mistral-7B-v0.1": 32 * 2 * 8 * 128 * BF16,
    "mistralai/Mixtral-8x7B-v0.1": 131_072,
    "mistralai/Mixtral-8x22B-v0.1": 56 * 2 * 8 * 128 * BF16,
    "deepseek-ai/DeepSeek-V2-Lite": 27 * (512 + 64) * BF16,
    "deepseek-ai/DeepSeek-V2": 60 * (512 + 64) * BF16,
    "deepseek-ai/DeepSeek-V3": 70_272,
    "deepseek-ai/DeepSeek-V4-Flash": (21 * 512 // 4 + 20 * 512 // 128) * BF16,
    "moonshotai/Kimi-K2-Instruct": 61 * (512 + 64) * BF16,
    "zai-org/GLM-5": 78 * (512 + 64) * BF16,
    "zai-org/GLM-4.5": 92 * 2 * 8 * 128 * BF16,
    "openai/gpt-oss-20b": 24 * 2 * 8 * 64 * BF16,
    "openai/gpt-oss-120b": 73_728,
    "google/gemma-2-9b": 42 * 2 * 8 * 256 * BF16,
    "google/gemma-3-27b-it": 62 * 2 * 16 * 128 * BF16,
    "microsoft/phi-4": 40 * 2 * 10 * 128 * BF16,
    "MiniMaxAI/MiniMax-M2": 62 * 2 * 8 * 128 * BF16,
    "nvidia/Nemotron-H-8B-Base-8K": 4 * 2 * 8 * 128 * BF16,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 6 * 2 * 2 * 128 * BF16,
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": 49 * 2 * 8 * 128 * BF16,
    "ai21labs/Jamba-v0.1": 32 // 8 * 2 * 8 * 128 * BF16,
    "state-spaces/mamba2-2.7b": 0,
    "tiiuae/falcon-7b": 32 * 2 * 1 * 64 * BF16,
    "tiiuae/falcon-180B": 80 * 2 * 8 * 64 * BF16,
    "databricks/dbrx-base": 40 * 2 * 8 * 128 * BF16,
    "facebook/opt-13b": 40 * 2 * 40 * 128 * BF16,
    "openai/gpt-3-175b": 96 * 2 * 96 * 128 * BF16,
    "EleutherAI/gpt-j-6b": 28 * 2 * 16 * 256 * BF16,
    "bigscience/bloom": 70 * 2 * 112 * 128 * BF16,
}

# heads x key dim x value dim, or channels x state; then convolution channels x (width - 1)
STATE_ELEMENTS = {
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 36 * (32 * 128 * 128 + (2 * 16 + 32) * 128 * 3),
    "state-spaces/mamba2-2.7b": 64 * (5120 * 128 + (5120 + 2 * 128) * 3),
    "ai21labs/Jamba-v0.1": 28 * (8192 * 16 + 8192 * 3),
    "nvidia/Nemotron-H-8B-Base-8K": 24 * (8192 * 128 + (8192 + 2 * 8 * 128) * 3),
    "meta-llama/Llama-3.1-8B": 0,
}

# Elements of all tensors on the hub: huggingface.co/api/models/<id>, field safetensors.total. The
# second number is what they hold beyond our main model: rotary tables (layers x 64), or the MTP
# layers, at GLM with copies of embedding and head.
HUB_TOTALS = {
    "meta-llama/Llama-2-7b-hf": (6_738_417_664, 32 * 64),
    "meta-llama/Llama-2-13b-hf": (13_015_866_880, 40 * 64),
    "meta-llama/Llama-2-70b-hf": (68_976_653_312, 80 * 64),
    "meta-llama/Meta-Llama-3-8B": (8_030_261_248, 0),
    "meta-llama/Meta-Llama-3-70B": (70_553_706_496, 0),
    "meta-llama/Llama-3.1-405B": (405_853_388_800, 0),
    "meta-llama/Llama-3.2-1B-Instruct": (1_235_814_400, 0),
    "meta-llama/Llama-3.2-3B-Instruct": (3_212_749_824, 0),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": (108_641_793_536, 0),
    "mistralai/Mistral-7B-v0.1": (7_241_732_096, 0),
    "Qwen/Qwen2.5-7B-Instruct": (7_615_616_512, 0),
    "Qwen/Qwen2.5-72B-Instruct": (72_706_203_648, 0),
    "Qwen/Qwen3-8B": (8_190_735_360, 0),
    "Qwen/Qwen3-32B": (32_762_123_264, 0),
    "Qwen/Qwen3-30B-A3B": (30_532_122_624, 0),
    "Qwen/Qwen3-235B-A22B": (235_093_634_560, 0),
    "Qwen/Qwen3-Next-80B-A3B-Instruct": (81_324_862_720, 1_650_471_424),
    "google/gemma-2-9b-it": (9_241_705_984, 0),
    "google/gemma-2-27b-it": (27_227_128_320, 0),
    "google/gemma-3-4b-it": (4_300_079_472, 0),
    "google/gemma-3-12b-it": (12_187_325_040, 0),
    "google/gemma-3-27b-it": (27_432_406_640, 0),
    "microsoft/Phi-3-mini-4k-instruct": (3_821_079_552, 0),
    "microsoft/phi-4": (14_659_507_200, 0),
    "openai/gpt-oss-20b": (20_914_757_184, 0),
    "openai/gpt-oss-120b": (116_829_156_672, 0),
    "zai-org/GLM-4.5": (358_337_791_296, 3_988_069_792 + 2 * 151_552 * 5120),
    "zai-org/GLM-4.5-Air": (110_468_824_832, 2_375_059_584 + 2 * 151_552 * 4096),
    "tiiuae/falcon-180B": (179_522_565_120, 0),
}

# What a publisher's "active" counts, by the longest prefix of the id: one token's maps with the
# head (as `active_parameters` does), with the embedding added ("all"), or with neither ("layers").
ACTIVE_COUNTS = {
    "": "head",
    "Qwen/": "all",
    "Qwen/Qwen3-Next": "layers",
    "mistralai/": "all",
    "meta-llama/": "all",
    "microsoft/": "all",
    "ai21labs/": "all",
    "databricks/": "all",
    "zai-org/": "layers",
    "MiniMaxAI/": "layers",
}
WITH_ACTIVE = [name for name in preset.ids() if preset.load(name).facts.published.active]


@pytest.mark.parametrize("name", KV_BYTES)
def test_kv_bytes_per_token(name: str) -> None:
    assert preset.load(name).architecture.kv_elements_per_token() * BF16 == KV_BYTES[name]


@pytest.mark.parametrize("name", STATE_ELEMENTS)
def test_recurrent_state(name: str) -> None:
    assert preset.load(name).architecture.state_elements() == STATE_ELEMENTS[name]


@pytest.mark.parametrize("name", HUB_TOTALS)
def test_parameters_are_the_tensors_on_the_hub(name: str) -> None:
    total, beyond = HUB_TOTALS[name]
    assert preset.load(name).architecture.parameters == total - beyond


def test_mtp_parameters() -> None:
    """The differences above, and DeepSeek-V3's 11.5 B (its README, without the shared matrices)."""
    for name, parameters in {
        "Qwen/Qwen3-Next-80B-A3B-Instruct": 1_650_471_424,
        "zai-org/GLM-4.5": 3_988_069_792,
        "zai-org/GLM-4.5-Air": 2_375_059_584,
    }.items():
        assert preset.load(name).architecture.mtp_parameters == parameters
    v3 = preset.load("deepseek-v3").architecture
    assert v3.mtp_parameters == pytest.approx(11.5e9, rel=0.01)


@pytest.mark.parametrize("name", WITH_ACTIVE)
def test_active_parameters(name: str) -> None:
    """Within 3 %, or within half of the last digit where the card rounds more coarsely."""
    model = preset.load(name)
    published = model.facts.published.active
    assert published
    counts = ACTIVE_COUNTS[max((key for key in ACTIVE_COUNTS if name.startswith(key)), key=len)]
    main = model.architecture
    matrix = main.vocab * main.hidden
    ours = main.active_parameters + {"head": 0, "all": matrix, "layers": -matrix}[counts]
    half_digit = 10 ** (len(str(published)) - len(str(published).rstrip("0"))) / 2
    one_digit = len(str(published).rstrip("0")) == 1
    assert abs(ours - published) <= max(0.03 * published, half_digit if one_digit else 0)


def attentions(name: str) -> list[SoftmaxAttention]:
    """Attention of every layer in order."""
    runs = preset.load(name).architecture.runs
    mixers = [run.layer.mixer for run in runs for _ in range(run.count)]
    return [mixer for mixer in mixers if isinstance(mixer, SoftmaxAttention)]


def test_windows_follow_the_published_pattern() -> None:
    assert [mixer.window for mixer in attentions("gpt-oss-120b")] == [128, None] * 18
    gemma = [mixer.window for mixer in attentions("gemma-3-27b-it")]
    assert (gemma[:6], len(gemma), gemma.count(None)) == ([1024] * 5 + [None], 62, 10)
    scout = [mixer.chunk for mixer in attentions("llama-4-scout")]
    assert scout == ([8192] * 3 + [None]) * 12
    assert {mixer.window for mixer in attentions("mistral-7b-v0.1")} == {4096}


def test_sparse_layers() -> None:
    v3 = preset.load("deepseek-v3").architecture
    assert [(run.layer.name, run.count) for run in v3.runs] == [("dense", 3), ("moe", 58)]
    maverick = preset.load("llama-4-maverick").architecture
    assert sum(run.count for run in maverick.runs if isinstance(run.layer.ffn, MoeFfn)) == 24
    jamba = preset.load("jamba-v0.1").architecture
    assert sum(run.count for run in jamba.runs if isinstance(run.layer.ffn, MoeFfn)) == 16


def test_sparse_attention_has_an_indexer() -> None:
    mixer = preset.load("deepseek-v3.2").architecture.runs[0].layer.mixer
    assert isinstance(mixer, LatentAttention)
    assert mixer.indexer
    assert mixer.indexer.top_k == 2048
    assert preset.load("deepseek-v3").architecture.runs[0].layer.mixer != mixer


def test_a_variant_inherits_all_but_names() -> None:
    base, chat = preset.load("Llama-2-70b-hf"), preset.load("Llama-2-70b-chat-hf")
    assert base.architecture.runs == chat.architecture.runs
    assert set(base.facts.aliases).isdisjoint(chat.facts.aliases)
    assert base.facts.origin.url != chat.facts.origin.url
    long = preset.load("Qwen3-30B-A3B-Instruct-2507").architecture
    assert (long.context, preset.load("Qwen3-30B-A3B").architecture.context) == (262_144, 40_960)
    thinking = preset.load("moonshotai/Kimi-K2-Thinking").facts
    assert (thinking.checkpoint, thinking.published.exact) == ("int4_experts", True)


def test_an_unknown_name_lists_the_nearest() -> None:
    assert preset.find("no such model") is None
    with pytest.raises(DataError, match=r"'lama-3.1-8B'.*nearest: .*Llama-3.1-8B") as caught:
        preset.load("meta-lama/lama-3.1-8B".removeprefix("meta-lama/"))
    assert "\n" not in str(caught.value)


NETWORK: dict[str, Any] = {
    "hidden": 8,
    "vocab": 10,
    "context": 16,
    "layers": 3,
    "pattern": ["full"],
    "layer": {
        "full": {
            "mixer": {"kind": "softmax", "heads": 2, "kv_heads": 1, "head_dim": 4},
            "ffn": {"kind": "dense", "inner": 16},
        }
    },
}


def test_pattern_and_prefix() -> None:
    other = {"ffn": {"kind": "dense", "inner": 4}, "norms": 1}
    layer = {**NETWORK["layer"], "other": other}
    table = {**NETWORK, "layer": layer, "layers": 6, "prefix": ["other"]}
    runs = preset.read("toy", {**table, "pattern": ["full*2", "other"]}).runs
    assert [(run.layer.name, run.count) for run in runs] == [
        ("other", 1), ("full", 2), ("other", 1), ("full", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiden": 8}, "toy: hiden: "),
        ({"hidden": "wide"}, "toy: hidden: "),
        ({"pattern": []}, "prefix and pattern do not make 3 layers"),
        ({"prefix": ["full*4"]}, "prefix and pattern do not make 3 layers"),
        ({"pattern": ["full * 2"]}, "'full \\* 2' is not 'name' or 'name\\*3'"),
        ({"pattern": ["sliding"]}, "names layer 'sliding', defined are \\['full'\\]"),
        ({"layer": {"full": {"mixer": {"kind": "sofmax"}}}}, "kind 'sofmax'; nearest: softmax"),
        ({"layer": {"full": {"ffn": {"kind": "dense"}}}}, "layer full.ffn: inner: "),
        ({"layer": {"full": {"norm": 1}}}, "layer full: norm: "),
    ],
)
def test_a_broken_network_is_one_clear_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        preset.read("toy", {**NETWORK, **change})
    assert str(caught.value).count("\n") == 0


def test_a_base_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a--b.toml").write_text('base = "x/missing"\n')
    monkeypatch.setattr(preset, "FOLDER", tmp_path)
    preset.ids.cache_clear()
    try:
        with pytest.raises(DataError, match="preset base 'x/missing' does not exist"):
            preset.load("a/b")
    finally:
        preset.ids.cache_clear()
