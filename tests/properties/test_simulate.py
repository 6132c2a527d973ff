"""The compiled core equals the plain twin, and both conserve tokens, blocks and requests."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.core.errors import InfeasibleError
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate import POLICIES, Cluster, Engine, Simulation, Slo, has_core, serve
from perfmodel.serving.simulate.fleet import (
    Change,
    HostStage,
    Link,
    Migration,
    Replica,
    Role,
    Routing,
    Scaler,
    State,
)
from perfmodel.serving.simulate.policy import Speculation
from tests.unit.serving.simulation import requests, surface

DENSE, WINDOWED = "meta-llama/Llama-3.1-8B", "openai/gpt-oss-120b"
MODELS = pytest.mark.parametrize("model", [DENSE, WINDOWED])  # full attention, windows of 128
CORE = pytest.mark.skipif(not has_core(), reason="numba is not installed")
SLO = Slo(ttft=0.05, tpot=0.01, e2el=1.0)

Case = tuple[Cluster, Requests, int | None]


@st.composite
def workloads(draw: Any, count: int = 40, block: int = 1) -> Requests:
    """Requests with bursts and ties, and whatever columns there are; block: of equal content."""
    count = draw(st.integers(1, count))
    lengths = st.integers(1, draw(st.sampled_from([4, 60, 700])))
    answers = st.integers(1, draw(st.sampled_from([2, 40, 250])))
    gaps = st.sampled_from([0.0, 0.0, 1e-3, 0.011, 0.3]).flatmap(
        lambda mean: st.floats(0.0, 2 * mean)
    )
    column = lambda values: draw(st.lists(values, min_size=count, max_size=count))  # noqa: E731
    made = requests(np.cumsum(column(gaps)), column(lengths), column(answers))
    columns: dict[str, Any] = {}
    for name, least, most in (
        ("priority", -1, 1), ("tenant", 0, 1), ("session", 0, 4), ("adapter", -1, 5),
    ):  # fmt: skip
        if draw(st.booleans()):
            columns[name] = np.array(column(st.integers(least, most)))
    if draw(st.booleans()):
        share = np.array(column(st.sampled_from([0.0, 0.5, 1.0])))
        columns["hidden"] = (share * (made.output - 1)).astype(np.int64)
    if draw(st.booleans()):  # prompts begin as one of three do, for a while
        pieces = -(-made.prompt // block)
        alike, own = column(st.integers(0, 2)), column(st.integers(0, 12))
        ids = [
            [100 * alike[i] + j if j < own[i] else 10_000 + 1000 * i + j for j in range(pieces[i])]
            for i in range(count)
        ]
        start = np.concatenate([[0], np.cumsum(pieces)])
        columns |= {"hash_ids": (start, np.concatenate(ids)), "hash_block": block}
    if draw(st.booleans()):
        task = columns["task"] = np.sort(column(st.integers(0, 5)))
        first = np.searchsorted(task, task).tolist()
        before = [
            sorted(draw(st.sets(st.integers(first[i], i - 1), max_size=2))) if i > first[i] else []
            for i in range(count)
        ]
        start = np.cumsum([0, *map(len, before)])
        ids = np.array([j for row in before for j in row], dtype=np.int64)
        columns["after"] = (start, ids)
        columns["delay"] = np.array(column(st.sampled_from([0.0, 0.01])))
    return replace(made, **columns)


@st.composite
def engines(draw: Any, asked: Requests, size: int, *, plain: bool = False) -> Engine:
    """Limits that are often too small."""
    needed = int(np.max(-(-(asked.prompt + asked.output - 1) // size)))
    seqs = draw(st.integers(1, 20))
    engine = Engine(
        policy=POLICIES[draw(st.sampled_from(sorted(POLICIES)))],
        budget=draw(st.integers(20, 2000)),
        max_num_seqs=seqs,
        block_size=size,
        blocks=needed + draw(st.integers(0, 3 * needed)),
    )
    if plain:
        return engine
    rare = st.integers(0, 2).map(lambda number: number == 0)
    if draw(rare):
        lengths = np.array([0, *(draw(st.integers(0, 4)) for _ in range(seqs))])
        engine = replace(engine, speculation=Speculation(
            draw(st.sampled_from([0.0, 0.6, 1.0])), lengths, np.full(seqs + 1, 1e-4), 3,
        ))  # fmt: skip
    return replace(
        engine,
        prefix_cache=asked.hash_ids is not None and draw(st.booleans()),
        swap_time=draw(st.sampled_from([None, 1e-4])),
        adapters=draw(st.sampled_from([0, 1, 3])), adapter_time=0.003, adapter_step=1e-5,
        finetune=100 if draw(rare) else 0,
        host_time=draw(st.sampled_from([0.0, 0.0, 1e-3, 0.004])),
    )  # fmt: skip


@st.composite
def engine_cases(draw: Any, model: str) -> Case:
    """One replica."""
    size = draw(st.integers(1, 37))
    block = size * draw(st.integers(1, 4))
    asked = draw(workloads(block=block))
    engine = draw(engines(asked, size))
    return (
        Cluster((surface(model),), (Replica(engine),)),
        asked,
        draw(st.none() | st.integers(1, 12)),
    )


@st.composite
def cluster_cases(draw: Any) -> Case:
    """Up to four unlike replicas, all routings, roles, moves and changes."""
    size = draw(st.integers(1, 20))
    asked = draw(workloads(count=50, block=2 * size))
    several = draw(st.integers(1, 4))
    roles = [Role.BOTH] * several
    if several > 1 and draw(st.booleans()):
        others = st.lists(st.sampled_from(list(Role)), min_size=several - 2, max_size=several - 2)
        roles = [Role.PREFILL, Role.DECODE, *draw(others)]
    replicas = tuple(
        Replica(
            draw(engines(asked, size)), surface=draw(st.integers(0, 1)), role=role,
            price=draw(st.sampled_from([1.0, 2.0])),
            state=draw(st.sampled_from([State.READY, State.READY, State.OFF])),
        )
        for role in roles
    )  # fmt: skip
    changes = [Change(0.0, index, State.READY) for index in range(several)]
    for _ in range(draw(st.integers(0, 4))):
        index, begin = draw(st.integers(0, several - 1)), draw(st.floats(0.0, 2.0))
        what = draw(st.sampled_from([State.FAILED, State.DRAINING]))
        changes += [Change(begin, index, what), Change(begin + 0.5, index, State.READY)]
    migration = scaler = None
    if draw(st.booleans()):
        low = draw(st.sampled_from([0.5, 5.0, 30.0]))
        migration = Migration(draw(st.sampled_from([0.002, 0.05])), low, low)
    if draw(st.booleans()):
        scaler = Scaler(draw(st.sampled_from([0.01, 0.2])), 1.0, 3.0, 1, 0.05)
    stages = draw(st.sampled_from([
        (), (HostStage(1, 0.001, 1e-6),),
        (HostStage(2, 0.004), HostStage(1, 0.0, 1e-5), HostStage(1, 0.002, after=True)),
    ]))  # fmt: skip
    cluster = Cluster(
        (surface(DENSE), surface(WINDOWED)), replicas,
        routing=draw(st.sampled_from(list(Routing))),
        decode_routing=draw(st.sampled_from(list(Routing))),
        link=Link(draw(st.sampled_from([0.0, 1e-3])), 1e-6),
        migration=migration, scaler=scaler, changes=tuple(changes), stages=stages, seed=7,
    )  # fmt: skip
    return cluster, asked, draw(st.none() | st.none() | st.integers(1, 12))


def run(case: Case, compiled: bool, **keywords: Any) -> Simulation:
    cluster, asked, users = case
    return serve(
        cluster, asked, max_concurrency=users, slos=(SLO, Slo()), compiled=compiled, **keywords
    )


def check_invariants(case: Case, made: Simulation) -> None:
    cluster, asked, _ = case
    record, counts = made.record, made.record.counts
    # everybody is served, in the order of events
    assert np.all(record.arrival <= record.start)
    assert np.all(record.start < record.first)
    assert np.all(record.first <= record.visible)
    assert np.all(record.visible <= record.last)
    assert np.all(record.last <= record.finish)
    assert np.all((record.first == record.last) == (asked.output == 1))
    assert record.makespan == pytest.approx(record.finish.max(), abs=1e-12)
    # tokens: each prompt token and each output token but the last is computed or found in the
    # cache, once if no cache was lost; the first output token comes with the prompt
    fed = int((asked.prompt + asked.output - 1).sum())
    spent = int((record.prompt_tokens + record.decode_tokens).sum()) + counts["hit_tokens"]
    lost = int(record.preemptions.sum())
    again = lost + counts["retries"]
    assert spent == fed if not again else spent >= fed
    assert record.decode_tokens.sum() <= int((asked.output - 1).sum())
    assert record.decode_tokens.sum() >= int((asked.output - 1).sum()) - again
    # every output token but a request's first ends one inter-token latency
    assert record.histogram[:, -1].sum() == int((asked.output - 1).sum())
    for row, name in enumerate(("ttft", "tpot", "e2el")):
        observed = record.several if name == "tpot" else record.finished
        np.testing.assert_array_equal(record.histogram[:, row].sum(axis=1), observed)
    assert record.preempted.sum() == lost
    # blocks, places, Little's law for the running requests
    seqs = np.array([replica.engine.max_num_seqs for replica in cluster.replicas])
    blocks = np.array([replica.engine.blocks for replica in cluster.replicas])
    assert np.all(record.peak_blocks <= blocks)
    residence = float((record.last - record.start).sum())
    if len(seqs) == 1 and not again:
        assert record.running_time.sum() == pytest.approx(residence, abs=1e-9)
    else:  # waits after a preemption or for a cache are not in it
        assert record.running_time.sum() <= residence + 1e-9
    assert np.all(record.running_time <= seqs * record.busy + 1e-9)
    assert np.all(record.busy <= record.makespan + 1e-12)
    assert np.all(record.block_time <= blocks * record.busy + 1e-9)


def check_equal(core: Simulation, twin: Simulation) -> None:
    a, b = core.record, twin.record
    for name in ("arrival", "start", "first", "visible", "last", "finish"):
        difference = np.abs(getattr(a, name) - getattr(b, name))
        assert difference.max() < 1e-9, name
    for name in (
        "steps", "prompt_tokens", "decode_tokens", "preemptions", "good", "finished", "several",
        "peak_blocks", "preempted", "replica", "hits", "row_steps", "sequence_steps", "launches",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in (
        "makespan", "busy", "block_time", "running_time", "on_time", "attention", "sums",
    ):  # fmt: skip
        np.testing.assert_allclose(
            getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-8, err_msg=name
        )
    assert a.counts == b.counts
    # a latency on the edge of a bin may fall on either side
    moved = np.abs(np.cumsum(a.histogram - b.histogram, axis=-1)).sum()
    assert moved <= 2 + 1e-3 * b.histogram.sum()


def check(case: Case) -> None:
    try:
        twin = run(case, compiled=False)
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            run(case, compiled=True)
        return
    check_equal(run(case, compiled=True), twin)


@MODELS
@given(data=st.data())
@settings(max_examples=60)
def test_the_twin_conserves(model, data):
    case = data.draw(engine_cases(model))
    made = run(case, compiled=False)
    check_invariants(case, made)
    _, asked, users = case
    if users and asked.task is None and asked.after is None:
        events = [(t, 1) for t in made.record.arrival] + [(t, -1) for t in made.record.finish]
        inside = np.cumsum([change for _, change in sorted(events)])
        assert inside.max() <= min(users, len(asked))


@CORE
@MODELS
@given(data=st.data())
def test_the_core_is_the_twin(model, data):
    case = data.draw(engine_cases(model))
    check(case)
    check_invariants(case, run(case, compiled=True))


@CORE
@given(cluster_cases())
def test_the_core_is_the_twin_in_clusters(case):
    check(case)
