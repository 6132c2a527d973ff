"""What ``perfmodel simulate`` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.cli.render import number, table
from perfmodel.serving.simulate.record import METRICS
from perfmodel.serving.simulate.statistics import STATISTICS

# further columns: what they are called, their unit; shown where they are
_MORE = {
    "attainment": ("within their limits", "%"),
    "prefix_cache_hit_rate": ("of prompt tokens found in the cache", "%"),
    "acceptance_rate": ("of draft tokens accepted", "%"),
    "acceptance_length": ("tokens per speculative step", ""),
    "finetune_throughput": ("fine-tuning tok/s", ""),
    "transfers": ("prefilled requests moved to decode", ""),
    "migrations": ("running requests migrated", ""),
    "retries": ("requests sent elsewhere by failures", ""),
    "scaled_up": ("replicas started", ""),
    "scaled_down": ("replicas drained", ""),
    "swapped_blocks": ("blocks swapped", ""),
    "adapter_loads": ("adapters loaded", ""),
    "replica_imbalance": ("busiest replica over the mean", "x"),
}


def text(answer: Mapping[str, Any]) -> str:
    """One run, an ensemble or a capacity as lines for a terminal."""
    one = "capacity" not in answer
    lines = [_latencies(answer), *_summary(answer)] if one else _capacity(answer)
    if "validity" in answer:
        lines += ["", f"  {answer['validity']['note']}"]
    return "\n".join(lines) + "\n"


def _title(answer: Mapping[str, Any]) -> str:
    inputs, results = answer["inputs"], answer["results"]
    said = f"{inputs['model']} on {inputs['gpu']}"
    if answer.get("replicas", 1) > 1:
        said += f", {answer['replicas']} replicas, {answer['routing']}"
    said += f": {results['requests']:,.0f} requests in {number(results['duration_s'])} s"
    if "seeds" in answer:
        said += f", mean of {answer['seeds']['n']} seeds ± {answer['confidence']:.0%} interval"
    return f"{said}, scheduler {inputs['scheduler']}"


def _latencies(answer: Mapping[str, Any]) -> str:
    results, intervals = answer["results"], answer.get("intervals", {})

    def cell(column: str) -> str:
        shown = number(results[column])
        half = intervals.get(column, {}).get("half_width")
        return shown if half is None else f"{shown} ± {number(half, 2)}"

    rows = [
        [name.removesuffix("_time"), *(cell(f"{s}_{name}_ms") for s in STATISTICS)]
        for name in (*METRICS, "itl", "task_e2el")
        if f"mean_{name}_ms" in results
    ]
    return table(_title(answer), ["ms", *STATISTICS], rows).rstrip("\n")


def _summary(answer: Mapping[str, Any]) -> list[str]:
    results, n = answer["results"], number
    good = f", {n(results['goodput'])} within their limits" if "slo" in answer["inputs"] else ""
    lines = [
        "",
        f"  throughput  {n(results['output_throughput'])} output tok/s, "
        f"{n(results['request_throughput'])} requests/s{good}",
        f"  running     {n(results['running'])} requests on average, "
        f"{results['steps']:,.0f} steps, busy {results['busy']:.0%}",
    ]
    if "cache" in answer:
        lines.append(
            f"  cache       {results['kv_utilisation']:.0%} of {answer['cache']['blocks']:,} "
            f"blocks on average, {results['peak_kv_utilisation']:.0%} at most, "
            f"{results['preemptions']:,} preemptions"
        )
    power, energy = results.get("power_w"), results.get("energy_per_token_j")
    if power is not None and energy is not None:
        lines.append(
            f"  energy      {n(energy)} J per output token, {n(power)} W a GPU, "
            f"MFU {results['mfu']:.1%}, MBU {results['mbu']:.0%}"
        )
    if results.get("cost_per_mtok") is not None:
        lines.append(f"  cost        {n(results['cost_per_mtok'])} USD per million output tokens")
    more = [
        f"{value:.0%} {what}" if unit == "%" else f"{n(value)}{unit} {what}"
        for name, (what, unit) in _MORE.items()
        if (value := results.get(name)) is not None
    ]
    if more:
        lines.append(f"  also        {', '.join(more)}")
    for name, key in (("tenant", "by_tenant"), ("replica", "by_replica")):
        if key in answer:
            lines += ["", _rows(answer[key], name)]
    return lines


_WANTED = {
    "tenant": ("tenant", "requests", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms",
               "p99_tpot_ms", "attainment"),
    "replica": ("replica", "role", "finished", "busy", "kv_utilisation", "preemptions"),
}  # fmt: skip
_MOST_ROWS = 16


def _rows(rows: list[dict[str, Any]], kind: str) -> str:
    names = [name for name in _WANTED[kind] if name in rows[0]]
    shown = [[row[name] for name in names] for row in rows[:_MOST_ROWS]]
    left = len(rows) - len(shown)
    return table("", names, shown).strip("\n") + (f"\n  and {left} more" if left else "")


def _capacity(answer: Mapping[str, Any]) -> list[str]:
    found, inputs = answer["capacity"], answer["inputs"]
    names = [name for name in found["probes"][0] if name != "met"]
    rows = [
        [*(number(probe[name]) for name in names), "yes" if probe["met"] else "no"]
        for probe in found["probes"]
    ]
    title = f"{inputs['model']} on {inputs['gpu']}: rates that were simulated"
    return [
        table(title, [*names, "met"], rows).rstrip("\n"),
        "",
        f"  capacity    {found['message']}",
    ]
