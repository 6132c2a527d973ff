"""What every model preset promises: it loads, has the published size and names its source."""

import re
from collections import Counter
from datetime import date

import pytest

from perfmodel.core.precision import SCHEMES
from perfmodel.models import preset
from perfmodel.models.architecture import Architecture

IDS = preset.ids()
EVERY = pytest.mark.parametrize("name", IDS)


def parts(architecture: Architecture) -> list[Architecture]:
    """The network itself, its encoder and its towers."""
    encoder = [architecture.encoder] if architecture.encoder else []
    return [architecture, *encoder, *architecture.towers]


def test_there_are_presets() -> None:
    assert len(IDS) >= 66


@EVERY
def test_sizes_are_positive(name: str) -> None:
    architecture = preset.load(name).architecture
    assert architecture.name == name
    assert all(count >= 0 for count in architecture.elements().values())
    for part in parts(architecture):
        assert part.hidden > 0
        if part.graph is None:
            assert part.layers > 0
            assert part.context > 0
            assert not part.head or part.vocab > 0
        else:
            assert part.graph.elements > 0
    for tower in architecture.towers:
        assert not tower.causal
        assert not tower.head
    assert 0 < architecture.active_parameters <= architecture.parameters + _tied(architecture)


def _tied(architecture: Architecture) -> int:
    return architecture.hidden * architecture.vocab if architecture.tied else 0


@EVERY
def test_size_is_the_published_one(name: str) -> None:
    model = preset.load(name)
    published = model.facts.published
    extra = {"main": 0, "all": model.architecture.mtp_parameters}[published.scope]
    size = model.architecture.parameters + extra
    if published.exact:
        assert size == published.parameters
    else:
        assert size == pytest.approx(published.parameters, rel=0.005)
    assert published.source


@EVERY
def test_source_is_named(name: str) -> None:
    origin = preset.load(name).facts.origin
    assert origin.url.startswith("https://")
    if origin.url.startswith("https://huggingface.co/"):
        assert origin.url.startswith(f"https://huggingface.co/{name}")
    else:
        assert origin.url.startswith("https://arxiv.org/abs/")
    assert origin.revision.strip()
    assert date(2026, 1, 1) <= date.fromisoformat(origin.accessed)


@EVERY
def test_facts_are_well_formed(name: str) -> None:
    facts = preset.load(name).facts
    assert re.fullmatch(r"20[0-3]\d-(0[1-9]|1[0-2])", facts.released)
    assert facts.checkpoint in SCHEMES
    assert re.fullmatch(r"[a-z0-9_-]+", facts.model_type)
    assert facts.vision_tokens >= 0
    assert not facts.vision_tokens or preset.load(name).architecture.towers


@EVERY
def test_every_name_leads_to_the_preset(name: str) -> None:
    for known in (name, name.split("/")[-1], *preset.load(name).facts.aliases):
        assert preset.find(known) == name
        assert preset.find(f" {known.upper()} ") == name


def test_no_two_presets_share_a_name() -> None:
    names = [n for known in IDS for n in (known, known.split("/")[-1])]
    names += [alias for known in IDS for alias in preset.load(known).facts.aliases]
    counts = Counter(name.lower() for name in names)
    assert [name for name, count in counts.items() if count > 1] == []
