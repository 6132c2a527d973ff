"""Whether a cluster, its limits and its requests fit together; one clear line where they do not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from perfmodel.core.errors import InfeasibleError, UsageError
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.fleet import Cluster, Replica, Role, State
from perfmodel.serving.simulate.policy import FINETUNE_ROWS, Engine
from perfmodel.serving.simulate.record import Slo


def check(cluster: Cluster, requests: Requests, slos: Sequence[Slo], users: int | None) -> None:
    """Refuse what cannot run.

    Raises
    ------
    UsageError
        A cluster that contradicts itself or the requests, or numbers out of range.
    perfmodel.core.errors.InfeasibleError
        A request is longer than a replica's cache.
    """
    for what, value, least in _numbers(cluster):
        if not least <= value < math.inf:
            raise UsageError(f"{what} is {value:g}; at least {least:g}")
    if users is not None and users < 1:
        raise UsageError(f"max_concurrency {users} must be at least 1")
    _check_replicas(cluster, requests)
    _check_pools(cluster, requests, slos)
    _check_changes(cluster)
    if users:
        _check_tasks(requests)
    for index in _unlike(cluster):
        _check_cache(cluster.replicas[index], requests)
        _check_reach(cluster, index, requests)


def check_length(limit: int | None, requests: Requests) -> None:
    """Refuse requests longer than ``limit`` tokens.

    Raises
    ------
    perfmodel.core.errors.InfeasibleError
    """
    total = requests.prompt + requests.output
    if limit and np.any(total > limit):
        worst = int(np.argmax(total))
        raise InfeasibleError(
            f"request {worst} has {requests.prompt[worst]} + {requests.output[worst]} tokens, more "
            f"than the longest sequence of {limit}", "context", f"at most {limit} tokens"
        )  # fmt: skip


def _unlike(cluster: Cluster) -> Iterator[int]:
    """One replica of each kind."""
    seen = set[tuple[int, int, int]]()
    for index, replica in enumerate(cluster.replicas):
        kind = (id(replica.engine), replica.surface, replica.pool)
        if kind not in seen:
            seen.add(kind)
            yield index


def _numbers(cluster: Cluster) -> Iterator[tuple[str, float, float]]:
    """What each number is, its value, and the least it may be."""
    tiny = 1e-9  # the clock's resolution: what repeats must advance it
    for index in _unlike(cluster):
        engine, name = cluster.replicas[index].engine, f"replica {index}'s"
        for field in ("budget", "max_num_seqs", "block_size"):
            yield f"{name} {field}", getattr(engine, field), 1
        for field in (
            "blocks", "adapters", "adapter_time", "adapter_step", "finetune", "host_time"
        ):  # fmt: skip
            yield f"{name} {field}", getattr(engine, field), 0
        yield f"{name} swap_time", engine.swap_time or 0.0, 0
        if engine.speculation is not None:
            lengths, draft = engine.speculation.lengths, engine.speculation.draft
            yield f"{name} shortest proposal", int(np.min(lengths, initial=0)), 0
            yield f"{name} least draft time", float(np.min(draft, initial=0.0)), 0
            entries = min(len(lengths), len(draft))
            yield f"{name} table of proposals", entries, engine.max_num_seqs + 1
            yield f"{name} acceptance", engine.speculation.acceptance, 0
            yield f"{name} share of rejections", 1 - engine.speculation.acceptance, 0
    yield "the link's latency", cluster.link.latency, 0
    yield "the link's time per token", cluster.link.per_token, 0
    for index, stage in enumerate(cluster.stages):
        yield f"host stage {index}'s servers", stage.servers, 1
        yield f"host stage {index}'s base", stage.base, 0
        yield f"host stage {index}'s time per token", stage.per_token, 0
    for name, rule in (("migration", cluster.migration), ("the scaler", cluster.scaler)):
        if rule is not None:
            yield f"{name}'s interval", rule.interval, tiny
            yield f"{name}'s high", min(rule.high, 1e300), rule.low
    if cluster.scaler is not None:
        yield "the scaler's least", cluster.scaler.least, 0
        yield "the scaler's start_time", cluster.scaler.start_time, 0
    for index, change in enumerate(cluster.changes):
        yield f"the time of change {index}", change.time, 0


def _check_replicas(cluster: Cluster, requests: Requests) -> None:
    for index, replica in enumerate(cluster.replicas):
        engine = replica.engine
        if not 0 <= replica.surface < len(cluster.surfaces):
            raise UsageError(
                f"replica {index} has surface {replica.surface}; there are {len(cluster.surfaces)}"
            )
        if engine.prefix_cache and requests.hash_block % engine.block_size:
            raise UsageError(
                f"replica {index} has blocks of {engine.block_size} tokens, which do not divide "
                f"the requests' blocks of {requests.hash_block}"
            )
        if replica.state not in (State.READY, State.OFF):
            raise UsageError(f"replica {index} begins as {replica.state.name}; ready or off")


def _check_pools(cluster: Cluster, requests: Requests, slos: Sequence[Slo]) -> None:
    asked = {0} if requests.pool is None else {int(pool) for pool in np.unique(requests.pool)}
    for pool in sorted(asked):
        roles = {replica.role for replica in cluster.replicas if replica.pool == pool}
        if not roles & {Role.BOTH, Role.PREFILL}:
            raise UsageError(f"requests ask pool {pool}, which has no replica that takes prompts")
        if Role.PREFILL in roles and not roles & {Role.BOTH, Role.DECODE}:
            raise UsageError(f"pool {pool} computes prompts but has no replica that decodes")
    tenants = 1 if requests.tenant is None else int(np.max(requests.tenant)) + 1
    if tenants > len(slos):
        raise UsageError(f"requests of {tenants} tenants, limits for {len(slos)}")


def _check_changes(cluster: Cluster) -> None:
    for change in cluster.changes:
        if not 0 <= change.replica < len(cluster.replicas):
            raise UsageError(f"a change of replica {change.replica}, which is not there")
        if change.state not in (State.READY, State.DRAINING, State.FAILED):
            raise UsageError(f"a change to {change.state.name}; ready, draining or failed")


def _check_tasks(requests: Requests) -> None:
    """In a closed loop a task that waits for one not yet begun would wait for ever."""
    if requests.after is not None:
        start, ids = requests.after
        task = np.arange(len(requests)) if requests.task is None else requests.task
        follower = np.repeat(np.arange(len(requests)), np.diff(start))
        across = np.flatnonzero(task[follower] != task[ids])
        if len(across):
            one, other = follower[across[0]], ids[across[0]]
            raise UsageError(
                f"request {one} follows request {other} of another task; in a closed loop only "
                "requests of one task follow each other"
            )


def _check_cache(replica: Replica, requests: Requests) -> None:
    engine, size = replica.engine, replica.engine.block_size
    # the last output token is never fed back
    needed = -(-(requests.prompt + requests.output - 1) // size)
    if requests.pool is not None:
        needed = np.where(requests.pool == replica.pool, needed, 0)
    if np.any(needed > engine.blocks):
        worst = int(np.argmax(needed))
        raise InfeasibleError(
            f"request {worst} ({requests.prompt[worst]} + {requests.output[worst]} tokens) needs "
            f"{needed[worst]} cache blocks of {size} tokens, the replica has {engine.blocks}",
            "memory", f"at most {engine.blocks * size} tokens a request, or more GPUs per replica"
        )  # fmt: skip


def _check_reach(cluster: Cluster, index: int, requests: Requests) -> None:
    """Whether the replica's tables cover whatever its steps may hold."""
    replica = cluster.replicas[index]
    surface = cluster.surfaces[replica.surface]
    total = requests.prompt + requests.output - 1
    if requests.pool is not None:
        total = total[requests.pool == replica.pool]
    longest = int(np.max(total, initial=0))
    rows, sequences = reach(replica.engine, longest)
    for what, need, there in (
        ("tokens a sequence", longest, surface.longest),
        ("tokens a step", rows, len(surface.rows) - 1),
        ("sequences a step", sequences, len(surface.sequences) - 1),
    ):
        if need > there:
            raise UsageError(f"replica {index} may have {need} {what}, its surface reaches {there}")


def reach(engine: Engine, longest: int) -> tuple[int, int]:
    """Most tokens and sequences of a step, drafts and fine-tuning tokens included."""
    drafts = engine.speculation
    held = engine.max_num_seqs * (1 if drafts is None else 1 + int(np.max(drafts.lengths)))
    rule = engine.policy
    # a prompt that is not cut comes beside the decodes of a mixed step, whatever the budget
    whole = 0 if rule.chunked and not rule.layered else longest + held * rule.mixed
    return max(engine.budget, held, whole) + FINETUNE_ROWS * engine.finetune, held
