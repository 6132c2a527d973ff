"""Where time and memory go: one answer taken apart into parts that add up to it."""

from __future__ import annotations

from typing import Any

from hwdb.citation import Numeric
from perfmodel.core.types import Reason
from perfmodel.scenario.estimate import Estimate
from perfmodel.scenario.verdict import is_single_pass
from perfmodel.step.step import Step
from perfmodel.time.operator_time import OperatorTime
from perfmodel.time.roofline import arithmetic_intensity

# Part of a step -> what a reader calls it. Traffic classes share a memory-bound kernel's time.
PARTS = {
    "compute": "compute",
    "weights": "HBM bandwidth (weights)",
    "kv_cache": "HBM bandwidth (KV cache)",
    "activations": "HBM bandwidth (activations)",
    "network": "network",
    "kernel_overhead": "kernel launch and tail",
    "engine_overhead": "engine overhead",
    "prefill_of_others": "other users' prefills",
}
_CLASSES = {
    "weights": "weight_bytes",
    "kv_cache": "kv_bytes",
    "activations": "activation_bytes",
    "index": "index_bytes",
}


def bound(item: OperatorTime) -> str:
    """Roofline class of an operator: what its time would shrink with."""
    if item.operator.family == "collective":
        return "network"
    body = max(_f(item.compute), _f(item.memory))
    if _f(item.time) - body > body:
        return "overhead"
    return "compute" if _f(item.compute) >= _f(item.memory) else "memory"


def step_parts(step: Step) -> dict[str, float]:
    """Time of a step by the resource that bounds each operator [s]; sums to ``step.time``."""
    parts = dict.fromkeys(PARTS, 0.0)
    parts["engine_overhead"] = _f(step.overhead)
    for item in step.operators:
        count, operator = _f(item.operator.count), item.operator
        body = max(_f(item.compute), _f(item.memory))
        if operator.family == "collective":
            parts["network"] += _f(item.total)
            continue
        parts["kernel_overhead"] += count * (_f(item.time) - body)
        if _f(item.compute) >= _f(item.memory):
            parts["compute"] += count * body
            continue
        traffic = max(_f(item.traffic), 1e-30)
        for part, field in _CLASSES.items():
            name = "kv_cache" if part == "index" else part
            parts[name] += count * body * _f(getattr(operator, field)) / traffic
    return parts


def tpot_parts(answer: Estimate) -> dict[str, float]:
    """TPOT by resource, other users' prefills as one part [s]; of a step if there is no TPOT."""
    steady = answer.steady
    assert steady is not None
    if answer.resolved.scenario.osl == 1:
        return step_parts(steady.mixed)
    parts = step_parts(steady.decode)
    if not is_single_pass(answer.resolved.architecture):
        extra = _f(steady.mixed.time) - _f(steady.decode.time)
        parts["prefill_of_others"] = _f(steady.others_chunks) * extra
    return parts


def bottleneck(answer: Estimate) -> str:
    """The largest part of the time of a token, in words; or why there is none."""
    if answer.steady is None or not answer.verdict.feasible:
        return Reason(int(answer.verdict.reason)).name.lower()
    parts = tpot_parts(answer)
    return PARTS[max(parts, key=lambda name: parts[name])]


def memory_gb(answer: Estimate) -> dict[str, float]:
    """Memory of the fullest GPU by part [GB]."""
    memory, resolved = answer.memory, answer.resolved
    running = 0.0 if answer.steady is None else _f(answer.steady.running) * _f(resolved.layout.pp)
    parts = {
        "weights": memory.weights,
        "kv_cache_in_use": running * _f(memory.sequence),
        "kv_cache_pool": max(_f(memory.pool), 0.0),
        "activations": memory.activations,
        "graphs": memory.graphs,
        "communication": memory.communication,
        "runtime": memory.runtime,
        "capacity": resolved.machine.capacity,
    }
    return {name: _f(value) / 1e9 for name, value in parts.items()}


def operator_rows(step: Step) -> list[dict[str, Any]]:
    """One row per operator: work, traffic, intensity, roofline class, time and share."""
    rows: list[dict[str, Any]] = []
    for item in step.operators:
        operator, traffic = item.operator, _f(item.traffic)
        flops = _f(operator.flops)
        rows.append({
            "operator": operator.name,
            "family": operator.family,
            "count": _f(operator.count),
            "datapath": operator.math,
            "gflop": _f(operator.count) * flops / 1e9,
            "traffic_mb": _f(operator.count) * traffic / 1e6,
            "message_mb": _f(operator.count) * _f(operator.message) / 1e6,
            "intensity": _f(arithmetic_intensity(flops, traffic)) if traffic else None,
            "bound": bound(item),
            "time_us": _f(item.total) * 1e6,
            "share": _f(item.total) / _f(step.time),
        })  # fmt: skip
    return rows


def _f(value: Numeric) -> float:
    return float(value)
