"""Each family's reader against the exact parameter count of the Hugging Face class.

The configurations (``hf_cases.json``: name, count, keys) are small and odd so that each term shows.
Counts: transformers 5.23.0, model built on the meta device (all distinct parameters, and the
experts' score-correction biases that it keeps as buffers but checkpoints store). Not the
class's own number are:

- ``t5_gated``: transformers 5 ties the head whatever the file says; checkpoints with
  ``tie_word_embeddings = false`` (T5 1.1, FLAN-T5) store 131 x 48 head weights more.
- ``mimo`` has no class: it is ``qwen2`` with the same sizes.
- ``minimax_m3`` is ``minimax_m3_vl_text`` with its renamed keys.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.core.errors import DataError
from perfmodel.core.precision import SCHEMES
from perfmodel.models import hf

FILE = json.loads(Path(__file__).with_name("hf_cases.json").read_text(encoding="utf-8"))


def _expanded(value: Any) -> Any:
    """A table with the shared sizes that its ``base`` (one name or several) stands for."""
    if not isinstance(value, dict):
        return value
    names = value.get("base", [])
    shared = [FILE["bases"][name] for name in ([names] if isinstance(names, str) else names)]
    own = {key: _expanded(item) for key, item in value.items() if key != "base"}
    return {key: item for table in (*shared, own) for key, item in table.items()}


LAYERS: dict[str, Any] = FILE["bases"]["layers"]
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    name: (count, _expanded(table)) for name, (count, table) in FILE["cases"].items()
}


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_exact(case: str) -> None:
    count, table = CASES[case]
    architecture, scheme = hf.read(table, case)
    assert architecture.parameters == count
    assert (architecture.name, scheme) == (case, "bf16")


def test_every_model_type_has_a_case() -> None:
    """A reader nobody checks is not allowed; the aliases share another's reader."""
    aliases = {"kimi_k2": "deepseek_v3", "deepseek_ref": "deepseek_v4", "xlm-roberta": "roberta"}
    aliases |= {f"{name}_text": name for name in ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "llama4")}
    aliases |= {"qwen3_5_moe_text": "qwen3_5_moe", "gemma4_text": "gemma4"}
    refused, elsewhere = {"clip", "siglip"}, {"nemotron-nas"}
    checked = {table["model_type"] for _, table in CASES.values()}
    known = {kind for family in hf.FAMILIES.values() for kind in family.readers}
    assert known - refused - elsewhere - set(aliases) == checked
    assert set(aliases.values()) <= checked


def test_block_wise_pruned_llama() -> None:
    """Nemotron-NAS, counted by hand: the class is not in transformers."""
    attention = {"n_heads_in_group": 3, "no_op": False, "replace_with_linear": False}
    blocks = [
        {"attention": attention, "ffn": {"ffn_mult": 2.0, "no_op": False}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 6.0, "no_op": False}},
        {"attention": attention | {"n_heads_in_group": 1}, "ffn": {"no_op": True}},
    ]
    table = {**LAYERS, "model_type": "nemotron-nas", "block_configs": blocks}
    architecture, _ = hf.read(table, "pruned")
    # 2/3 x 2 x 48 = 64 and 2/3 x 6 x 48 = 192 both round up to 256 columns
    first = 2 * 48 * 48 + 2 * 48 * 16 + 3 * 48 * 256 + 2 * 48
    second = 3 * 48 * 256 + 48
    third = 4 * 48 * 48 + 48
    assert architecture.parameters == first + second + third + 2 * 131 * 48 + 48


def test_windows_follow_the_pattern() -> None:
    """Gemma 3 has one full layer in six, Qwen2 slides only from ``max_window_layers`` on."""
    gemma, _ = hf.read(CASES["gemma3_text"][1], "g")
    spans = [layer.mixer.window for layer in _layers(gemma)]
    assert spans == [16, 16, 16, 16, 16, None, 16]
    sliding = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}
    qwen, _ = hf.read({**CASES["qwen2"][1], **sliding}, "q")
    assert [layer.mixer.window for layer in _layers(qwen)] == [None, None, 9]


def test_draft_layers_stay_apart() -> None:
    architecture, _ = hf.read(CASES["deepseek_v3"][1], "d")
    assert [run.count for run in architecture.mtp] == [1]
    assert architecture.mtp_parameters > 0
    assert architecture.layers == 4


def test_cache_grows_as_configured() -> None:
    """Latent 14 + 6 per layer; V4: 16/4 in one layer; 128 > 16 leaves less than one element."""
    latent, _ = hf.read(CASES["deepseek_v3"][1], "d")
    assert latent.kv_elements_per_token() == 4 * (14 + 6)
    wide, _ = hf.read(CASES["mimo_v2_flash"][1], "m")
    assert wide.kv_elements_per_token() == 2 * 2 * (10 + 8) + 5 * 4 * (10 + 8)


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(-2, 5), st.text(max_size=4), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(max_examples=400, deadline=None)
@given(case=st.sampled_from(sorted(CASES)), data=st.data())
def test_mutations_give_an_architecture_or_one_line(case: str, data: st.DataObject) -> None:
    """Keys changed, deleted and added, at any depth: a finite model or `DataError`."""
    table = copy.deepcopy(CASES[case][1])
    for _ in range(data.draw(st.integers(1, 3))):
        nested = [value for value in table.values() if isinstance(value, dict)]
        part = data.draw(st.sampled_from([table, *nested]))
        key = data.draw(st.one_of(st.sampled_from(sorted(part) or ["x"]), st.text(max_size=6)))
        if data.draw(st.booleans()):
            part.pop(key, None)
        else:
            part[key] = data.draw(_VALUES)
    try:
        architecture, scheme = hf.read(table, case)
    except DataError:
        return
    assert architecture.parameters > 0
    assert architecture.active_parameters > 0
    assert architecture.kv_elements_per_token() >= 0
    assert scheme in SCHEMES


def _layers(architecture: Any) -> list[Any]:
    return [run.layer for run in architecture.runs for _ in range(run.count)]
