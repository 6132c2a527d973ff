"""Runs: a system or a cluster serves requests, in the compiled core or in the plain twin."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from perfmodel.core.errors import InfeasibleError, UsageError
from perfmodel.memory.fit import sequence_bytes
from perfmodel.serving.engine import System
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.check import check, check_length, reach
from perfmodel.serving.simulate.fleet import Cluster, Replica
from perfmodel.serving.simulate.passes import tabulate_passes
from perfmodel.serving.simulate.policy import Engine, policy
from perfmodel.serving.simulate.record import Record, Slo, blank
from perfmodel.serving.simulate.result import Simulation
from perfmodel.serving.simulate.surface import Surface, tabulate


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
        What arrives.
    max_concurrency : int, optional
        Closed loop: so many requests (tasks, if the requests have tasks) are in flight, the next
        starts when one finishes; arrival times are then ignored.
    scheduler : str
        A name in `perfmodel.serving.simulate.policy.POLICIES`.
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
    if block_size < 1:
        raise UsageError(f"block_size {block_size} must be at least 1")
    budget = int(system.budget)
    engine = Engine(
        policy=policy(scheduler),
        budget=budget,
        max_num_seqs=max(1, min(int(system.max_num_seqs), budget, len(requests))),
        block_size=block_size,
        blocks=cache_blocks(system, requests, block_size),
    )
    check_length(max_model_len or system.architecture.context, requests)
    return replay(
        surface_for(system, (engine,), requests), engine, requests,
        max_concurrency=max_concurrency, slo=slo, keep_requests=keep_requests, compiled=compiled,
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
    """Serve requests on one replica with a given step time and given limits; see `simulate`.

    Raises
    ------
    perfmodel.core.errors.InfeasibleError
        A request is longer than the whole cache.
    """
    return serve(
        Cluster((surface,), (Replica(engine),)), requests, max_concurrency=max_concurrency,
        slos=(slo or Slo(),), keep_requests=keep_requests, compiled=compiled,
    )  # fmt: skip


def serve(
    cluster: Cluster,
    requests: Requests,
    *,
    max_concurrency: int | None = None,
    slos: Sequence[Slo] = (Slo(),),
    keep_requests: bool = True,
    log: int = 0,
    compiled: bool | None = None,
) -> Simulation:
    """Serve requests on a cluster.

    Parameters
    ----------
    cluster : Cluster
    requests : Requests
    max_concurrency : int, optional
        Closed loop: so many tasks are under way; arrival times are then ignored.
    slos : sequence of Slo
        Limits by tenant.
    keep_requests : bool
        Keep the times of every request; else only aggregates.
    log : int
        Most stretches of steps to keep, for time series and traces.
    compiled : bool, optional
        Run the compiled core or the plain twin; default: the core where numba is installed.

    Raises
    ------
    UsageError
        A cluster that contradicts itself or the requests.
    perfmodel.core.errors.InfeasibleError
        A request is longer than a replica's cache, or nobody is there to serve it.
    """
    check(cluster, requests, slos, max_concurrency)
    if compiled is None:
        compiled = has_core()
    elif compiled and not has_core():
        raise UsageError("the compiled simulator needs numba: pip install 'perfmodel[simulate]'")
    record = blank(
        len(requests) if keep_requests else 0, len(slos), len(cluster.replicas),
        len(cluster.surfaces), max(len(surface.rows) for surface in cluster.surfaces),
        max(len(surface.sequences) for surface in cluster.surfaces), log,
    )  # fmt: skip
    if compiled:
        from perfmodel.serving.simulate.core import run  # numba takes a second to import
    else:
        from perfmodel.serving.simulate.twin import run
    run(cluster, requests, max_concurrency or 0, tuple(slos), record)
    _check_served(record, len(requests))
    return Simulation(cluster, requests, tuple(slos), record, keep_requests, compiled)


def has_core() -> bool:
    """Whether numba is there to compile the core."""
    return importlib.util.find_spec("numba") is not None


def surface_for(
    system: System, engines: Sequence[Engine], requests: Requests, passes: int = 1
) -> Surface:
    """Surface of a system that reaches whatever the engines' steps may hold.

    ``passes`` are the evaluations of a diffusion model per request and step.
    """
    longest = int(np.max(requests.prompt + requests.output))
    rows, seqs = (max(most) for most in zip(*(reach(e, longest) for e in engines), strict=True))
    if system.architecture.graph is not None:
        return tabulate_passes(system, rows, longest, passes)
    return tabulate(system, rows, seqs, longest)


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


def _check_served(record: Record, requests: int) -> None:
    lost = requests - int(record.finished.sum())
    if lost:
        raise InfeasibleError(
            f"{lost} of {requests} requests are never served: no replica is left for them",
            "capacity", "a replica that recovers, or a spare one and a scaler",
        )  # fmt: skip
