"""Presets: one TOML file per published model, its shape in our compact form with where it was read.

A file names its kinds of layer and the pattern in which they repeat; `read` turns it into an
`Architecture`. The path is the id: ``presets/meta-llama--Llama-3.1-8B.toml`` is
``meta-llama/Llama-3.1-8B``. ``base =`` inherits from another preset (deep merge). Vendor
``config.json`` files are `perfmodel.models.hf`'s work; both give the same `Architecture`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from perfmodel.core.errors import DataError, near
from perfmodel.core.strict import validated
from perfmodel.models.architecture import Architecture, Details, Layer, Run, stacked
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.mixers import (
    CompressedAttention,
    GatedDelta,
    LatentAttention,
    Mamba,
    SoftmaxAttention,
)

FOLDER = Path(__file__).parent / "presets"
_BLOCKS: dict[str, type[Any]] = {
    "softmax": SoftmaxAttention,
    "mla": LatentAttention,
    "compressed": CompressedAttention,
    "gated-delta": GatedDelta,
    "mamba": Mamba,
    "dense": DenseFfn,
    "moe": MoeFfn,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the shape was read: repository, file, revision, day, and by what way."""

    url: str
    revision: str
    accessed: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """Parameter count somebody published, to check ours against.

    ``exact`` means the list of tensors is public and the count must agree to the last parameter;
    otherwise within 0.5 %. ``scope`` is ``main`` (without MTP layers) or ``all``.
    """

    parameters: int
    source: str
    exact: bool = False
    scope: str = "main"
    active: int | None = None


@dataclass(frozen=True, slots=True)
class _Part(Details):
    """The keys of a network in a preset file: `Details`, and its layers as names and patterns."""

    hidden: int
    vocab: int = 0
    context: int = 0
    layers: int = 0
    pattern: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    layer: dict[str, dict[str, Any]] = field(default_factory=lambda: {})
    mtp: tuple[str, ...] = ()
    encoder: dict[str, Any] | None = None
    tower: dict[str, dict[str, Any]] = field(default_factory=lambda: {})
    graph: dict[str, Any] | None = None

    def details(self) -> dict[str, Any]:
        """What an `Architecture` takes over as it stands."""
        return {name: getattr(self, name) for name in Details.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a preset file says about the model beside its shape.

    ``checkpoint`` names the precision scheme the weights are published in, ``model_type`` the
    Hugging Face family, ``vision_tokens`` the language-model tokens one image becomes.
    """

    checkpoint: str
    released: str
    origin: Origin
    published: Published
    aliases: tuple[str, ...] = ()
    model_type: str = ""
    note: str = ""
    vision_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Preset:
    """A published model: its id, its architecture and where that was read."""

    id: str
    architecture: Architecture
    facts: Facts


@functools.cache
def ids() -> tuple[str, ...]:
    """Sorted preset ids."""
    return tuple(sorted(path.stem.replace("--", "/") for path in FOLDER.glob("*.toml")))


def load(name: str) -> Preset:
    """Preset by id or alias (case does not matter, the organisation may be left out).

    Raises
    ------
    perfmodel.core.errors.DataError
        Unknown name (the nearest are listed) or a file that breaks the format.
    """
    found = find(name)
    if found is None:
        raise DataError(f"no model preset named {name!r}{near(name, ids())} (perfmodel model ls)")
    return _load(found)


def find(name: str) -> str | None:
    """Id of the preset that answers to a name, or None."""
    wanted = name.strip().lower()
    by_name = {known.lower(): known for known in ids()}
    short = {known.lower().split("/")[-1]: known for known in ids()}
    if wanted in by_name or wanted in short:
        return by_name.get(wanted) or short[wanted]
    for known in ids():
        aliases = _table(known).get("aliases", ())
        if wanted in (str(alias).lower() for alias in aliases):
            return known
    return None


@functools.cache
def _table(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name.replace('/', '--')}.toml"
    if not path.exists():
        raise DataError(f"preset base {name!r} does not exist")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    base = table.pop("base", None)
    if base:
        inherited = {k: v for k, v in _table(str(base)).items() if k != "aliases"}
        table = _merged(inherited, table)
    return table


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            result[key] = _merged(cast("dict[str, Any]", old), cast("dict[str, Any]", value))
        else:
            result[key] = value
    return result


@functools.cache
def _load(name: str) -> Preset:
    table = dict(_table(name))
    facts = {key: table.pop(key) for key in Facts.__dataclass_fields__ if key in table}
    return Preset(name, read(name, table), cast(Facts, validated(Facts, facts, name)))


def read(name: str, table: dict[str, Any]) -> Architecture:
    """Architecture from the network keys of a preset file.

    Raises
    ------
    perfmodel.core.errors.DataError
        Unknown keys, layers or kinds; a pattern that does not fit the number of layers.
    """
    part = cast(_Part, validated(_Part, table, name))
    layers = {key: _layer(key, value, name) for key, value in part.layer.items()}
    towers = tuple(read(f"{name}:{key}", value) for key, value in part.tower.items())
    return Architecture(
        name=name,
        hidden=part.hidden,
        vocab=part.vocab,
        context=part.context,
        runs=_runs(_names(part, name), layers, name),
        **part.details(),
        mtp=_runs(list(part.mtp), layers, name),
        encoder=read(f"{name}:encoder", part.encoder) if part.encoder else None,
        towers=towers,
        graph=_graph(part.graph, name) if part.graph else None,
    )


def _names(part: _Part, name: str) -> list[str]:
    """Layer names in order: the prefix, then the pattern repeated up to ``layers``."""
    prefix, pattern = _expand(part.prefix), _expand(part.pattern)
    rest = part.layers - len(prefix)
    if rest < 0 or (rest and not pattern):
        raise DataError(f"{name}: prefix and pattern do not make {part.layers} layers")
    return prefix + [pattern[i % len(pattern)] for i in range(rest)]


def _expand(pattern: tuple[str, ...]) -> list[str]:
    expanded: list[str] = []
    for item in pattern:
        match = re.fullmatch(r"([\w-]+)(?:\*(\d+))?", item)
        if match is None:
            raise DataError(f"pattern item {item!r} is not 'name' or 'name*3'")
        expanded += [match.group(1)] * int(match.group(2) or 1)
    return expanded


def _runs(names: list[str], layers: dict[str, Layer], name: str) -> tuple[Run, ...]:
    for item in names:
        if item not in layers:
            raise DataError(f"{name}: pattern names layer {item!r}, defined are {list(layers)}")
    return stacked(layers[item] for item in names)


def _layer(key: str, table: dict[str, Any], name: str) -> Layer:
    blocks: dict[str, Any] = {}
    for part in ("mixer", "ffn", "cross"):
        if part in table:
            spec = dict(table[part])
            kind = str(spec.pop("kind", ""))
            if kind not in _BLOCKS:
                raise DataError(
                    f"{name}: layer {key}: {part} kind {kind!r}{near(kind, tuple(_BLOCKS))}"
                )
            blocks[part] = validated(_BLOCKS[kind], spec, f"{name}: layer {key}.{part}")
    rest = {k: v for k, v in table.items() if k not in blocks}
    return cast(Layer, validated(Layer, {"name": key, **rest, **blocks}, f"{name}: layer {key}"))


def _graph(table: dict[str, Any], name: str) -> Any:
    from perfmodel.models.families import graphs

    return graphs.build(name, table)
