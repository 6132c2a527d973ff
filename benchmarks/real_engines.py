"""Simulated against measured serving runs: TTFT and TPOT of every request, one engine.

Reads a folder of runs as LLMServingSim publishes them (MIT; github.com/casys-kaist/LLMServingSim,
real vLLM runs): per run ``requests.csv`` (isl_tokens, osl_tokens, arrival_s, ttft_ms, tpot_ms) and
``meta.json`` (engine limits). Nothing is fitted to them. A run that says how many cache blocks its
engine had is also simulated with that many, to tell errors of memory from errors of time.

    python benchmarks/real_engines.py FOLDER [--calibration NAME]
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path

import numpy as np

from perfmodel.scenario.deploy import deploy, plan
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.serving import Serving
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate import Cluster, Simulation, serve

# accelerators by how the runs' folders begin
GPUS = {"rtx4090": "rtx-4090", "rtxpro6000": "rtx-pro-6000", "h100": "h100-sxm"}
STATISTICS = ("mean", "median", "p90", "p99")


def read(folder: Path) -> tuple[Requests, dict[str, np.ndarray]]:
    """Requests in order of arrival, and their measured latencies [ms]."""
    with (folder / "requests.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["arrival_s"]))
    columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]
               if name != "request_id"}  # fmt: skip
    asked = Requests(
        columns["arrival_s"],
        columns["isl_tokens"].astype(np.int64),
        columns["osl_tokens"].astype(np.int64),
    )
    return asked, {name: columns[f"{name}_ms"] for name in ("ttft", "tpot")}


def question(folder: Path, meta: dict, calibration: str) -> Scenario:
    """The run's engine."""
    known = next((gpu for start, gpu in GPUS.items() if folder.name.startswith(start)), None)
    if known is None:
        raise SystemExit(f"{folder.name}: begins with none of {', '.join(GPUS)}")
    engine = meta["engine_kwargs"]
    return Scenario(
        model=meta["model"], gpu=known, calibration=calibration, request_rate=1.0,
        tensor_parallel_size=engine["tensor_parallel_size"],
        max_num_seqs=engine["max_num_seqs"],
        max_num_batched_tokens=engine["max_num_batched_tokens"],
        max_model_len=engine["max_model_len"],
    )  # fmt: skip


def report(name: str, made: Simulation, measured: dict[str, np.ndarray]) -> None:
    """One line per latency: simulated, measured, and how far apart."""
    for metric, values in measured.items():
        values = values[~np.isnan(values)]
        exact = [values.mean(), *np.quantile(values, [0.5, 0.9, 0.99])]
        found = {name: 1e3 * value for name, value in made.statistics(metric).items()}
        cells = [
            f"{found[statistic]:>9,.1f} {real:>9,.1f} {found[statistic] / real - 1:>+6.0%}"
            for statistic, real in zip(STATISTICS, exact, strict=True)
        ]
        print(f"{name:<42} {metric}  " + " ".join(cells))


def main() -> None:
    """Print a table: per run and latency, simulated, measured [ms] and the difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calibration", default="uncalibrated")
    given = parser.parse_args()
    runs = sorted(path.parent for path in given.folder.glob("*/meta.json"))
    if not runs:
        raise SystemExit(f"{given.folder}: no runs (folders with meta.json and requests.csv)")
    header = " ".join(f"{'simulated':>9} {statistic:>9} {'diff':>6}" for statistic in STATISTICS)
    print(f"{'run':<42} ms    {header}")
    for folder in runs:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        asked, measured = read(folder)
        cluster = deploy(plan(question(folder, meta, given.calibration), Serving()), asked).cluster
        report(folder.name, serve(cluster, asked), measured)
        blocks = (meta["kv_cache"] or {}).get("num_gpu_blocks")
        if blocks:
            own = cluster.replicas[0].engine.blocks
            report(f"  with {blocks} blocks (own estimate {own})",
                   serve(_with_blocks(cluster, blocks), asked), measured)  # fmt: skip


def _with_blocks(cluster: Cluster, blocks: int) -> Cluster:
    only = cluster.replicas[0]
    engine = dataclasses.replace(only.engine, blocks=blocks)
    return dataclasses.replace(cluster, replicas=(dataclasses.replace(only, engine=engine),))


if __name__ == "__main__":
    main()
