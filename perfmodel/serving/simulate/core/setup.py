"""Laying out the core's state for a run, and making room in it."""

# pyright: basic

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.serving.requests import Counts, Requests, Times
from perfmodel.serving.simulate.core.state import (
    CALL,
    EVENT,
    NEVER,
    REPLICA,
    SURFACE,
    WORLD,
    Asked,
    Graph,
    Out,
    Shared,
)
from perfmodel.serving.simulate.fleet import Cluster
from perfmodel.serving.simulate.fleet import State as Status
from perfmodel.serving.simulate.record import BINS, ITL, Record, Slo, edges
from perfmodel.serving.simulate.surface import linear_pieces

# Requests in flight that there is room for at first. Unused room is not in memory: the system gives
# pages of zeros when they are first written, which is once, while growth copies all there is.
_SLOTS = 1 << 20
_DUE = 3  # entries of a request in the heap of what is due
_NO_COUNTS, _NO_TIMES = np.zeros(0, np.int64), np.zeros(0)
Rows = NDArray[np.void]


class State(NamedTuple):
    """What all functions of the core share."""

    replicas: Rows
    calls: Rows
    surfaces: Rows
    events: Rows
    m: Counts
    x: Times


class _Arena:
    """One array made of many; `put` says where each begins."""

    def __init__(self, dtype: type) -> None:
        self.dtype, self.parts, self.size = dtype, list[NDArray[Any]](), 0

    def put(self, values: Any) -> int:
        part = np.asarray(values, self.dtype).ravel()
        self.parts.append(part)
        self.size += len(part)
        return self.size - len(part)

    def full(self, count: int, value: float = 0) -> int:
        return self.put(np.full(count, value, self.dtype))

    def made(self) -> NDArray[Any]:
        return np.concatenate([*self.parts, np.zeros(1, self.dtype)])


def _column(values: Any, dtype: type = np.int64) -> NDArray[Any]:
    """An array of one and the same type to numba, whatever was given."""
    if values is None:
        return np.zeros(0, dtype)
    return np.require(values, dtype, ["C", "W"])


# --- the requests ---------------------------------------------------------------------------------


def asked_of(requests: Requests, users: int) -> Asked:
    """Columns of the requests, names numbered."""
    level, session, adapter = requests.priority, requests.session, requests.adapter
    if level is not None:
        level = np.unique(level, return_inverse=True)[1]
    if session is not None:
        session = np.unique(session, return_inverse=True)[1]
    if adapter is not None:
        adapter = np.where(adapter < 0, -1, np.unique(adapter, return_inverse=True)[1])
    queue = _NO_COUNTS
    if requests.after is not None and not users:
        queue = np.flatnonzero(np.diff(requests.after[0]) == 0)
    return Asked(
        _column(requests.arrival, np.float64), _column(requests.prompt), _column(requests.output),
        _column(requests.hidden), _column(level), _column(requests.tenant), _column(adapter),
        _column(requests.pool), _column(session), _column(queue),
    )  # fmt: skip


def graph_of(requests: Requests, users: int) -> tuple[Graph, int]:
    """What follows what, and the number of tasks that a closed loop releases."""
    count = len(requests)
    made = dict.fromkeys(Graph._fields, _NO_COUNTS) | {"delay": _NO_TIMES}
    missing = np.zeros(count, np.int64) if users and requests.task is not None else _NO_COUNTS
    if requests.after is not None:
        start, before = requests.after
        missing = np.diff(start)
        follower = np.repeat(np.arange(count), missing)
        order = np.argsort(before, kind="stable")
        made["follower"] = follower[order]
        made["followers"] = _starts(before, count)
        made["missing"] = missing.copy()
        made["delay"] = np.zeros(count) if requests.delay is None else requests.delay
    tasks = count if users else 0
    if len(missing) and users:
        named = np.arange(count) if requests.task is None else requests.task
        _, first, task = np.unique(named, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))  # by first appearance
        task, tasks = rank[task], len(first)
        roots = np.flatnonzero(missing == 0)
        made["task"], made["left"] = task, np.bincount(task, minlength=tasks)
        made["root"] = roots[np.argsort(task[roots], kind="stable")]
        made["root_start"] = _starts(task[roots], tasks)
    return Graph(**{
        name: _column(values, np.float64 if name == "delay" else np.int64)
        for name, values in made.items()
    }), tasks  # fmt: skip


