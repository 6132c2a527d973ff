"""`perfmodel.models.hf`: every way a file can be wrong gives one clear line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.core.errors import DataError
from perfmodel.core.precision import SCHEMES
from perfmodel.models import hf
from perfmodel.models.families._config import LARGEST, NEUTRAL

TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 131,
    "max_position_embeddings": 77,
}
PARAMETERS = 69_360  # transformers 5.23.0, LlamaForCausalLM on the meta device


def _file(folder: Path, content: str | dict[str, Any], name: str = "config.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def _message(table: dict[str, Any], ignore: tuple[str, ...] = ()) -> str:
    with pytest.raises(DataError) as caught:
        hf.read(table, "m", "some/config.json", ignore)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_file_and_folder_give_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    path = _file(folder, TINY)
    assert hf.load(path) == hf.load(folder) == hf.load(str(folder))
    architecture, scheme = hf.load(folder)
    assert (architecture.name, architecture.parameters, scheme) == (
        "tiny-model",
        PARAMETERS,
        "bf16",
    )
    named = _file(tmp_path, TINY, "org--tiny_config.json")
    assert hf.load(named)[0].name == "org/tiny"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not valid JSON at line 1"),
        (json.dumps(TINY)[:-20], "not valid JSON"),
        ("[1, 2]", "holds a list, must be a JSON object"),
        ("null", "holds a NoneType"),
        ("[" * 100_000, "not a JSON text"),
        ('{"model_type": "llama", "hidden_size": NaN}', "hidden_size is nan"),
        ('{"model_type": "llama", "hidden_size": Infinity}', "hidden_size is inf"),
        ('{"model_type": "llama", "hidden_size": ' + "9" * 5000 + "}", "not a JSON text"),
        ('{"model_type": ["llama"]}', "model_type is ['llama'], must be a string"),
        ("{}", "missing key 'model_type'"),
    ],
)
def test_broken_file(tmp_path: Path, content: str, says: str) -> None:
    path = _file(tmp_path, content)
    with pytest.raises(DataError) as caught:
        hf.load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_huge_file_is_refused_by_size(tmp_path: Path) -> None:
    """A sparse file of 2 GB takes no disk; reading it would take seconds and memory."""
    path = tmp_path / "config.json"
    with path.open("wb") as handle:
        handle.truncate(2 * 2**30)
    with pytest.raises(DataError, match="2,147,483,648 bytes is no configuration"):
        hf.load(path)


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="not a JSON text"):
        hf.load(path)


def test_missing_path(tmp_path: Path) -> None:
    for source in (tmp_path / "nothing.json", tmp_path, "a" * 5000, "bad\0name", "no-such-model"):
        with pytest.raises(DataError):
            hf.load(source)


def test_hub_id_without_client_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'perfmodel\[hf\]'; or give a config.json"):
        hf.load("some-org/some-model")


def test_hub_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        @staticmethod
        def hf_hub_download(name: str, file: str) -> str:
            assert file == "config.json"
            raise OSError(f"404 for {name}\nlong trace")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", lambda name: Hub)
    with pytest.raises(DataError) as caught:
        hf.load("some-org/some-model")
    assert str(caught.value) == (
        "some-org/some-model: config.json could not be fetched: 404 for some-org/some-model"
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("hidden_size", "48", "hidden_size is '48', must be a whole number"),
        ("hidden_size", True, "hidden_size is True, must be a whole number"),
        ("hidden_size", 48.5, "hidden_size is 48.5, must be a whole number"),
        ("hidden_size", [48], "hidden_size is [48]"),
        ("hidden_size", 0, "must be between 1 and 1,000,000,000"),
        ("vocab_size", -5, "vocab_size is -5"),
        ("vocab_size", 10**400, "must be between 1 and 1,000,000,000"),
        ("vocab_size", 1e300, "must be between 1 and 1,000,000,000"),
        ("vocab_size", LARGEST + 1, "must be between 1 and 1,000,000,000"),
        (
            "num_hidden_layers",
            10**8,
            "num_hidden_layers is 100000000, must be between 1 and 10,000",
        ),
        ("num_attention_heads", 10, "hidden_size / num_attention_heads = 48 / 10 is not a whole"),
        ("num_key_value_heads", 4, "6 / 4 is not a whole number"),
        ("tie_word_embeddings", "yes", "must be true or false"),
        ("attention_bias", 1, "must be true or false"),
        ("layer_types", ["full_attention"], "layer_types has 1 entries for 3 layers"),
        ("layer_types", ["odd"] * 3, "layer_types is 'odd', must be one of full_attention"),
        ("layer_types", "full_attention", "must be a list"),
        ("model_type", "lama", "model_type 'lama' is not known; nearest: llama"),
        ("quantization_config", "fp8", "quantization_config must be an object"),
        ("torch_dtype", "float17", "dtype 'float17' is not one of bfloat16"),
        (
            "hiden_size",
            48,
            "unknown key 'hiden_size' may change the shape; --ignore-key hiden_size",
        ),
    ],
)
def test_bad_value(key: str, value: object, says: str) -> None:
    message = _message({**TINY, key: value})
    assert says in message
    assert message.startswith("some/config.json: ")


def test_more_active_experts_than_there_are() -> None:
    table = {**TINY, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 5}
    assert "a token cannot use 5 of 4 experts" in _message(table)


def test_whole_floats_are_sizes() -> None:
    """Some writers store sizes as 48.0."""
    assert hf.read({**TINY, "hidden_size": 48.0}, "m")[0].parameters == PARAMETERS


@pytest.mark.parametrize("key", [key for key in TINY if key != "num_key_value_heads"])
def test_missing_key_is_named(key: str) -> None:
    message = _message({name: value for name, value in TINY.items() if name != key})
    assert f"missing key '{key}'" in message


def test_nested_place_is_named() -> None:
    table = {"model_type": "qwen3_vl", "text_config": {**TINY, "model_type": "qwen3_vl_text"}}
    del table["text_config"]["vocab_size"]
    assert _message(table).startswith("some/config.json: text_config: missing key 'vocab_size'")
    assert "text_config is 3, must be an object" in _message({**table, "text_config": 3})


def test_unknown_key_can_be_accepted() -> None:
    table = {**TINY, "num_extra_towers": 2}
    assert "num_extra_towers" in _message(table)
    assert "num_extra_towers" in _message(table, ignore=("something_else",))
    accepted, _ = hf.read(table, "m", ignore=("num_extra_towers",))
    assert accepted.parameters == PARAMETERS


def test_neutral_keys_change_nothing() -> None:
    """Keys on the neutral list may have any value, infinite limits included."""
    extra = dict.fromkeys(
        NEUTRAL - {"model_type", "quantization_config"} - {"dtype", "torch_dtype"}
    )
    extra |= {"time_step_limit": [0.0, float("inf")], "rope_scaling": {"factor": 8}}
    assert hf.read({**TINY, **extra}, "m")[0] == hf.read(TINY, "m")[0]
    shapes = {"size", "layers", "heads", "experts", "rank", "dim", "hidden", "inner", "width"}
    suspicious = {key for key in NEUTRAL if shapes & set(key.split("_"))}
    assert suspicious == {
        "chunk_size",  # of the scan, and of the feed-forward loop
        "chunk_size_feed_forward",
        "encoder_no_repeat_ngram_size",
        "no_repeat_ngram_size",
        "ep_size",
        "hidden_act",
        "hidden_activation",
        "mamba_hidden_act",
        "mlp_hidden_act",
        "projector_hidden_act",
        "median_filter_width",  # of Whisper's time stamps
        "hidden_dropout",
        "hidden_dropout_prob",
        "no_rope_layers",  # which layers rotate
        "output_hidden_states",
        "qk_head_dim",  # the sum of two dimensions that are read
        "rotary_dim",
    }
    assert "unknown key 'pruned_heads'" in _message({**TINY, "pruned_heads": {"0": [1]}})
    assert hf.read({**TINY, "pruned_heads": {}}, "m")[0].parameters == PARAMETERS


_INT4 = {"weights": {"type": "int", "num_bits": 4}, "input_activations": None}
_INT8 = {"weights": {"type": "int", "num_bits": 8}, "input_activations": {"num_bits": 8}}
_NVFP4 = {"weights": {"type": "float", "num_bits": 4}, "input_activations": {"num_bits": 4}}
_KEPT = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"]


@pytest.mark.parametrize(
    ("quantization", "scheme"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        (
            {"quant_algo": "NVFP4", "exclude_modules": ["lm_head", "model.layers.0.self_attn*"]},
            "nvfp4_experts",
        ),
        ({"quant_algo": "NVFP4", "exclude_modules": ["layers.0.self_attn.q_a_proj"]}, "nvfp4"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": _INT4}}, "gptq"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": _INT4}, "ignore": _KEPT},
            "int4_experts",
        ),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": _INT8}}, "int8"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": _NVFP4}}, "nvfp4"),
    ],
)
def test_quantisation(quantization: dict[str, Any], scheme: str) -> None:
    table = {**TINY, "quantization_config": quantization}
    assert hf.read(table, "m")[1] == scheme
    assert scheme in SCHEMES
    nested = {"text_config": {"quantization_config": quantization}}
    assert hf.checkpoint_scheme(nested, "m") == scheme


def test_every_scheme_we_can_name_exists() -> None:
    named = {*hf._MODELOPT.values(), *hf._COMPRESSED.values(), *hf._METHODS.values()} - {""}
    assert named <= set(SCHEMES)


@pytest.mark.parametrize(
    ("quantization", "says"),
    [
        ({"quant_method": "magic"}, "quant_method 'magic' is not known"),
        ({"quant_method": "gptq", "bits": 3}, "gptq with 3 bits has no precision scheme"),
        ({"quant_method": "modelopt", "quant_algo": "FP3"}, "quant_algo 'fp3' is not known"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors with None-bit None weights"),
        ({"bits": 4}, "quant_method '' is not known"),
    ],
)
def test_unknown_quantisation(quantization: dict[str, Any], says: str) -> None:
    assert says in _message({**TINY, "quantization_config": quantization})


def test_dtype_and_separate_quantisation_file(tmp_path: Path) -> None:
    assert hf.read({**TINY, "torch_dtype": "float16"}, "m")[1] == "fp16"
    assert hf.read({**TINY, "dtype": "float32"}, "m")[1] == "fp32"
    path = _file(tmp_path, {**TINY, "torch_dtype": "bfloat16"})
    _file(tmp_path, {"quantization": {"quant_algo": "NVFP4"}}, "hf_quant_config.json")
    assert hf.load(path)[1] == "nvfp4"
