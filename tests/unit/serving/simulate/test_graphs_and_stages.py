"""Requests that follow others, closed loops of tasks, and the host's queues before and after."""

import dataclasses
import heapq

import numpy as np
import pytest

from perfmodel.serving.simulate.fleet import HostStage
from tests.unit.serving.simulate.hand import BOTH, alone, ask, ends, engine, flat, run
from tests.unit.serving.simulation import poisson, surface

# --- what follows what ----------------------------------------------------------------------------


@BOTH
def test_a_request_is_ready_when_all_before_it_are_done(compiled):
    """A fork and a join: 1 and 2 after 0, 3 after both, after a delay each; 4 on its own."""
    asked = ask(
        [0.5, 0.5, 0.5, 0.5, 30.0], 10, [2, 3, 7, 2, 1],
        after=[[], [0], [0], [1, 2], []], delay=[9.0, 0.25, 0.0, 1.5, 9.0],
    )  # fmt: skip
    made = run(alone(flat(1.0), engine()), asked, compiled=compiled)
    # 0: 0.5-2.5; 2: 2.5-9.5; 1 is ready at 2.75, starts at 3.5, ends at 6.5; 3: from 9.5 + 1.5
    assert made.record.arrival.tolist() == [0.5, 2.75, 2.5, 11.0, 30.0]
    assert made.record.finish.tolist() == [2.5, 6.5, 9.5, 13.0, 31.0]
    assert made.ttft.tolist() == [1.0, 1.75, 1.0, 1.0, 1.0]


@BOTH
def test_followers_on_a_real_surface(compiled):
    table = surface()
    asked = ask([0.0, 0.0], [100, 150], [3, 2], after=[[], [0]], delay=0.125)
    made = run(alone(table, engine()), asked, compiled=compiled)
    first = ends(table, ([], [(100, 0)]), [101], [102])
    second = ends(table, ([], [(150, 0)]), [151], at=first[-1] + 0.125)
    np.testing.assert_allclose(made.record.finish, [first[-1], second[-1]], rtol=1e-12)
    assert made.record.arrival[1] == pytest.approx(first[-1] + 0.125, rel=1e-12)


@BOTH
def test_tasks_of_a_closed_loop(compiled):
    """Two at a time; each of two requests, the second half a second after the first."""
    asked = ask(
        np.zeros(8), 10, [2, 2, 4, 2, 1, 1, 1, 1], task=[0, 0, 1, 1, 2, 2, 3, 3],
        after=[[], [0], [], [2], [], [4], [], [6]], delay=0.5,
    )  # fmt: skip
    made = run(alone(flat(1.0), engine()), asked, max_concurrency=2, compiled=compiled)
    finish, arrival = made.record.finish, made.record.arrival
    assert arrival[[0, 2]].tolist() == [0, 0]
    np.testing.assert_allclose(arrival[1::2], finish[::2] + 0.5)
    # tasks 0 and 1 end after each other; each lets one in
    assert arrival[[4, 6]].tolist() == np.sort(finish[[1, 3]]).tolist()


@BOTH
def test_a_closed_loop_keeps_so_many_under_way(compiled):
    rng = np.random.default_rng(0)
    asked = ask(np.zeros(100), rng.integers(1, 100, 100), rng.integers(1, 40, 100))
    made = run(alone(flat(0.01), engine()), asked, max_concurrency=5, compiled=compiled)
    assert made.record.arrival[:5].tolist() == [0] * 5
    # each of the others comes when one is done
    np.testing.assert_array_equal(made.record.arrival[5:], np.sort(made.record.finish)[:95])


@BOTH
def test_open_tasks_come_by_the_clock(compiled):
    """Tasks do not hold each other up without a limit on how many are under way."""
    asked = ask([0.0, 0.0, 1.0, 1.0], 10, 3, task=[0, 0, 1, 1], after=[[], [0], [], [2]])
    made = run(alone(flat(1.0), engine()), asked, compiled=compiled)
    assert made.record.arrival.tolist() == [0, 3, 1, 4]


# --- host stages ----------------------------------------------------------------------------------


