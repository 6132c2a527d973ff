"""``perfmodel simulate``: serve requests step by step and report their latencies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from perfmodel.cli import render, simulate_text
from perfmodel.cli.estimate import infeasible
from perfmodel.cli.options import ENGINE, LOAD, OUTPUT, takes, takes_scenario
from perfmodel.core.errors import InfeasibleError, UsageError, near
from perfmodel.core.version import VERSION
from perfmodel.plan import experiments
from perfmodel.plan.experiments import Runs
from perfmodel.plan.progress import Bar
from perfmodel.scenario import traffic as ways_in
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.serving import Serving
from perfmodel.scenario.simulation import Experiment, Outcome, run
from perfmodel.scenario.traffic import DEFAULT_COUNT, Traffic
from perfmodel.serving.simulate import has_core
from perfmodel.serving.simulate.fleet import routing_name
from perfmodel.serving.simulate.record import Slo
from perfmodel.serving.simulate.result import shown

SCHEMA = "perfmodel/simulate/1"
_KEPT = 1_000_000  # requests whose times are kept for exact percentiles; beyond, 0.5 % bins
_LOG = 200_000  # stretches of steps kept for time series and traces
_NAMES = {
    "isl": ("--input-len", "--random-input-len"),
    "osl": ("--output-len", "--random-output-len"),
    "num_requests": ("--num-prompts",),
    "tenants": ("--tenant=",),
}
RUNS = Group("Many runs", sort_key=5)
FILES = Group("Files", sort_key=6)
_File = Annotated[Path | None, Parameter(group=FILES)]


@takes_scenario
@takes(LOAD, _NAMES, traffic=Traffic)
@takes(ENGINE, serving=Serving)
@takes(RUNS, runs=Runs)
def command(
    scenario: Scenario,
    traffic: Traffic,
    serving: Serving,
    runs: Runs,
    *,
    goodput: Annotated[list[str] | None, Parameter(
        group=LOAD, negative=(), consume_multiple=True)] = None,
    requests_out: _File = None,
    time_series: _File = None,
    chrome_trace: _File = None,
    json: Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)] = False,
    csv: Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)] = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), group=OUTPUT)] = None,
) -> None:  # fmt: skip
    """Serve requests step by step: percentiles, queues, preemptions, routing, scaling.

    Parameters
    ----------
    goodput : list of str
        Limits in milliseconds that a request must meet to count: ttft:500 tpot:50 e2el:20000.
    requests_out : Path
        Write one row per request (.csv, .jsonl, .parquet).
    time_series : Path
        Write load, throughput and cache over time (.csv, .jsonl, .parquet).
    chrome_trace : Path
        Write steps and requests for chrome://tracing or Perfetto (.json).
    json : bool
        Print JSON.
    csv : bool
        Print one CSV row.
    output : Path
        Write to a file; its suffix (.json, .csv, .txt) picks the format.
    """
    form = render.pick_format(json, csv, output)
    files = {"requests": requests_out, "series": time_series, "trace": chrome_trace}
    _check_files(files, runs)
    runs.check()
    experiment = Experiment(
        scenario=scenario, traffic=traffic, serving=serving, slo=_slo(goodput or []),
        keep_requests=(traffic.num_requests or DEFAULT_COUNT) <= _KEPT,
        log=_LOG if time_series or chrome_trace else 0,
    )  # fmt: skip
    if not has_core():
        print("note: without numba the plain simulator runs, some hundred times slower: "
              "pip install 'perfmodel[simulate]'", file=sys.stderr)  # fmt: skip
    try:
        if runs.find_capacity:
            answer = _capacity(experiment, runs)
        elif runs.seeds > 1:
            answer = _ensemble(experiment, runs)
        else:
            outcome = run(experiment)
            answer = _single(outcome, runs)
            _write(outcome, files)
    except InfeasibleError as error:
        infeasible(str(error), error.nearest)
        return
    if form == "json":
        render.emit(render.to_json(answer), output)
    elif form == "csv":
        flat = {key: value for key, value in answer["inputs"].items() if key not in ("set", "slo")}
        render.emit(render.to_csv([flat | answer["results"]]), output)
    else:
        render.emit(simulate_text.text(answer), output)
    for line in answer["warnings"]:
        print(f"note: {line}", file=sys.stderr)
    if answer["verdict"]["feasible"] is False:
        infeasible(answer["verdict"]["message"], answer["verdict"]["nearest"])


def _slo(items: list[str]) -> dict[str, float]:
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
    return limits


def _check_files(files: dict[str, Path | None], runs: Runs) -> None:
    """Refuse, before anything runs, files that could not be written."""
    from perfmodel.serving.simulate import export, trace

    for name, path in files.items():
        if path is None:
            continue
        if runs.find_capacity or runs.seeds > 1:
            raise UsageError(f"{path}: files hold one run; leave --seeds and --find-capacity out")
        export.check_path(path, trace.SUFFIXES if name == "trace" else export.FORMATS)


def _write(outcome: Outcome, files: dict[str, Path | None]) -> None:
    from perfmodel.serving.simulate.export import write_requests, write_table
    from perfmodel.serving.simulate.series import series
    from perfmodel.serving.simulate.trace import write_trace

    made = outcome.simulation
    if files["requests"]:
        write_requests(made, files["requests"])
    if files["series"]:
        write_table([series(made)], files["series"])
    if files["trace"]:
        write_trace(made, files["trace"])


def _single(outcome: Outcome, runs: Runs) -> dict[str, Any]:
    made = outcome.simulation
    results = shown(outcome.results())
    warnings: list[str] = []
    modified = sorted(
        {name for part in outcome.deployment.parts for name in part.resolved.modified}
    )
    if modified:
        warnings.append(f"modified values: {', '.join(modified)}")
    if results["preemptions"]:
        warnings.append(f"{results['preemptions']} preemptions: the cache ran out of blocks")
    asked = ways_in.models(outcome.experiment.traffic)
    if len(asked) > 1 and made.requests.pool is None:
        warnings.append(f"one model answers all calls; the graph names {', '.join(asked)}: a "
                        "cluster file with pools of these names tells them apart")  # fmt: skip
    answer = _envelope(outcome.experiment, results, warnings)
    failed = [check for check in experiments.checks(results, runs, False) if not check.met]
    if failed:
        answer["verdict"] = {
            "feasible": False, "message": "; ".join(map(str, failed)),
            "nearest": "a lower rate (--find-capacity), more replicas or faster GPUs",
        }  # fmt: skip
    answer["cache"] = {
        "blocks": made.blocks,
        "block_size": made.cluster.replicas[0].engine.block_size,
    }
    answer["replicas"] = len(made.cluster.replicas)
    answer["routing"] = routing_name(made.cluster.routing)
    if len(made.cluster.replicas) > 1:
        answer["by_replica"] = [shown(row) for row in made.by_replica()]
    if made.requests.tenant is not None:
        names = [tenant.name for tenant in ways_in.tenants(outcome.experiment.traffic)]
        answer["by_tenant"] = [
            shown(row) | ({"tenant": names[row["tenant"]]} if names else {})
            for row in made.by_tenant()
        ]
    calibration = outcome.deployment.parts[0].resolved.machine.calibration
    answer["validity"] = {
        "calibrated": calibration.calibrated,
        "percentiles": "exact, of itl in bins of 0.5 %" if made.kept else "in bins of 0.5 %",
        "note": f"calibrated: {calibration.name}" if calibration.calibrated else
        "uncalibrated: efficiencies are defaults from the literature; perfmodel estimate "
        "prints the interval their bounds span",
    }  # fmt: skip
    return answer


def _ensemble(experiment: Experiment, runs: Runs) -> dict[str, Any]:
    with runs.open() as pool, Bar("seeds") as bar:
        made = experiments.repeat(experiment, runs, pool, bar)
    names = [name for name, value in made.rows[0].items() if isinstance(value, (int, float))]
    found = {name: made.interval(name) for name in names}
    answer = _envelope(experiment, shown({name: found[name].mean for name in names}), [])
    answer["seeds"] = {"first": made.seeds[0], "n": len(made.seeds), "converged": made.converged}
    answer["intervals"] = {
        name: {"half_width": each.half_width, "n": each.n} for name, each in found.items()
    }
    answer["confidence"] = runs.confidence
    if not made.converged:
        wide = [name for name, each in made.metrics.items() if not each.converged]
        answer["warnings"].append(
            f"after {len(made.seeds)} seeds {', '.join(wide)} vary by more than "
            f"{runs.tolerance:.0%}: more --seeds, or more --num-requests"
        )
    return answer


def _capacity(experiment: Experiment, runs: Runs) -> dict[str, Any]:
    with runs.open() as pool, Bar("rates") as bar:
        made = experiments.capacity(experiment, runs, pool, bar)
    answer = _envelope(experiment, shown(made.best.result if made.best else {}), [])
    answer["capacity"] = {
        "request_rate": made.rate,
        "converged": made.converged,
        "message": str(made),
        "probes": [
            {"request_rate": probe.rate, "met": probe.met} |
            shown({check.name: check.value for check in probe.checks})
            for probe in made.curve
        ],
    }  # fmt: skip
    if made.best is None:
        answer["verdict"] = {
            "feasible": False, "message": str(made),
            "nearest": "looser limits, a shorter prompt or faster GPUs",
        }  # fmt: skip
    return answer


def _envelope(
    experiment: Experiment, results: dict[str, Any], warnings: list[str]
) -> dict[str, Any]:
    inputs = experiment.to_dict()
    slo = inputs.get("slo")
    if slo:
        inputs["slo"] = {name: limit * 1e3 for name, limit in slo.items()}
    return {
        "schema": SCHEMA,
        "tool": f"perfmodel {VERSION}",
        "inputs": inputs,
        "results": results,
        "verdict": {"feasible": True, "message": "", "nearest": ""},
        "warnings": warnings,
    }
