"""Iteration-level simulation of one replica: every request's latencies, percentiles, preemptions.

`surface` tabulates the step time, `policy` says what a step may hold, `core` serves the requests
(compiled, stretches of steps at once; `batch` is its state), `twin` does the same step by step in
plain Python, and `result` reads the outcome. Not here yet: clusters, prefix caching, priorities,
speculation.
"""

from __future__ import annotations

import importlib.util

import numpy as np

from perfmodel.core.errors import InfeasibleError, UsageError
from perfmodel.memory.fit import sequence_bytes
from perfmodel.serving.engine import System
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.policy import POLICIES, Engine, Policy, policy
from perfmodel.serving.simulate.result import Record, Simulation, Slo
from perfmodel.serving.simulate.surface import Surface, tabulate

__all__ = [
    "POLICIES",
    "Engine",
    "Policy",
    "Simulation",
    "Slo",
    "Surface",
    "cache_blocks",
    "has_core",
    "replay",
    "simulate",
    "tabulate",
]


def simulate(
    system: System,
    requests: Requests,
    *,
    max_concurrency: int | None = None,
    scheduler: str = "vllm-v1",
    block_size: int = 16,
    max_model_len: int | None = None,
    slo: Slo | None = None,
    keep_requests: bool = True,
    compiled: bool | None = None,
) -> Simulation:
    """Serve requests on one replica, step by step.

    Parameters
    ----------
    system : System
        What serves; one replica without pipeline stages.
    requests : Requests
        What arrives. Priorities, equal prompt blocks and hidden tokens play no role yet.
    max_concurrency : int, optional
        Closed loop: so many requests are in flight, the next starts when one finishes; arrival
        times are then ignored.
    scheduler : str
        A name in `POLICIES`.
    block_size : int
        Tokens per cache block.
    max_model_len : int, optional
        Longest sequence the engine accepts; default: the model's context.
    slo : Slo, optional
        Limits that a request must meet to count as goodput.
    keep_requests : bool
        Keep the times of every request; else only aggregates, in memory that does not grow.
    compiled : bool, optional
        Run the compiled core or the plain twin; default: the core where numba is installed.

    Raises
    ------
    UsageError
        Unknown scheduler, limits below one, a system the simulator does not know.
    perfmodel.core.errors.InfeasibleError
        A request is longer than the whole cache or ``max_model_len``.
    """
    for name, value in (("block_size", block_size), ("max_concurrency", max_concurrency)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value} must be at least 1")
    budget = int(system.budget)
    engine = Engine(
        policy=policy(scheduler),
        budget=budget,
        max_num_seqs=max(1, min(int(system.max_num_seqs), budget, len(requests))),
        block_size=block_size,
        blocks=cache_blocks(system, requests, block_size),
    )
    _check_length(max_model_len or system.architecture.context, requests)
    longest = int(np.max(requests.prompt + requests.output))
    most_rows = max(budget, longest) + engine.max_num_seqs
    surface = tabulate(system, most_rows, engine.max_num_seqs, longest)
    return replay(
        surface, engine, requests, max_concurrency=max_concurrency, slo=slo,
        keep_requests=keep_requests, compiled=compiled,
    )  # fmt: skip


def replay(
    surface: Surface,
    engine: Engine,
    requests: Requests,
    *,
    max_concurrency: int | None = None,
    slo: Slo | None = None,
    keep_requests: bool = True,
    compiled: bool | None = None,
) -> Simulation:
    """Serve requests with a given step time and given limits; see `simulate`.

    Raises
    ------
    perfmodel.core.errors.InfeasibleError
        A request is longer than the whole cache.
    """
    _check_cache(engine, requests)
    count = len(requests)
    if compiled is None:
        compiled = has_core()
    elif compiled and not has_core():
        raise UsageError("the compiled simulator needs numba: pip install 'perfmodel[simulate]'")
    size = count if keep_requests or not compiled else 0
    arrival, start, first, finish = (np.full(size, np.nan) for _ in range(4))
    record = Record(arrival, start, first, finish, np.zeros(size, np.int64))
    if compiled:
        from perfmodel.serving.simulate.core import run  # numba takes a second to import
    else:
        from perfmodel.serving.simulate.twin import run
    run(surface, engine, requests, max_concurrency or 0, slo or Slo(), record)
    if not keep_requests:
        record.arrival = record.start = record.first = record.finish = np.empty(0)
        record.preempted = np.empty(0, np.int64)
    return Simulation(
        record, requests.output,
        (count, int(requests.prompt.sum()), int(requests.output.sum()),
         int(np.count_nonzero(requests.output > 1))),
        engine.blocks, engine.block_size, keep_requests, compiled,
    )  # fmt: skip


def has_core() -> bool:
    """Whether numba is there to compile the core."""
    return importlib.util.find_spec("numba") is not None


def cache_blocks(system: System, requests: Requests, block_size: int) -> int:
    """Blocks of the cache, a block costing its share of a sequence of mean length.

    Exact where a sequence's cache is proportional to its blocks. Where it is not (sliding windows,
    recurrent states) the number of sequences of mean length that fit is right.
    """
    tokens = float(np.mean(requests.prompt + requests.output / 2))
    held = -(-tokens // block_size)
    cost = sequence_bytes(
        system.architecture, system.layout, system.precision, held * block_size, float(block_size)
    )
    return max(int(float(system.footprint.pool) / max(float(cost), 1.0) * held + 1e-9), 0)


def _check_length(limit: int | None, requests: Requests) -> None:
    total = requests.prompt + requests.output
    if limit and np.any(total > limit):
        worst = int(np.argmax(total))
        raise InfeasibleError(
            f"request {worst} has {requests.prompt[worst]} + {requests.output[worst]} tokens, more "
            f"than the longest sequence of {limit}", "context", f"at most {limit} tokens"
        )  # fmt: skip


def _check_cache(engine: Engine, requests: Requests) -> None:
    # the last output token is never fed back
    needed = -(-(requests.prompt + requests.output - 1) // engine.block_size)
    if np.any(needed > engine.blocks):
        worst = int(np.argmax(needed))
        size = engine.block_size
        raise InfeasibleError(
            f"request {worst} ({requests.prompt[worst]} + {requests.output[worst]} tokens) needs "
            f"{needed[worst]} cache blocks of {size} tokens, the replica has {engine.blocks}",
            "memory", f"at most {engine.blocks * size} tokens a request, or more GPUs per replica"
        )  # fmt: skip
