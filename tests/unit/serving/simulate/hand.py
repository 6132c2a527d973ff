"""Surfaces, engines and requests small enough for schedules on paper, and laws every run obeys."""

import dataclasses
import importlib.util
from collections import Counter
from typing import Any

import numpy as np
import pytest

from perfmodel.serving import simulate as room
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate import (
    POLICIES,
    Cluster,
    Engine,
    Replica,
    Simulation,
    Surface,
    serve,
)
from perfmodel.serving.simulate.record import ITL, bin_of
from tests.unit.serving import simulation

REACH = 4096


def _compiled() -> bool:
    """Whether numba is there and the core is the package that runs clusters."""
    found = importlib.util.find_spec("perfmodel.serving.simulate.core")
    package = found and found.origin and found.submodule_search_locations
    return room.has_core() and bool(package)


BOTH = pytest.mark.parametrize(
    "compiled",
    [
        pytest.param(False, id="twin"),
        pytest.param(
            True,
            id="core",
            marks=pytest.mark.skipif(not _compiled(), reason="no numba, or no core for clusters"),
        ),
    ],
)


def flat(
    step: float = 0.0,
    *,
    row: float = 0.0,
    sequence: float = 0.0,
    context: float = 0.0,
    pair: float = 0.0,
    longest: int = REACH,
) -> Surface:
    """A surface of few numbers [s].

    Per step, per token, per sequence, per token of a decode's context, and per pair of a prompt's
    token with itself or one before it.
    """
    counts, contexts = np.arange(2.0 * REACH), np.arange(longest + 2.0)
    tokens = np.arange(longest + 1.0)
    return Surface(
        overhead=step,
        rows=row * counts,
        sequences=sequence * counts,
        decode=context * contexts,
        linear=True,
        decode_launch=0.0,
        prefill_launch=0.0,
        work=(pair * tokens * (tokens + 1) / 2)[None],
        reads=np.zeros((1, longest + 1)),
        writes=np.zeros(1),
        planes=np.zeros((0, 2, 4)),
    )


def engine(policy: str = "vllm-v1", **changes: Any) -> Engine:
    """Budget 512, 8 sequences, 1,000 blocks of 16 tokens."""
    return dataclasses.replace(Engine(POLICIES[policy], 512, 8, 16, 1000), **changes)


def ask(arrival: Any, prompt: Any, output: Any, **columns: Any) -> Requests:
    """Requests from lists, single numbers holding for all; ``after``, ``hash_ids``: list of lists.

    ``hash_block`` is 16 unless given.
    """
    made = simulation.requests(arrival, prompt, output)
    columns.setdefault("hash_block", 16)
    for name, value in columns.items():
        if name in ("after", "hash_ids"):
            flat_ids = np.array([x for row in value for x in row], dtype=np.int64)
            columns[name] = (np.cumsum([0, *map(len, value)]), flat_ids)
        elif name != "hash_block":
            like = np.float64 if name == "delay" else np.int64
            columns[name] = np.broadcast_to(np.asarray(value, like), len(made)).copy()
    return dataclasses.replace(made, **columns)


def alone(table: Surface, limits: Engine, **rules: Any) -> Cluster:
    """One replica."""
    return Cluster((table,), (Replica(limits),), **rules)


def fleet(table: Surface, count: int, limits: Engine | None = None, **rules: Any) -> Cluster:
    """Equal replicas."""
    return Cluster((table,), (Replica(limits or engine()),) * count, **rules)


def run(cluster: Cluster, asked: Requests, **rules: Any) -> Simulation:
    """Serve, and check what holds of every run."""
    made = serve(cluster, asked, **rules)
    obeys(made)
    return made


def ends(table: Surface, *steps: Any, at: float = 0.0) -> list[float]:
    """When steps end that follow each other; a step is (contexts, chunks) or contexts."""
    times = [table.time(*(step if isinstance(step, tuple) else (step,))) for step in steps]
    return (at + np.cumsum(times)).tolist()


def gaps(made: Simulation, tenant: int = 0) -> dict[int, int]:
    """Bins of the gaps between tokens, and how many are in each."""
    counts = made.record.histogram[tenant, ITL]
    return {int(place): int(counts[place]) for place in np.flatnonzero(counts)}


def bins(*times: float) -> dict[int, int]:
    """The same of times in seconds."""
    return dict(Counter(map(bin_of, times)))


def obeys(made: Simulation) -> None:
    """Conservation of requests, tokens and blocks; the order of a request's times."""
    record, asked, cluster = made.record, made.requests, made.cluster
    output = asked.output
    assert record.finished.sum() == len(asked)
    assert record.several.sum() == (output > 1).sum()
    assert record.histogram[:, ITL].sum() == (output - 1).sum()
    # a token comes from a decode or ends a prompt, which each request does at least once
    prompts_ended = int(output.sum() - record.decode_tokens.sum())
    lost = int(record.preemptions.sum()) + record.counts["retries"]
    assert len(asked) <= prompts_ended <= len(asked) + lost
    fed = int(record.prompt_tokens.sum()) + record.counts["hit_tokens"]
    assert fed == asked.prompt.sum() if not lost else fed >= asked.prompt.sum()
    assert record.row_steps.sum() == record.sequence_steps.sum() == record.steps.sum()
    blocks = np.array([replica.engine.blocks for replica in cluster.replicas])
    seqs = np.array([replica.engine.max_num_seqs for replica in cluster.replicas])
    slack = 1 + 1e-9
    assert (record.peak_blocks <= blocks).all()
    assert (record.block_time <= record.busy * record.peak_blocks * slack).all()
    assert (record.running_time <= record.busy * seqs * slack).all()
    assert (record.on_time <= record.makespan * slack).all()
    if made.kept:
        times = [record.arrival, record.start, record.first, record.visible, record.last]
        for before, after in zip(times, [*times[1:], record.finish], strict=True):
            assert (before <= after).all()
        assert record.makespan == record.finish.max()
        assert record.preempted.sum() == record.preemptions.sum()
