"""How many full estimates a second one core gives: a grid and a flat million against the loop.

Every estimate is the whole answer (all result columns). The loop over scalar calls is timed on a
few hundred random points and scaled; the swept values of those points are checked against it.

    python benchmarks/sweep.py [--quick]
"""

from __future__ import annotations

import os

# one core; read when NumPy is first imported
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import perfmodel
from perfmodel.plan.sweep import BLOCK

QUESTIONS: dict[str, dict[str, Any]] = {
    "dense": {"model": "meta-llama/Llama-3.1-70B", "gpu": "h100-sxm", "tensor_parallel_size": 8},
    "MoE": {"model": "deepseek-ai/DeepSeek-V3", "gpu": "h200-sxm", "tensor_parallel_size": 16,
            "expert_parallel_size": 16},
}  # fmt: skip
AXES = ("isl", "osl", "max_concurrency")
Columns = dict[str, NDArray[np.float64]]


def axes(side: int) -> dict[str, NDArray[np.float64]]:
    """``side`` values each of prompt length, output length and users, spaced by ratios."""
    spans = {"isl": (16, 65_536), "osl": (2, 16_384), "max_concurrency": (1, 4096)}
    return {name: np.round(np.geomspace(*span, side)) for name, span in spans.items()}


def grid(question: dict[str, Any], side: int) -> tuple[Columns, dict[str, NDArray[np.float64]]]:
    """Sweep of the product of the axes; columns and points, both flat."""
    points = axes(side)
    columns = perfmodel.sweep(**question, **points).columns
    mesh = np.meshgrid(*points.values(), indexing="ij")
    flat = {name: values.ravel() for name, values in zip(points, mesh, strict=True)}
    return {name: column.ravel() for name, column in columns.items()}, flat


def flat(question: dict[str, Any], count: int) -> tuple[Columns, dict[str, NDArray[np.float64]]]:
    """Unrelated points, in blocks: no axis is shared, nothing is saved by broadcasting."""
    draw = np.random.default_rng(0)
    points = {name: draw.choice(values, count) for name, values in axes(1000).items()}
    parts: list[dict[str, Any]] = []
    for start in range(0, count, BLOCK):
        block = {name: values[start : start + BLOCK] for name, values in points.items()}
        parts.append(perfmodel.estimate(**question, **block).results())
    sizes = [min(BLOCK, count - start) for start in range(0, count, BLOCK)]
    columns = {
        name: np.concatenate(
            [np.broadcast_to(p[name], size) for p, size in zip(parts, sizes, strict=True)]
        )
        for name in parts[0]
    }
    return columns, points


def loop(question: dict[str, Any], points: Columns, count: int) -> tuple[float, float]:
    """Seconds per scalar call, and the largest relative difference from the swept columns."""
    chosen = np.random.default_rng(1).choice(len(points["isl"]), count, replace=False)
    worst, spent = 0.0, 0.0
    for index in chosen:
        point = {name: float(points[name][index]) for name in AXES}
        start = time.perf_counter()
        results = perfmodel.estimate(**question, **point).results()
        spent += time.perf_counter() - start
        for name, value in results.items():
            swept = float(points[f"={name}"][index])
            if np.isnan(value) != np.isnan(swept):
                raise SystemExit(f"{name} at {point}: {value} alone, {swept} in the sweep")
            if not np.isnan(value):
                # a wait is the difference of two times and exact to a share of those
                size = max(abs(value), results["ttft_ms"] if name == "queue_time_ms" else 0.0)
                worst = max(worst, abs(value - swept) / size if size else abs(swept))
    if worst > 1e-9:
        raise SystemExit(f"the sweep differs from scalar calls by {worst:.1e}")
    return spent / count, worst


def main() -> None:
    """Time both shapes for both models and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8,000 points instead of a million")
    quick = parser.parse_args().quick
    side, sample = (20, 50) if quick else (100, 400)
    print("model  shape       points  feasible  seconds  us/each  scalar us  ratio  difference")
    for name, question in QUESTIONS.items():
        perfmodel.estimate(**question)  # reads the files
        for shape, make, size in (("grid", grid, side), ("flat", flat, side**3)):
            start = time.perf_counter()
            columns, points = make(question, size)
            seconds = time.perf_counter() - start
            swept = {f"={column}": values for column, values in columns.items()}
            scalar, worst = loop(question, points | swept, sample)
            each = seconds / side**3
            feasible = np.isfinite(columns["tpot_ms"]).mean()
            row = f"{name:<6} {shape:<5} {side**3:>12,} {feasible:>9.0%} {seconds:>8.2f}"
            row += f" {each * 1e6:>8.3f} {scalar * 1e6:>10.0f} {scalar / each:>6.0f}"
            print(f"{row} {worst:>11.1e}", flush=True)


if __name__ == "__main__":
    main()
