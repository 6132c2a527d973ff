"""The JSON envelope of an answer: inputs, results, breakdown, provenance, validity, warnings."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, cast

import hwdb
from hwdb.citation import Cited
from hwdb.records import Calibration
from hwdb.units import show
from perfmodel.core.errors import ValidityError
from perfmodel.core.version import VERSION
from perfmodel.scenario import breakdown
from perfmodel.scenario.estimate import Estimate, estimate_resolved
from perfmodel.time.machine import machine

SCHEMA = "perfmodel/estimate/1"
_BOUNDED = ("ttft_ms", "tpot_ms", "output_throughput", "energy_per_token_j", "cost_per_mtok")
# Of these a larger value is slower; of shares of a peak rate a smaller one is.
_COSTS = ("kernel_overhead", "collective_overhead", "step_overhead", "expert_imbalance")
_NEUTRAL = ("runtime_memory", "graph_memory", "communication_memory", "idle_power",
            "compute_power", "memory_power")  # fmt: skip


def envelope(answer: Estimate, *, strict: bool = False) -> dict[str, Any]:
    """Everything about one answer as plain data, ready for ``json.dumps``.

    Raises
    ------
    perfmodel.core.errors.ValidityError
        ``strict`` and the answer rests on uncalibrated efficiencies.
    """
    checked = validity(answer)
    if strict and not checked["calibrated"]:
        raise ValidityError(checked["note"])
    results: dict[str, Any] = {name: _finite(value) for name, value in answer.results().items()}
    results |= {
        "memory_gb": breakdown.memory_gb(answer),
        "fits": bool(answer.memory.fits),
        "feasible": answer.verdict.feasible,
        "bottleneck": breakdown.bottleneck(answer),
    }
    if not answer.verdict.feasible:
        results |= {
            "reason": answer.verdict.message,
            "nearest_feasible_change": answer.verdict.nearest,
        }
    return {
        "schema": SCHEMA,
        "tool": f"perfmodel {VERSION}",
        "inputs": inputs(answer),
        "results": results,
        "breakdown": _breakdown(answer),
        "provenance": provenance(answer),
        "validity": checked,
        "warnings": warnings(answer),
    }


def inputs(answer: Estimate) -> dict[str, Any]:
    """The resolved question, defaults included."""
    resolved = answer.resolved
    architecture = resolved.architecture
    return {
        **resolved.scenario.to_dict(),
        "resolved": {
            "model": architecture.name,
            "parameters": architecture.parameters,
            "gpu": resolved.machine.gpu.id,
            "node": resolved.machine.node.id,
            "precision": resolved.precision.name,
            "kv_format": resolved.precision.kv.name,
            "price_usd_per_gpu_hour": None
            if resolved.price.value is None
            else resolved.price.value * 3600,
        },
    }


def provenance(answer: Estimate) -> dict[str, Any]:
    """Cited values behind the answer, counted by kind."""
    resolved = answer.resolved
    used = list(_used(answer))
    kinds: dict[str, int] = {}
    for _, _, value in used:
        kinds[value.kind] = kinds.get(value.kind, 0) + 1
    return {
        "model": resolved.model_source,
        "price": resolved.price.source,
        "kinds": kinds,
        "modified": list(resolved.modified),
        "values": [
            {"what": f"{owner.id}: {path}", **cited_row(owner, value)}
            for owner, path, value in used
        ],
    }


def validity(answer: Estimate) -> dict[str, Any]:
    """Whether the answer rests on a calibration, and the range its uncertain inputs span."""
    calibration = answer.resolved.machine.calibration
    if calibration.calibrated:
        return {"calibrated": True, "note": f"calibrated: {calibration.name}", "interval": {}}
    return {
        "calibrated": False,
        "note": "uncalibrated: efficiencies are defaults from the literature; the interval puts "
        "all of them at their favourable or unfavourable bound",
        "interval": interval(answer),
    }


def interval(answer: Estimate) -> dict[str, list[float | None]]:
    """Results with all estimated efficiencies at their bounds: [low, high] per column."""
    if not answer.verdict.feasible or answer.steady is None:
        return {}
    ends = [_at_bound(answer, slow).results(_BOUNDED) for slow in (False, True)]
    return {
        name: sorted((_finite(end[name]) for end in ends), key=lambda value: (value is None, value))
        for name in _BOUNDED
    }


def warnings(answer: Estimate) -> list[str]:
    """What a reader should know before using the numbers."""
    resolved = answer.resolved
    said: list[str] = []
    if resolved.modified:
        said.append(f"modified values: {', '.join(resolved.modified)}")
    if resolved.price.value is None:
        said.append(resolved.price.source)
    limit = resolved.machine.gpu.power.tdp
    if not limit.known:
        said.append(f"no power and energy: {limit.where} is unknown ({limit.unknown}); "
                    "give --set gpu.power.tdp='700 W'")  # fmt: skip
    domain = resolved.machine.domain
    if float(resolved.layout.tp) > float(domain):
        said.append(
            f"tensor parallelism of {float(resolved.layout.tp):g} spans machines of "
            f"{float(domain):g}: its collectives cross the network between them"
        )
    scenario = resolved.scenario
    if answer.steady is not None and scenario.max_concurrency is not None:
        users = float(answer.steady.users) * float(answer.steady.lanes)
        if users < float(scenario.max_concurrency):
            said.append(
                f"only {users:.0f} of {float(scenario.max_concurrency):g} requests run at once "
                "(KV cache or max_num_seqs); the rest wait, which is in ttft"
            )
    return said


def _breakdown(answer: Estimate) -> dict[str, Any]:
    if answer.steady is None:
        return {"memory_gb": breakdown.memory_gb(answer)}
    steady = answer.steady
    return {
        "tpot_ms": {name: value * 1e3 for name, value in breakdown.tpot_parts(answer).items()},
        "ttft_ms": {
            "queue": _finite(float(steady.queue_time) * 1e3),
            "prefill": _finite(float(steady.prefill_time) * 1e3),
        },
        "chunks_per_step": float(steady.others_chunks),
        "chunk_tokens": float(steady.chunk),
        "decode_step": breakdown.operator_rows(steady.decode),
        "mixed_step": breakdown.operator_rows(steady.mixed),
    }


def _used(answer: Estimate) -> Any:
    """(owner, path, value) of the facts an estimate rests on."""
    resolved = answer.resolved
    gpu, calibration = resolved.machine.gpu, resolved.machine.calibration
    needed = {"memory.capacity", "memory.usable", "memory.bandwidth", "power.tdp", "power.idle"}
    if answer.steady is not None:
        for item in (*answer.steady.decode.operators, *answer.steady.mixed.operators):
            needed |= {f"peak.{item.operator.math}", f"vector.{item.operator.math}"}
    shared = float(resolved.layout.gpus) > 1
    if shared:
        needed.add("scale_up.bandwidth")
    for path, value in hwdb.cited(gpu):
        if path in needed and value.known:
            yield gpu, path, value
    if shared and resolved.machine.node.scale_up is not None:
        fabric = hwdb.fabric(resolved.machine.node.scale_up.fabric)
        yield fabric, "latency", fabric.latency
    for path, value in hwdb.cited(calibration):
        yield calibration, path, value


def cited_row(owner: Any, value: Cited) -> dict[str, Any]:
    """A fact as plain data: value as written, kind, and where it was read."""
    source = owner.sources.get(value.source)
    unread = "set by the user" if value.kind == "modified" else ""
    written = value.text or show(float(value.si), value.dimension) if value.known else ""
    return {
        "value": written or f"unknown: {value.unknown}",
        "kind": value.kind if value.known else "unknown",
        "source": source.title if source else unread,
        "url": source.url if source else "",
        "at": value.at,
        "note": value.note,
    }


def _at_bound(answer: Estimate, slow: bool) -> Estimate:
    """The same question with every estimated efficiency at its slow or fast bound."""
    resolved = answer.resolved
    old = resolved.machine
    moved = machine(old.gpu, old.node, _bounded(old.calibration, slow))
    return estimate_resolved(replace(resolved, machine=moved))


def _bounded(calibration: Calibration, slow: bool) -> Calibration:
    changes: dict[str, Any] = {}
    for item in fields(calibration):
        value = getattr(calibration, item.name)
        if isinstance(value, Cited) and item.name not in _NEUTRAL:
            changes[item.name] = _end(value, slow == (item.name in _COSTS))
        elif item.name in ("compute", "memory"):
            rows = cast("dict[str, Cited]", value)
            changes[item.name] = {name: _end(row, not slow) for name, row in rows.items()}
    return replace(calibration, **changes)


def _end(value: Cited, high: bool) -> Cited:
    end = value.high if high else value.low
    return value if end is None else replace(value, si=end)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None
