"""``perfmodel model``: list and show model architectures."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from cyclopts import App, Parameter

from perfmodel.cli import render
from perfmodel.core.precision import scheme
from perfmodel.memory.fit import checkpoint_bytes, sequence_bytes
from perfmodel.models import preset
from perfmodel.models.architecture import Architecture
from perfmodel.parallel.layout import Layout
from perfmodel.scenario.resolve import load_model

app = App(name="model", help="Model presets and vendor configurations.")
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]


@app.command
def ls(*, json: Json = False) -> None:
    """List the presets.

    Parameters
    ----------
    json : bool
        Print JSON.
    """
    rows = [_summary(name) for name in preset.ids()]
    if json:
        render.emit(render.to_json(rows), None)
    else:
        columns = list(rows[0])
        render.emit(render.table("", columns, [list(row.values()) for row in rows]), None)


@app.command
def show(
    name: str,
    *,
    quantization: Annotated[str | None, Parameter(name=("--quantization", "-q"))] = None,
    kv_cache_dtype: str = "auto",
    ignore_key: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: Json = False,
) -> None:
    """Show a model's shape, size and cache.

    Parameters
    ----------
    name : str
        Preset id, config.json, folder or hub id.
    quantization : str
        Precision scheme; default: the checkpoint's.
    kv_cache_dtype : str
        Cache format.
    ignore_key : list of str
        Unknown config.json key to accept because it changes no shape; repeatable.
    json : bool
        Print JSON.
    """
    architecture, checkpoint, source = load_model(name, tuple(ignore_key or ()))
    precision = scheme(quantization, "auto", checkpoint).with_kv(kv_cache_dtype)
    about: dict[str, Any] = {
        "model": architecture.name,
        "parameters": architecture.parameters,
        "active_parameters": architecture.active_parameters,
        "mtp_parameters": architecture.mtp_parameters,
        "layers": architecture.layers,
        "hidden": architecture.hidden,
        "vocab": architecture.vocab,
        "context": architecture.context,
        "precision": precision.name,
        "kv_format": precision.kv.name,
        "weight_gb": checkpoint_bytes(architecture, precision) / 1e9,
        "kv_bytes_per_token": _exact(architecture.kv_elements_per_token() * precision.kv.bytes),
        "kv_gb_at_context": _sequence_gb(architecture, precision),
        "source": source,
    }
    layers = [(run.layer.name, run.count, *_layer(run.layer)) for run in architecture.runs]
    if json:
        about["elements"] = architecture.elements()
        about["runs"] = [
            {"count": run.count, **dataclasses.asdict(run.layer)} for run in architecture.runs
        ]
        render.emit(render.to_json(about), None)
        return
    text = render.table("", ("quantity", "value"), [(k, _shown(v)) for k, v in about.items()])
    text += render.table("layers in order", ("layer", "count", "mixer", "ffn"), layers)
    render.emit(text, None)


def _summary(name: str) -> dict[str, Any]:
    known = preset.load(name)
    architecture = known.architecture
    return {
        "model": name,
        "parameters": f"{architecture.parameters / 1e9:.2f} B",
        "active": f"{architecture.active_parameters / 1e9:.2f} B",
        "layers": architecture.layers,
        "context": architecture.context,
        "checkpoint": known.facts.checkpoint,
        "kv_bytes_per_token_16bit": architecture.kv_elements_per_token() * 2,
        "released": known.facts.released,
    }


def _sequence_gb(architecture: Architecture, precision: Any) -> float | None:
    if not architecture.context or architecture.graph is not None:
        return None
    tokens = float(architecture.context)
    return float(sequence_bytes(architecture, Layout(), precision, tokens, 16.0)) / 1e9


def _layer(layer: Any) -> tuple[str, str]:
    return tuple(
        f"{type(part).__name__}({', '.join(f'{k}={v}' for k, v in _set(part).items())})"
        if part
        else "–"
        for part in (layer.mixer, layer.ffn)
    )  # pyright: ignore[reportReturnType]


def _set(part: Any) -> dict[str, Any]:
    """Fields that differ from their defaults."""
    return {
        item.name: getattr(part, item.name)
        for item in dataclasses.fields(part)
        if getattr(part, item.name) != item.default
    }


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return render.number(value, 4) if isinstance(value, float) else str(value or "–")


def _exact(value: float) -> int | float:
    return int(value) if value.is_integer() else value
