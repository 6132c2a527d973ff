"""``perfmodel simulate``: serve drawn requests on one replica and report their latencies."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from perfmodel.cli import render
from perfmodel.cli.estimate import infeasible
from perfmodel.cli.options import LOAD, OUTPUT, takes_scenario
from perfmodel.core.errors import InfeasibleError, UsageError, near
from perfmodel.core.version import VERSION
from perfmodel.scenario.estimate import system_of
from perfmodel.scenario.resolve import Resolved, resolve
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.verdict import deployment_memory, judge
from perfmodel.serving import lengths, workload
from perfmodel.serving.simulate import Simulation, Slo, has_core, simulate
from perfmodel.serving.simulate.result import METRICS, shown

SCHEMA = "perfmodel/simulate/1"
_KEPT = 1_000_000  # requests whose times are kept for exact percentiles; beyond, 0.5 % bins


@takes_scenario
def command(
    scenario: Scenario,
    *,
    isl: Annotated[str, Parameter(
        name=("--isl", "--input-len", "--random-input-len"), group=LOAD)] = "1024",
    osl: Annotated[str, Parameter(
        name=("--osl", "--output-len", "--random-output-len"), group=LOAD)] = "256",
    num_requests: Annotated[int, Parameter(
        name=("--num-requests", "--num-prompts"), group=LOAD)] = 1000,
    arrivals: Annotated[str, Parameter(group=LOAD)] = "poisson",
    seed: Annotated[int, Parameter(group=LOAD)] = 0,
    scheduler: Annotated[str, Parameter(group=LOAD)] = "vllm-v1",
    goodput: Annotated[list[str] | None, Parameter(
        group=LOAD, negative=(), consume_multiple=True)] = None,
    json: Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)] = False,
    csv: Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)] = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), group=OUTPUT)] = None,
) -> None:  # fmt: skip
    """Serve requests on one replica step by step: percentiles, queues, preemptions.

    Parameters
    ----------
    isl : str
        Prompt tokens: a number, 'uniform(800, 1000)', 'lognormal(median=600, sigma=1.2)' …
    osl : str
        Output tokens, as --isl.
    num_requests : int
        Requests to serve.
    arrivals : str
        How arrivals scatter about --request-rate: poisson, deterministic, 'gamma(burstiness=0.5)' …
    seed : int
        Equal seeds give equal results.
    scheduler : str
        vllm-v1, prefill-first (vLLM v0), orca or static.
    goodput : list of str
        Limits in milliseconds that a request must meet to count: ttft:500 tpot:50 e2el:20000.
    json : bool
        Print JSON.
    csv : bool
        Print one CSV row.
    output : Path
        Write to a file; its suffix (.json, .csv, .txt) picks the format.
    """
    form = render.pick_format(json, csv, output)
    if scenario.prefix:
        raise UsageError("--prefix: prefix caching is not simulated yet")
    closed = scenario.max_concurrency is not None
    if not closed and scenario.request_rate is None:
        raise UsageError("give --request-rate (open loop) or --max-concurrency (closed loop)")
    if num_requests < 1:
        raise UsageError(f"--num-requests {num_requests} must be at least 1")
    asked = {"isl": isl, "osl": osl, "num_requests": num_requests, "arrivals": arrivals,
             "seed": seed, "scheduler": scheduler, "goodput": goodput or []}  # fmt: skip
    slo = _slo(goodput or [])
    # Each request's own length is checked below; the deployment must fit whatever is asked of it.
    resolved = resolve(replace(scenario, isl=1, osl=1))
    memory = deployment_memory(resolved)
    verdict = judge(resolved, memory)
    if not verdict.feasible:
        infeasible(verdict.message, verdict.nearest)
    rate = 1.0 if closed else float(scenario.request_rate or 0.0)
    requests = workload.generate(
        lengths.parse(isl), lengths.parse(osl), num_requests, rate,
        process=workload.parse_arrivals(arrivals), seed=seed,
    )  # fmt: skip
    if not has_core():
        print("note: without numba the plain simulator runs, some hundred times slower: "
              "pip install 'perfmodel[simulate]'", file=sys.stderr)  # fmt: skip
    try:
        made = simulate(
            system_of(resolved, memory), requests, scheduler=scheduler,
            max_concurrency=_whole(scenario.max_concurrency),
            block_size=_whole(scenario.block_size) or 16,
            max_model_len=_whole(scenario.max_model_len),
            slo=slo, keep_requests=num_requests <= _KEPT,
        )  # fmt: skip
    except InfeasibleError as error:
        infeasible(str(error), error.nearest)
        return
    answer = _answer(resolved, asked, made)
    if form == "json":
        render.emit(render.to_json(answer), output)
    elif form == "csv":
        flat = {key: value for key, value in answer["inputs"].items() if key != "set"}
        render.emit(render.to_csv([flat | answer["results"]]), output)
    else:
        render.emit(_text(answer), output)
    for line in answer["warnings"]:
        print(f"note: {line}", file=sys.stderr)


def _slo(items: list[str]) -> Slo:
    """``["ttft:500"]`` in milliseconds, vLLM's spelling."""
    limits: dict[str, float] = {}
    for item in items:
        name, colon, value = item.partition(":")
        if name not in Slo.__dataclass_fields__ or not colon:
            known = Slo.__dataclass_fields__
            raise UsageError(f"--goodput {item!r} is not METRIC:MILLISECONDS with one of "
                             f"{', '.join(known)}{near(name, known)}")  # fmt: skip
        try:
            limits[name] = float(value) / 1e3
        except ValueError:
            raise UsageError(f"--goodput {item!r}: {value!r} is not a number") from None
        if not limits[name] > 0:
            raise UsageError(f"--goodput {item!r} must be above zero")
    return Slo(**limits)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _answer(resolved: Resolved, asked: dict[str, Any], made: Simulation) -> dict[str, Any]:
    calibration = resolved.machine.calibration
    warnings: list[str] = []
    if resolved.modified:
        warnings.append(f"modified values: {', '.join(resolved.modified)}")
    if made.record.preemptions:
        warnings.append(f"{made.record.preemptions} preemptions: the cache ran out of blocks")
    return {
        "schema": SCHEMA,
        "tool": f"perfmodel {VERSION}",
        "inputs": {**resolved.scenario.to_dict(), **asked},
        "results": shown(made.results()),
        "cache": {"blocks": made.blocks, "block_size": made.block_size},
        "validity": {
            "calibrated": calibration.calibrated,
            "percentiles": "exact, of itl in bins of 0.5 %" if made.kept else "in bins of 0.5 %",
            "note": f"calibrated: {calibration.name}" if calibration.calibrated else
            "uncalibrated: efficiencies are defaults from the literature; perfmodel estimate "
            "prints the interval their bounds span",
        },
        "warnings": warnings,
    }  # fmt: skip


