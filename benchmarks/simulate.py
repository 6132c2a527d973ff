"""How many requests a CPU-second simulates: the compiled core, the plain twin, and their ratio.

One replica, lognormal lengths, Poisson arrivals; every request's TTFT, TPOT, latency and queue time
with percentiles, and those of ITL, from a step-time surface made inside the timed part. The core is
compiled before the clock starts (and cached on disk, see NUMBA_CACHE_DIR). "flat" keeps aggregates
only. The last column is the twin's largest difference from the core, per request.

    python benchmarks/simulate.py [--quick]
"""

from __future__ import annotations

import os

# one core; read when NumPy is first imported
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import resource
import time

import numpy as np

from perfmodel.scenario.resolve import resolve
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.verdict import deployment_memory
from perfmodel.serving.engine import System
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate import Simulation, has_core, simulate

DENSE, WINDOWED = "meta-llama/Llama-3.1-8B", "openai/gpt-oss-20b"
# (model; prompt, output: medians [tokens]; rate [1/s]) on one H100
WORKLOADS = {
    "light chat": (DENSE, 512, 128, 10.0),
    "busy chat": (DENSE, 512, 128, 30.0),
    "long answers": (DENSE, 1024, 256, 10.0),
    "overload": (DENSE, 1024, 256, 60.0),
    "thrashing cache": (DENSE, 2000, 500, 5.0),
    "sliding windows": (WINDOWED, 512, 128, 30.0),
}
SPREAD = 0.7


def system(model: str = DENSE) -> System:
    known = resolve(Scenario(model=model, gpu="h100-sxm"))
    return System(known.architecture, known.layout, known.precision, known.machine,
                  deployment_memory(known), 256.0, 8192.0)  # fmt: skip


def workload(prompt: int, output: int, rate: float, count: int) -> Requests:
    rng = np.random.default_rng(0)
    arrival = rng.exponential(1 / rate, count).cumsum()
    lengths = [np.clip(rng.lognormal(np.log(median), SPREAD, count), 1, 8000).astype(np.int64)
               for median in (prompt, output)]  # fmt: skip
    return Requests(arrival, *lengths)


def timed(served: System, asked: Requests, **keywords: bool) -> tuple[float, Simulation]:
    """CPU seconds per request, results included."""
    start = time.process_time()
    made = simulate(served, asked, **keywords)
    made.results()
    return (time.process_time() - start) / len(asked), made


def main() -> None:
    """Print one line per workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--memory", action="store_true", help="10 million requests, aggregates")
    given = parser.parse_args()
    if not has_core():
        raise SystemExit("numba is not installed: pip install 'perfmodel[simulate]'")
    many, few = (50_000, 1000) if given.quick else (1_000_000, 10_000)
    served = system()
    start = time.perf_counter()
    for keep in (True, False):
        simulate(served, workload(100, 10, 1.0, 10), keep_requests=keep)
    print(f"compiled or read from the cache in {time.perf_counter() - start:.1f} s")
    if given.memory:
        each, _ = timed(served, workload(512, 128, 30.0, 10_000_000), keep_requests=False)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"10,000,000 requests: {1 / each:,.0f} per CPU-second, {peak:.2f} GB at most")
        return
    print("workload         steps/request   core 1/s   flat 1/s  twin 1/s  ratio  difference")
    for name, (model, prompt, output, rate) in WORKLOADS.items():
        served = system(model)
        asked = workload(prompt, output, rate, many)
        core, made = timed(served, asked)
        flat, _ = timed(served, asked, keep_requests=False)
        sample = workload(prompt, output, rate, few)
        twin, oracle = timed(served, sample, compiled=False)
        _, same = timed(served, sample)
        worst = np.abs(oracle.record.finish - same.record.finish).max()
        row = f"{name:<16} {made.record.steps / many:>13.1f} {1 / core:>10,.0f} {1 / flat:>10,.0f}"
        print(f"{row} {1 / twin:>9,.0f} {twin / core:>6.0f} {worst:>11.1e}", flush=True)


if __name__ == "__main__":
    main()