def _starts(values: Counts, count: int) -> Counts:
    """Where the entries of each of ``count`` values begin once they are sorted."""
    return np.concatenate([[0], np.cumsum(np.bincount(values, minlength=count))])


def shared_of(cluster: Cluster, requests: Requests) -> tuple[Shared, tuple[int, int]]:
    """Content and adapters; entries of a replica for content, and kinds of adapters."""
    start, ids, entries, kinds = _NO_COUNTS, _NO_COUNTS, 0, 0
    engines = [replica.engine for replica in cluster.replicas]
    blocks = max((engine.blocks for engine in engines if engine.prefix_cache), default=0)
    if requests.hash_ids is not None and len(requests.hash_ids[1]) and blocks:
        start, ids = requests.hash_ids
        if ids.min() < 0:  # the core's table knows no negative ids
            ids = np.unique(ids, return_inverse=True)[1]
        # at most a third full, but for the moment in which a request comes
        entries = 1 << max((3 * min(blocks, len(ids))).bit_length(), 4)
    if requests.adapter is not None and any(engine.adapters for engine in engines):
        kinds = len(np.unique(requests.adapter))
    links = np.zeros(len(engines) * 3 * (entries + kinds + 2), np.int32)
    for ring in range(len(engines)):  # empty rings of `lists`: the sentinels point to themselves
        base = ring * 3 * (entries + kinds + 2)
        for last, count in (
            (base + 3 * entries, entries), (base + 3 * (entries + 1 + kinds), kinds)
        ):  # fmt: skip
            links[last + 1], links[last + 2] = count + 1, count
    keys, mine = np.zeros(len(engines) * entries, np.int64), np.zeros(len(ids), np.int8)
    return Shared(_column(start), _column(ids), mine, keys, links), (entries, kinds)


def out_of(record: Record) -> Out:
    """Where the times of requests go."""
    return Out(
        record.arrival, record.start, record.first, record.visible, record.last, record.finish,
        record.preempted, record.replica, record.hits, record.log,
    )  # fmt: skip


# --- the cluster ----------------------------------------------------------------------------------


def state_of(
    cluster: Cluster, requests: Requests, users: int, tasks: int, slos: tuple[Slo, ...],
    record: Record, kinds: tuple[int, int],
) -> tuple[Rows, State]:  # fmt: skip
    """The state before the run."""
    m, x = _Arena(np.int64), _Arena(np.float64)
    worlds, replicas = np.zeros(1, WORLD), np.zeros(len(cluster.replicas), REPLICA)
    surfaces = np.zeros(len(cluster.surfaces), SURFACE)
    breaks = [_lay_surface(cluster, index, surfaces, x) for index in range(len(surfaces))]
    steps = [(m.full(record.row_steps.shape[1]), m.full(record.sequence_steps.shape[1]))
             for _ in surfaces]  # fmt: skip
    _set(worlds, 0, _world(cluster, requests, users, tasks, slos, record, kinds, m, x))
    for index in range(len(replicas)):
        fields = _replica(cluster, index, worlds[0], breaks, m, x, kinds)
        fields["at_row_steps"], fields["at_sequence_steps"] = steps[fields["surface"]]
        _set(replicas, index, fields)
    slots = min(len(requests), _SLOTS)
    calls, events = np.zeros(0, CALL), np.zeros(0, EVENT)
    worlds["vacant"] = -1
    state = State(replicas, calls, surfaces, events, m.made(), x.made())
    return worlds, _resized(worlds, state, slots, len(cluster.changes))


