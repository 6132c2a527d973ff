"""The simulator compiled by numba: the twin's rules, with stretches of decode steps jumped at once.

`state` says how the state lies in memory, `setup` lays it out, `loop` is the loop over events.
`step` begins a step, `stretch` lets it be many, `finish` ends it; `batch`, `blocks`, `lists`,
`numbers` and `events` are what they are made of; `routes` and `moves` are the cluster's part.
"""

from __future__ import annotations

import numpy as np

from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.core.loop import begin, serve
from perfmodel.serving.simulate.core.setup import (
    State,
    asked_of,
    graph_of,
    grown,
    out_of,
    shared_of,
    state_of,
    tell_addresses,
)
from perfmodel.serving.simulate.core.state import DONE
from perfmodel.serving.simulate.fleet import Cluster
from perfmodel.serving.simulate.record import ITL, Record, Slo

__all__ = ["run"]


def run(
    cluster: Cluster, requests: Requests, users: int, slos: tuple[Slo, ...], record: Record
) -> None:
    """Serve all requests and fill ``record``; see `perfmodel.serving.simulate.twin.run`."""
    shared, kinds = shared_of(cluster, requests)
    graph, tasks = graph_of(requests, users)
    asked = asked_of(requests, users)
    worlds, state = state_of(cluster, requests, users, tasks, slos, record, kinds)
    tell_addresses(worlds, state, shared, asked, graph, out_of(record))
    begin(
        worlds,
        np.array([change.time for change in cluster.changes], np.float64),
        np.array([change.replica for change in cluster.changes], np.int64),
        np.array([change.state for change in cluster.changes], np.int64),
    )  # fmt: skip
    while serve(worlds) != DONE:
        state = grown(worlds, state)
    _fill(record, worlds, state)


def _fill(record: Record, worlds: np.ndarray, state: State) -> None:
    """Copy what has been counted."""
    world, replicas, m, x = worlds[0], state.replicas, state.m, state.x
    tenants = len(record.finished)

    def taken(at: int, like: np.ndarray) -> np.ndarray:
        return m[at : at + like.size].reshape(like.shape)

    record.histogram[:] = taken(int(world["at_histogram"]), record.histogram)
    found = m[int(world["at_tenants"]) :][: 3 * tenants].reshape(tenants, 3)
    record.finished[:], record.good[:], record.several[:] = found.T
    record.sums[:] = x[int(world["at_sums"]) :][: 9 * tenants].reshape(tenants, 9)[:, :ITL]
    for name in (
        "busy", "block_time", "running_time", "prompt_tokens", "decode_tokens", "preemptions",
        "peak_blocks",
    ):  # fmt: skip
        getattr(record, name)[:] = replicas[name]
    record.steps[:] = replicas["all_steps"]
    record.makespan = float(world["makespan"])
    on_since = replicas["on_since"]
    still_on = np.where(np.isnan(on_since), 0.0, record.makespan - on_since)
    record.on_time[:] = replicas["on_time"] + still_on
    for index in range(len(state.surfaces)):
        mine = replicas[replicas["surface"] == index]
        if len(mine):
            record.row_steps[index] = taken(int(mine["at_row_steps"][0]), record.row_steps[index])
            record.sequence_steps[index] = taken(
                int(mine["at_sequence_steps"][0]), record.sequence_steps[index]
            )
        for column, kind in enumerate(("decode", "prefill")):
            record.attention[index, column] = mine[f"{kind}_attention"].sum()
        for column, kind in enumerate(("decode", "prompt")):
            record.launches[index, column] = mine[f"{kind}_launches"].sum()
    for name in record.counts:
        if name in (world.dtype.names or ()):
            record.counts[name] = int(world[name])
    record.counts["evicted_blocks"] = int(replicas["evicted"].sum())
    record.counts["adapter_loads"] = int(replicas["adapter_loads"].sum())
    record.logged = int(world["logged"])
