"""How many requests a CPU-second simulates: the compiled core, the plain twin, and their ratio.

Lognormal lengths, Poisson arrivals; every request's TTFT, TPOT, latency and queue time with
percentiles, and those of ITL, from a step-time surface made inside the timed part. The core is
compiled before the clock starts (and cached on disk, see NUMBA_CACHE_DIR). "flat" keeps aggregates
only. The last column is the twin's largest difference from the core, per request.

    python benchmarks/simulate.py [--quick] [--memory]
"""

from __future__ import annotations

import os

# one core; read when NumPy is first imported
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from perfmodel.scenario.resolve import resolve
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.verdict import deployment_memory
from perfmodel.serving.content import Contexts
from perfmodel.serving.engine import System
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate import (
    Cluster,
    Engine,
    Replica,
    Simulation,
    cache_blocks,
    has_core,
    serve,
    surface_for,
)
from perfmodel.serving.simulate.fleet import Routing
from perfmodel.serving.simulate.policy import policy

DENSE, WINDOWED = "meta-llama/Llama-3.1-8B", "openai/gpt-oss-20b"
SPREAD = 0.7
BLOCK = 16


@dataclass(frozen=True, slots=True)
class Workload:
    """Lengths are medians [tokens], the rate is that of all replicas [1/s], each an H100."""

    model: str
    prompt: int
    output: int
    rate: float
    replicas: int = 1
    routing: Routing = Routing.LEAST_OUTSTANDING
    turns: int = 0  # of a conversation, behind a system prompt; 0: no shared content


CHAT = Workload(DENSE, 512, 128, 30.0)
FLEET = replace(CHAT, rate=480.0, replicas=16)
WORKLOADS = {
    "light chat": replace(CHAT, rate=10.0),
    "busy chat": CHAT,
    "long answers": Workload(DENSE, 1024, 256, 10.0),
    "overload": Workload(DENSE, 1024, 256, 60.0),
    "thrashing cache": Workload(DENSE, 2000, 500, 5.0),
    "sliding windows": Workload(WINDOWED, 512, 128, 30.0),
    "16, least requests": FLEET,
    "16, least KV": replace(FLEET, routing=Routing.LEAST_KV),
    "16, power of two": replace(FLEET, routing=Routing.POWER_OF_TWO),
    "prefix cache": replace(CHAT, turns=4),
    "16, prefix-aware": replace(FLEET, turns=4, routing=Routing.PREFIX_AWARE),
}


def system(model: str = DENSE) -> System:
    known = resolve(Scenario(model=model, gpu="h100-sxm"))
    return System(known.architecture, known.layout, known.precision, known.machine,
                  deployment_memory(known), 256.0, 8192.0)  # fmt: skip


def workload(of: Workload, count: int) -> Requests:
    rng = np.random.default_rng(0)
    arrival = rng.exponential(1 / of.rate, count).cumsum()
    prompt, output = (
        np.clip(rng.lognormal(np.log(median), SPREAD, count), 1, 8000).astype(np.int64)
        for median in (of.prompt, of.output)
    )
    made = Requests(arrival, prompt, output)
    return conversations(made, of.turns) if of.turns else made


def conversations(asked: Requests, turns: int) -> Requests:
    """Each request adds its prompt to those of its conversation, 1024 under way at once."""
    count, span = len(asked), 1024
    order = np.arange(count)
    session = order // (turns * span) * span + order % span
    turn = order // span % turns
    tree, tasks = Contexts(BLOCK), session
    node = tree.common("system", tasks, np.zeros(count, np.int64), np.zeros(count, np.int64), 256)
    length = np.full(count, 256)
    for step in range(turns):  # the text of a turn is a quarter of a prompt of its own
        said = np.maximum(asked.prompt // 4, 1)[session % count]
        more = np.where(step <= turn, said, 0)
        node = tree.piece("turn", tasks, node, length, more, np.full(count, step))
        length = length + more
    return replace(asked, prompt=length, hash_ids=tree.blocks(node, length), hash_block=BLOCK,
                   session=session)  # fmt: skip


def simulated(
    served: System, asked: Requests, of: Workload, *, keep: bool = True, compiled: bool = True
) -> Simulation:
    seqs, budget = int(served.max_num_seqs), int(served.budget)
    blocks = cache_blocks(served, asked, BLOCK)
    engine = Engine(policy("vllm-v1"), budget, seqs, BLOCK, blocks, prefix_cache=of.turns > 0)
    surface = surface_for(served, (engine,), asked)
    cluster = Cluster((surface,), (Replica(engine),) * of.replicas, routing=of.routing)
    return serve(cluster, asked, keep_requests=keep, compiled=compiled)


def timed(run: Callable[[], Simulation], count: int) -> tuple[float, Simulation]:
    """CPU seconds per request, results included."""
    start = time.process_time()
    made = run()
    made.results()
    return (time.process_time() - start) / count, made


def main() -> None:
    """Print one line per workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--memory", action="store_true", help="10 million requests, aggregates")
    given = parser.parse_args()
    if not has_core():
        raise SystemExit("numba is not installed: pip install 'perfmodel[simulate]'")
    many, few = (100_000, 1000) if given.quick else (1_000_000, 10_000)
    start = time.perf_counter()
    simulated(system(), workload(CHAT, 10), CHAT)
    print(f"compiled or read from the cache in {time.perf_counter() - start:.1f} s")
    if given.memory:
        count = 10_000_000
        asked = workload(CHAT, count)
        each, _ = timed(lambda: simulated(system(), asked, CHAT, keep=False), count)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{count:,} requests: {1 / each:,.0f} per CPU-second, {peak:.2f} GB at most")
        return
    print("workload            steps/request   core 1/s   flat 1/s  twin 1/s  ratio  difference")
    for name, of in WORKLOADS.items():
        served, asked, sample = system(of.model), workload(of, many), workload(of, few)
        core, made = timed(lambda: simulated(served, asked, of), many)  # noqa: B023
        flat, _ = timed(lambda: simulated(served, asked, of, keep=False), many)  # noqa: B023
        twin, oracle = timed(lambda: simulated(served, sample, of, compiled=False), few)  # noqa: B023
        same = simulated(served, sample, of)
        worst = np.abs(oracle.record.finish - same.record.finish).max()
        steps = made.record.steps.sum() / many
        row = f"{name:<19} {steps:>13.1f} {1 / core:>10,.0f} {1 / flat:>10,.0f}"
        print(f"{row} {1 / twin:>9,.0f} {twin / core:>6.0f} {worst:>11.1e}", flush=True)


if __name__ == "__main__":
    main()