def tell_addresses(
    worlds: Rows, state: State, shared: Shared, asked: Asked, graph: Graph, out: Out
) -> None:
    """Let the records know where the arrays are that do not grow."""
    names = ("starts", "ids", "mine", "keys", "links")
    columns = dict(zip(names, shared, strict=True)) | asked._asdict() | graph._asdict()
    columns |= {f"out_{name}": values for name, values in out._asdict().items()}
    columns |= {"m": state.m, "x": state.x, "replicas": state.replicas, "surfaces": state.surfaces}
    for rows in (worlds, state.replicas, state.surfaces):
        for name, values in columns.items():
            if f"p_{name}" in (rows.dtype.names or ()):
                rows[f"p_{name}"] = values.ctypes.data if len(values) else 0
    state.replicas["p_keys"] += 8 * state.replicas["entries"] * np.arange(len(state.replicas))


def grown(worlds: Rows, state: State) -> State:
    """The state with twice the room for requests and events."""
    return _resized(worlds, state, 2 * len(state.calls), len(state.events))


def _resized(worlds: Rows, state: State, slots: int, more: int) -> State:
    world, old = worlds[0], len(state.calls)
    calls = np.zeros(slots, CALL)
    calls[:old] = state.calls
    world["slots"] = slots
    room = 2 * (slots + int(world["reserve"]) + 4 * len(state.replicas) + 8) + more
    events = np.zeros(room, EVENT)
    events[: len(state.events)] = state.events
    world["room"], world["p_events"] = room - 1, events.ctypes.data
    world["p_calls"] = calls.ctypes.data
    state.replicas["p_calls"] = calls.ctypes.data
    return state._replace(calls=calls, events=events)


