"""``perfmodel estimate``: answer one sizing question."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from perfmodel.cli import render
from perfmodel.cli.options import OUTPUT, takes_scenario
from perfmodel.scenario.breakdown import PARTS
from perfmodel.scenario.envelope import envelope
from perfmodel.scenario.estimate import estimate
from perfmodel.scenario.scenario import Scenario


@takes_scenario
def command(
    scenario: Scenario,
    *,
    json: Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)] = False,
    csv: Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)] = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), group=OUTPUT)] = None,
    strict: Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)] = False,
) -> None:
    """Predict TTFT, TPOT, throughput, memory, energy and cost of a deployment.

    Parameters
    ----------
    json : bool
        Print the JSON envelope.
    csv : bool
        Print one CSV row.
    output : Path
        Write to a file; its suffix (.json, .csv, .txt) picks the format.
    strict : bool
        Exit 5 when the answer lies outside what was validated.
    """
    form = render.pick_format(json, csv, output)
    answer = envelope(estimate(scenario), strict=strict)
    if form == "json":
        render.emit(render.to_json(answer), output)
    elif form == "csv":
        render.emit(render.to_csv([_flat(answer)]), output)
    else:
        render.emit(_text(answer), output)
    for line in answer["warnings"]:
        print(f"note: {line}", file=sys.stderr)
    if not answer["results"]["feasible"]:
        infeasible(answer["results"]["reason"], answer["results"]["nearest_feasible_change"])


def infeasible(message: str, nearest: str) -> None:
    """Say why the answer is no, and leave with exit code 3."""
    hint = f"; nearest: {nearest}" if nearest else ""
    print(f"infeasible: {message}{hint}", file=sys.stderr)
    raise SystemExit(3)


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    """One row: inputs, then results, the memory parts spelled out."""
    inputs = {
        key: value for key, value in answer["inputs"].items() if key not in ("resolved", "set")
    }
    results = dict(answer["results"])
    memory = {f"memory_{part}_gb": value for part, value in results.pop("memory_gb").items()}
    return inputs | results | memory


def _text(answer: dict[str, Any]) -> str:
    results, inputs = answer["results"], answer["inputs"]
    n = render.number
    named = inputs["resolved"]
    lines = [
        f"{named['model']}  {n(results['gpus'])} x {named['gpu']} ({named['node']})  "
        f"weights {named['precision']}, cache {named['kv_format']}  "
        f"isl {n(inputs['isl'], 6)}  osl {n(inputs['osl'], 6)}",
        "",
    ]
    span = answer["validity"]["interval"]

    def row(label: str, column: str, unit: str, extra: str = "") -> str:
        low, high = span.get(column, (None, None))
        around = f"({n(low)} – {n(high)})" if low is not None else ""
        return f"  {label:<11}{n(results[column]):>9} {unit:<11}{around:<20}{extra}".rstrip()

    if results["tpot_ms"] is not None:
        lines.append(row("TPOT", "tpot_ms", "ms", f"{n(results['interactivity'])} tok/s/user, "
                         f"{n(results['throughput_per_gpu'])} tok/s/GPU"))  # fmt: skip
    if results["ttft_ms"] is not None:
        queue, prefill = n(results["queue_time_ms"]), n(results["prefill_time_ms"])
        lines.append(row("TTFT", "ttft_ms", "ms", f"queue {queue}, prefill {prefill}"))
        lines.append(row("throughput", "output_throughput", "tok/s",
                         f"{n(results['request_throughput'])} requests/s"))  # fmt: skip
        lines.append(row("energy", "energy_per_token_j", "J/tok", f"{n(results['power_w'])} W"))
        price = named["price_usd_per_gpu_hour"]
        at = "" if price is None else f"at ${n(price)}/GPU-h, {answer['provenance']['price']}"
        lines.append(row("cost", "cost_per_mtok", "USD/Mtok", at))
    memory = results["memory_gb"]
    held = {
        name.replace("_", " "): value
        for name, value in memory.items()
        if name not in ("kv_cache_pool", "capacity") and value
    }
    spelled = " + ".join(f"{name} {n(value)}" for name, value in held.items())
    verdict = "fits" if results["fits"] else "does not fit"
    lines.append(f"  {'memory':<11}{n(sum(held.values())):>9} GB/GPU     "
                 f"{verdict} in {n(memory['capacity'])} GB: {spelled}")  # fmt: skip
    if results["feasible"]:
        parts = sorted(answer["breakdown"]["tpot_ms"].items(), key=lambda item: -item[1])
        spent = ", ".join(f"{PARTS[name]} {n(value)}" for name, value in parts if value > 5e-3)
        unit = "token" if results["tpot_ms"] is not None else "pass"
        lines += ["", *_wrapped(f"where a {unit}'s {n(sum(v for _, v in parts))} ms go: {spent}")]
        lines.append(f"  bottleneck: {results['bottleneck']}")
    kinds = answer["provenance"]["kinds"]
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    lines += ["", f"  data: {counted}", *_wrapped(answer["validity"]["note"])]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="    ")
