"""The compiled core equals the plain twin, and both conserve tokens, blocks and requests."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate import POLICIES, Engine, Simulation, Slo, has_core, replay
from tests.unit.serving.simulation import requests, surface

MODELS = pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "openai/gpt-oss-120b"])

SLO = Slo(ttft=0.05, tpot=0.01, e2el=1.0)


@st.composite
def workloads(draw: Any) -> tuple[Requests, Engine, int | None]:
    """Requests with bursts, a cache that is often too small, odd blocks, small budgets."""
    count = draw(st.integers(1, 40))
    lengths = st.integers(1, draw(st.sampled_from([4, 60, 700])))
    answers = st.integers(1, draw(st.sampled_from([2, 40, 250])))
    gaps = st.sampled_from([0.0, 0.0, 1e-3, 0.011, 0.3]).flatmap(
        lambda mean: st.floats(0.0, 2 * mean)
    )
    column = lambda values: draw(st.lists(values, min_size=count, max_size=count))  # noqa: E731
    asked = requests(np.cumsum(column(gaps)), column(lengths), column(answers))
    size = draw(st.integers(1, 37))
    needed = int(np.max(-(-(asked.prompt + asked.output - 1) // size)))
    engine = Engine(
        policy=POLICIES[draw(st.sampled_from(sorted(POLICIES)))],
        budget=draw(st.integers(20, 2000)),
        max_num_seqs=draw(st.integers(1, 20)),
        block_size=size,
        blocks=needed + draw(st.integers(0, 3 * needed)),
    )
    return asked, engine, draw(st.none() | st.integers(1, 12))


def check_invariants(asked: Requests, engine: Engine, made: Simulation) -> None:
    record = made.record
    # everybody is served, in the order of events
    assert np.all(record.arrival <= record.start)
    assert np.all(record.start < record.first)
    assert np.all(record.first <= record.finish)
    assert np.all((record.first == record.finish) == (asked.output == 1))
    assert record.makespan == pytest.approx(record.finish.max(), abs=1e-12)
    # tokens: each prompt token and each output token but the last is computed, once if no cache
    # was lost; the first output token comes with the prompt
    fed = int((asked.prompt + asked.output - 1).sum())
    spent = record.prompt_tokens + record.decode_tokens
    assert spent == fed if record.preemptions == 0 else spent > fed
    again = record.preemptions
    assert record.decode_tokens <= int((asked.output - 1).sum())
    assert record.decode_tokens >= int((asked.output - 1).sum()) - again
    # every output token but a request's first ends one inter-token latency
    assert record.histogram[-1].sum() == int((asked.output - 1).sum())
    assert record.preempted.sum() == record.preemptions
    # blocks, places, Little's law for the running requests
    assert 0 < record.peak_blocks <= engine.blocks
    residence = float((record.finish - record.start).sum())
    if record.preemptions:
        assert record.running_time < residence  # the waits after a preemption are not in it
    else:
        assert record.running_time == pytest.approx(residence, abs=1e-9)
    assert record.running_time <= engine.max_num_seqs * record.busy + 1e-9
    assert record.busy <= record.makespan + 1e-12
    assert record.block_time <= engine.blocks * record.busy + 1e-9


@MODELS
@given(workloads())
def test_the_twin_conserves(model, case):
    asked, engine, users = case
    made = replay(surface(model), engine, asked, max_concurrency=users, slo=SLO, compiled=False)
    check_invariants(asked, engine, made)
    if users:
        events = [(t, 1) for t in made.record.arrival] + [(t, -1) for t in made.record.finish]
        inside = np.cumsum([change for _, change in sorted(events)])
        assert inside.max() <= min(users, len(asked))


@pytest.mark.skipif(not has_core(), reason="numba is not installed")
@MODELS  # full attention, and windows of 128
@given(workloads())
def test_the_core_is_the_twin(model, case):
    asked, engine, users = case
    core, twin = (
        replay(surface(model), engine, asked, max_concurrency=users, slo=SLO, compiled=compiled)
        for compiled in (True, False)
    )
    check_invariants(asked, engine, core)
    for name in ("arrival", "start", "first", "finish"):
        difference = np.abs(getattr(core.record, name) - getattr(twin.record, name))
        assert difference.max() < 1e-9, name
    for name in ("steps", "prompt_tokens", "decode_tokens", "preemptions", "good", "peak_blocks"):
        assert getattr(core.record, name) == getattr(twin.record, name), name
    for name in ("makespan", "busy", "running_time"):
        assert getattr(core.record, name) == pytest.approx(getattr(twin.record, name), abs=1e-9)
    np.testing.assert_array_equal(core.record.preempted, twin.record.preempted)
    np.testing.assert_allclose(core.record.sums, twin.record.sums, atol=1e-9)
    # a latency on the edge of a bin may fall on either side
    moved = np.abs(np.cumsum(core.record.histogram[-1] - twin.record.histogram[-1])).sum()
    assert moved <= 2 + 1e-3 * twin.record.histogram[-1].sum()
    # blocks in use: trapezoids over stretches of steps, off by less than a block per request
    assert abs(core.record.block_time - twin.record.block_time) <= twin.record.running_time