def _set(rows: Rows, index: int, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        rows[name][index] = value


def _lay_surface(cluster: Cluster, index: int, rows: Rows, x: _Arena) -> Counts:
    """Tables of a surface; where its linear pieces begin."""
    surface = cluster.surfaces[index]
    breaks = linear_pieces(surface.decode)
    ends = [*breaks[1:].tolist(), len(surface.decode) - 1]
    lines = list[tuple[float, float]]()
    for low, end in zip(breaks.tolist(), ends, strict=False):
        high = max(end - 1, low)
        begin, last = float(surface.decode[low]), float(surface.decode[high])
        slope = (last - begin) / (high - low) if high > low else 0.0
        lines.append((begin - slope * low, slope))
    _set(rows, index, {
        "at_rows": x.put(surface.rows), "at_sequences": x.put(surface.sequences),
        "at_decode": x.put(surface.decode), "at_work": x.put(surface.work),
        "at_reads": x.put(surface.reads), "at_writes": x.put(surface.writes),
        "at_planes": x.put(surface.planes), "at_pieces": x.put(lines),
        "longest": surface.longest, "kernels": len(surface.writes),
        "planes": len(surface.planes), "pieces": len(breaks), "linear": surface.linear,
        "overhead": surface.overhead, "decode_launch": surface.decode_launch,
        "prefill_launch": surface.prefill_launch,
    })  # fmt: skip
    return breaks


def _world(
    cluster: Cluster, requests: Requests, users: int, tasks: int, slos: tuple[Slo, ...],
    record: Record, kinds: tuple[int, int], m: _Arena, x: _Arena,
) -> dict[str, Any]:  # fmt: skip
    count, replicas, tenants = len(requests), len(cluster.replicas), len(slos)
    before = [stage for stage in cluster.stages if not stage.after]
    after = [stage for stage in cluster.stages if stage.after]
    stages = before + after
    sums = [[0.0] * ITL + [slo.ttft, slo.tpot, slo.e2el, slo.visible] for slo in slos]
    sessions = 0 if requests.session is None else len(np.unique(requests.session))
    levels = 1 if requests.priority is None else len(np.unique(requests.priority))
    queued, reserve = (0 if users else count), min(users, count)
    if requests.after is not None:
        reserve = count
        queued = 0 if users else int(np.sum(np.diff(requests.after[0]) == 0))
    elif users and requests.task is not None:
        reserve = count
    made = {
        "count": count, "replicas": replicas, "levels": levels, "tenants": tenants,
        "hash_block": requests.hash_block, "users": users, "tasks": tasks,
        "keep": len(record.arrival) > 0, "log": len(record.log), "pools": cluster.pools,
        "routing": cluster.routing, "decode_routing": cluster.decode_routing,
        "sessions": sessions, "seed": cluster.seed,
        "before": len(before), "after": len(after), "histogram": (ITL + 1) * BINS,
        "at_due": m.full(replicas, NEVER), "at_dirty": m.full(replicas),
        "at_ready": m.full(replicas), "at_picked": m.full(2 * replicas),
        "at_turns": m.full(2 * cluster.pools), "at_homes": m.full(2 * sessions, -1),
        "at_histogram": m.full(tenants * (ITL + 1) * BINS), "at_tenants": m.full(3 * tenants),
        "at_edges": x.put(edges()), "at_freeness": x.full(replicas), "at_sums": x.put(sums),
        "at_stages": x.put([(stage.base, stage.per_token) for stage in stages]),
        "at_servers": m.put([(x.full(stage.servers), stage.servers) for stage in stages]),
        "unfinished": count, "stranded": -1, "queued": queued, "reserve": reserve,
        "latency": cluster.link.latency, "per_token": cluster.link.per_token,
    }  # fmt: skip
    if cluster.migration is not None:
        rule = cluster.migration
        made |= {"migrates": 1, "interval": rule.interval, "low": rule.low, "high": rule.high}
    if cluster.scaler is not None:
        rule = cluster.scaler
        made |= {
            "scales": 1, "scale_interval": rule.interval, "scale_low": rule.low,
            "scale_high": rule.high, "least": rule.least, "start_time": rule.start_time,
        }  # fmt: skip
    return made


def _replica(
    cluster: Cluster, index: int, world: Any, breaks: list[Counts], m: _Arena, x: _Arena,
    kinds: tuple[int, int],
) -> dict[str, Any]:  # fmt: skip
    spec = cluster.replicas[index]
    engine, policy, seqs = spec.engine, spec.engine.policy, spec.engine.max_num_seqs
    levels, tenants, pieces = int(world["levels"]), int(world["tenants"]), breaks[spec.surface]
    rings = 3 * (kinds[0] + 1), 3 * (kinds[1] + 1)
    made = {
        "index": index, "surface": spec.surface, "pool": spec.pool, "role": spec.role,
        "budget": engine.budget, "max_num_seqs": seqs, "block_size": engine.block_size,
        "blocks": engine.blocks, "free": engine.blocks, "reserve": engine.reserve,
        "mixed": policy.mixed, "chunked": policy.chunked, "refill": policy.refill,
        "layered": policy.layered, "shared": engine.prefix_cache and kinds[0] > 0,
        "span": int(world["hash_block"]) // engine.block_size,
        "swap": engine.swap_time is not None, "swap_time": engine.swap_time or 0.0,
        "adapters": engine.adapters if kinds[1] else 0, "kinds": kinds[1],
        "adapter_time": engine.adapter_time, "adapter_step": engine.adapter_step,
        "finetune": engine.finetune, "host_time": engine.host_time, "price": spec.price,
        "foresight": policy.foresight, "shift": int(world["count"]).bit_length() + 1,
        "at_phases": m.full(engine.block_size), "at_heap": m.full(2 * (_DUE * seqs + 1)),
        "at_late": m.full(seqs), "at_chunks": m.full(2 * seqs),
        "at_heads": m.full(levels, -1), "at_tails": m.full(levels, -1),
        "at_tenants": m.full(tenants), "at_pieces": m.full(2 * len(pieces)),
        "at_breaks": m.put(pieces), "pieces": len(pieces),
        "entries": kinds[0], "at_links": index * sum(rings),
        "at_adapters": index * sum(rings) + rings[0],
        "state": spec.state, "on_since": math.nan if spec.state == Status.OFF else 0.0,
        "sync": -1.0,
    }  # fmt: skip
    made |= dict.fromkeys(("moving", "sending", "landed", "head", "tail", "partial"), -1)
    if engine.speculation is not None:
        rule = engine.speculation
        made |= {
            "speculates": 1, "seed": rule.seed, "acceptance": rule.acceptance, "pieces": 0,
            "at_lengths": m.put(rule.lengths), "at_draft": x.put(rule.draft),
        }  # fmt: skip
    return made