def stations(arrivals, prompts, stage: HostStage) -> np.ndarray:
    """When requests leave a first-come-first-served queue of several servers."""
    free, left = [0.0] * stage.servers, np.zeros(len(arrivals))
    for i in np.argsort(arrivals, kind="stable"):
        begin = max(arrivals[i], heapq.heappop(free))
        left[i] = begin + stage.base + stage.per_token * prompts[i]
        heapq.heappush(free, left[i])
    return left


@BOTH
@pytest.mark.parametrize("servers", [1, 3])
def test_stages_are_queues(servers, compiled):
    """Two in a row before an engine that takes next to no time, one after it."""
    stages = (
        HostStage(servers, base=0.05, per_token=1e-3),
        HostStage(servers + 1, base=0.1),
        HostStage(servers, base=0.02, per_token=5e-4, after=True),
    )
    drawn = np.random.default_rng(1).integers(1, 100, 300)
    asked = poisson(8.0 * servers, 300, drawn, 1, seed=4)
    limits = engine(max_num_seqs=512, budget=4096, blocks=10**5)
    made = run(alone(flat(1e-7), limits, stages=stages), asked, compiled=compiled)
    inside = stations(stations(asked.arrival, drawn, stages[0]), drawn, stages[1])
    np.testing.assert_allclose(made.record.start, inside, atol=1e-5)
    np.testing.assert_allclose(made.record.finish, stations(inside, drawn, stages[2]), atol=1e-4)
    assert made.queue_time.max() > 0.4  # twice the longest service: they do queue


@BOTH
def test_which_latency_a_stage_belongs_to(compiled):
    """One request: 0.3 s before, 2 + 3 steps of 1 s, 0.7 s after."""
    stages = (HostStage(1, base=0.2, per_token=0.01), HostStage(1, base=0.7, after=True))
    made = run(alone(flat(1.0), engine(budget=8), stages=stages), ask([1.0], 10, 4),
               compiled=compiled)  # fmt: skip
    assert made.record.arrival.tolist() == [1.0]
    assert made.queue_time == pytest.approx([0.3])
    assert made.ttft == pytest.approx([2.3])
    assert made.tpot == pytest.approx([1.0])
    assert made.record.last == pytest.approx([6.3])
    assert made.e2el == pytest.approx([6.0])
    assert made.record.makespan == pytest.approx(7.0)


@BOTH
def test_followers_wait_for_the_stage_after(compiled):
    stages = (HostStage(1, base=0.5, after=True),)
    asked = ask([0.0, 0.0], 10, 2, after=[[], [0]], delay=0.25)
    made = run(alone(flat(1.0), engine(), stages=stages), asked, compiled=compiled)
    assert made.record.arrival.tolist() == [0, 2.75]
    assert made.record.finish.tolist() == [2.5, 5.25]


@BOTH
def test_a_slow_host_limits_the_engine(compiled):
    """One tokeniser of 0.1 s: ten requests a second, whatever comes."""
    stages = (HostStage(1, base=0.1),)
    asked = ask(np.zeros(100), 10, 1)
    made = run(alone(flat(0.01), engine(), stages=stages), asked, compiled=compiled)
    np.testing.assert_allclose(np.diff(np.sort(made.record.start)), 0.1, rtol=1e-6)


# --- denoise loops --------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("policy", ["static", "vllm-v1"])
def test_denoising_is_decoding_without_attention(policy, compiled):
    """A picture is so many steps of equal cost; a surface may have no attention kernel at all."""
    table = flat(0.01, sequence=0.02)
    table = dataclasses.replace(
        table, work=table.work[:0], reads=table.reads[:0], writes=table.writes[:0]
    )
    asked = ask([0.0, 0.0, 0.0], 1, [30, 30, 20])
    stages = (HostStage(1, base=0.4, after=True),)
    limits = engine(policy, max_num_seqs=2)
    made = run(alone(table, limits, stages=stages), asked, compiled=compiled)
    both = 30 * 0.05
    assert made.record.last == pytest.approx([both, both, both + 20 * 0.03])
    # pictures are decoded one at a time
    assert made.record.finish == pytest.approx([both + 0.4, both + 0.8, both + 1.2])
