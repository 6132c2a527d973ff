"""What worker processes gain on the same 64 tasks: serial, loky, and Dask and Ray if installed.

A task simulates an M/D/1 queue (Lindley's recursion) in plain Python; every backend must return the
serial rows bit for bit. Start-up (workers there, code imported) is timed apart, and so is what a
task costs that does nothing. Ratios are bounded by the workers that have a core to themselves.

    python benchmarks/ensemble.py [--quick] [--workers N]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import time
from typing import Any

from perfmodel.plan.backends import open_pool

LIBRARIES = {"serial": "perfmodel", "loky": "joblib", "dask": "distributed", "ray": "ray"}
SERVICE, LOAD = 1.0, 0.8


def queue(task: tuple[int, int]) -> dict[str, float]:
    """Mean wait of the customers of one M/D/1 queue."""
    seed, customers = task
    draw = random.Random(seed).expovariate
    wait = total = 0.0
    for _ in range(customers):
        total += wait
        wait = max(0.0, wait + SERVICE - draw(LOAD / SERVICE))
    return {"seed": seed, "wait": total / customers}


def nothing(task: int) -> int:
    return task


def timed(backend: str, workers: int, tasks: list[Any], empty: int) -> tuple[float, ...]:
    """Seconds of start-up, of the tasks, of an empty task; and the tasks' results."""
    start = time.perf_counter()
    with open_pool(backend, workers=1 if backend == "serial" else workers) as pool:
        pool.map(queue, [(0, 1)] * 2 * pool.workers)
        ready = time.perf_counter()
        rows = pool.map(queue, tasks)
        done = time.perf_counter()
        pool.map(nothing, range(empty))
        idle = time.perf_counter()
    return ready - start, done - ready, (idle - done) / empty, rows


def main() -> None:
    """Print one line per backend."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller tasks")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    customers, empty = (30_000, 100) if given.quick else (300_000, 1000)
    tasks = [(seed, customers) for seed in range(64)]
    wait = LOAD * SERVICE / (2 * (1 - LOAD))
    print(f"64 tasks, {given.workers} workers")
    print("backend   start-up s   tasks s   ratio   empty task ms   rows")
    serial, expected = 0.0, None
    for backend, library in LIBRARIES.items():
        if importlib.util.find_spec(library) is None:
            print(f"{backend:<10} {library} is not installed: pip install 'perfmodel[distributed]'")
            continue
        ready, took, idle, rows = timed(backend, given.workers, tasks, empty)
        if expected is None:
            serial, expected = took, rows
            mean = sum(row["wait"] for row in rows) / len(rows)
            said = f"mean wait {mean:.3f}, by the formula {wait:.3f}"
        else:
            said = "equal" if rows == expected else "DIFFERENT"
        print(f"{backend:<9} {ready:>11.2f} {took:>9.2f} {serial / took:>7.2f} "
              f"{idle * 1e3:>15.2f}   {said}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