def _text(answer: dict[str, Any]) -> str:
    results, n = answer["results"], render.number
    inputs = answer["inputs"]
    statistics = ("mean", "median", "p90", "p95", "p99")
    rows = [
        [name.removesuffix("_time"), *(n(results[f"{s}_{name}_ms"]) for s in statistics)]
        for name in (*METRICS, "itl")
    ]
    title = (
        f"{inputs['model']} on {inputs['gpu']}: {results['requests']:,} requests in "
        f"{n(results['duration_s'])} s, scheduler {inputs['scheduler']}"
    )
    lines = [
        render.table(title, ["ms", *statistics], rows).rstrip("\n"),
        "",
        f"  throughput  {n(results['output_throughput'])} output tok/s, "
        f"{n(results['request_throughput'])} requests/s"
        + (f", {n(results['goodput'])} within their limits" if inputs["goodput"] else ""),
        f"  running     {n(results['running'])} requests on average, "
        f"{results['steps']:,} steps, busy {results['busy']:.0%}",
        f"  cache       {results['kv_utilisation']:.0%} of {answer['cache']['blocks']:,} blocks on "
        f"average, {results['peak_kv_utilisation']:.0%} at most, "
        f"{results['preemptions']:,} preemptions",
        "",
        f"  {answer['validity']['note']}",
    ]
    return "\n".join(lines) + "\n"
