"""The configurations an installed aiconfigurator bundles, against our presets of the same models.

The package is found without importing it; only its ``model_configs`` are read.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from perfmodel.models import hf, preset
from perfmodel.models.architecture import Architecture, Run, stacked

SUFFIX = "_config.json"


def _bundled() -> list[Path]:
    spec = importlib.util.find_spec("aiconfigurator")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = (path for folder in folders for path in Path(folder).rglob(f"model_configs/*{SUFFIX}"))
    return sorted(path for path in files if not path.name.endswith("_hf_quant_config.json"))


def _paired() -> list[tuple[str, Path]]:
    named = ((path.name.removesuffix(SUFFIX).replace("--", "/"), path) for path in _bundled())
    return [(found, path) for name, path in named if (found := preset.find(name))]


def _unnamed(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Runs without the names of their layers, which a preset chooses."""
    return stacked(replace(run.layer, name="") for run in runs for _ in range(run.count))


def _language_model(architecture: Architecture) -> Architecture:
    return replace(architecture, towers=())


def test_bundled_configurations_agree_with_presets() -> None:
    pairs = _paired()
    if not pairs:
        pytest.skip("aiconfigurator is not installed, so there are no vendor files to compare with")
    for name, path in pairs:
        read, _ = hf.load(path)
        known = preset.load(name).architecture
        assert _unnamed(read.runs) == _unnamed(known.runs), name
        for key in ("hidden", "vocab", "tied"):
            assert getattr(read, key) == getattr(known, key), (name, key)
        assert _language_model(read).elements() == _language_model(known).elements(), name
        assert read.kv_elements_per_token() == known.kv_elements_per_token(), name
        # Llama 4's bundled files leave the tower out; where one is described it must agree
        if read.towers:
            assert read.parameters == known.parameters, name


def test_every_bundled_configuration_can_be_read() -> None:
    paths = _bundled()
    if not paths:
        pytest.skip("aiconfigurator is not installed, so there are no vendor files to read")
    for path in paths:
        architecture, scheme = hf.load(path)
        assert architecture.parameters > 10**8, path.name
        assert scheme, path.name


def test_comparison_sees_a_difference() -> None:
    """The comparison above is not vacuous: another window is another run."""
    known = preset.load("meta-llama/Llama-3.1-8B").architecture
    layer = known.runs[0].layer
    renamed = replace(layer, name="other")
    assert _unnamed((Run(renamed, known.layers),)) == _unnamed(known.runs)
    assert _unnamed((Run(replace(layer, norms=3), known.layers),)) != _unnamed(known.runs)
