"""Replicas that come, go and fail."""

import dataclasses

import numpy as np
import pytest

from perfmodel.core.errors import InfeasibleError
from perfmodel.serving.simulate import Cluster, Replica, serve
from perfmodel.serving.simulate.fleet import Change, Migration, Role, Routing, Scaler, State
from tests.unit.serving.simulate.hand import BOTH, alone, ask, ends, engine, flat, fleet, run
from tests.unit.serving.simulation import surface


def spare(table, scaler: Scaler | None = None, count: int = 1, **rules) -> Cluster:
    """One replica that is ready and ``count`` that are off."""
    replicas = (Replica(engine()),) + (Replica(engine(), state=State.OFF),) * count
    return Cluster((table,), replicas, scaler=scaler, **rules)


# --- scaling --------------------------------------------------------------------------------------


@BOTH
def test_a_start_takes_its_time(compiled):
    """At 1 there are four requests for one replica: another starts, and is ready at 6."""
    rule = Scaler(interval=1.0, low=0.0, high=3.0, start_time=5.0)
    asked = ask([0.0] * 4 + [5.9, 6.1], 10, 12)
    made = run(spare(flat(1.0), rule), asked, compiled=compiled)
    assert made.record.replica.tolist() == [0, 0, 0, 0, 0, 1]
    assert made.record.counts["scaled_up"] == 1
    assert made.record.start[5] == pytest.approx(6.1)
    # from the decision until the last request is done
    assert made.record.makespan == pytest.approx(6.1 + 12)
    assert made.record.on_time.tolist() == pytest.approx([18.1, 17.1])


@BOTH
def test_one_a_look_and_no_more_than_needed(compiled):
    """Nine requests, at most three each: with those that start there are enough at 2."""
    rule = Scaler(interval=1.0, low=0.0, high=3.0, start_time=50.0)
    made = run(spare(flat(1.0), rule, count=5), ask(np.zeros(9), 10, 20), compiled=compiled)
    # max_num_seqs is 8, so that one waits; loads are 9, 9 / 2, 9 / 3
    assert made.record.counts["scaled_up"] == 2
    assert made.record.on_time.tolist() == pytest.approx([40, 39, 38, 0, 0, 0])


@BOTH
def test_the_last_replica_is_drained_and_then_off(compiled):
    """At 1 there are two requests each, fewer than 2.5: the second takes no more."""
    rule = Scaler(interval=1.0, low=2.5, high=9.0)
    cluster = fleet(flat(1.0), 2, engine(), routing=Routing.ROUND_ROBIN, scaler=rule)
    asked = ask([0.0] * 4 + [1.5, 2.5, 9.0], 10, [8, 8, 8, 8, 3, 3, 3])
    made = run(cluster, asked, compiled=compiled)
    assert made.record.replica.tolist() == [0, 1, 0, 1, 0, 0, 0]
    assert made.record.counts["scaled_down"] == 1
    assert made.record.on_time.tolist() == pytest.approx([made.record.makespan, 8])


@BOTH
def test_so_many_stay(compiled):
    rule = Scaler(interval=1.0, low=5.0, high=9.0, least=2)
    made = run(fleet(flat(1.0), 4, engine(), scaler=rule), ask([0.0], 10, 10), compiled=compiled)
    assert made.record.counts["scaled_down"] == 2
    assert made.record.on_time.tolist() == pytest.approx([10, 10, 2, 1])


@BOTH
def test_it_scales_out_and_in_with_the_load(compiled):
    """Requests of 5 s, eight at once per replica: four a second for 20 s, then one every 5 s."""
    rule = Scaler(interval=1.0, low=1.5, high=6.0, start_time=2.0)
    asked = ask([0.25 * i for i in range(80)] + [60.0 + 5 * i for i in range(20)], 10, 20)
    made = run(spare(flat(0.25), rule, count=3), asked, compiled=compiled)
    assert made.record.counts["scaled_up"] == 3
    assert made.record.counts["scaled_down"] == 3
    assert made.record.on_time[0] == pytest.approx(made.record.makespan)
    assert (made.record.on_time[1:] < 60).all()
    fixed = run(fleet(flat(0.25), 1, engine()), asked, compiled=compiled)
    assert made.e2el.max() < 0.7 * fixed.e2el.max()


@BOTH
def test_pools_and_roles_scale_by_themselves(compiled):
    """Pool 1 is overloaded, pool 0 is not."""
    rule = Scaler(interval=1.0, low=0.0, high=3.0)
    replicas = tuple(
        Replica(engine(), pool=pool, state=state)
        for pool in (0, 1) for state in (State.READY, State.OFF)
    )  # fmt: skip
    cluster = Cluster((flat(1.0),), replicas, scaler=rule)
    made = run(cluster, ask(np.zeros(7), 10, 20, pool=[0, 0, 1, 1, 1, 1, 1]), compiled=compiled)
    assert made.record.counts["scaled_up"] == 1
    assert (made.record.on_time > 0).tolist() == [True, False, True, True]


@BOTH
def test_looks_go_on_while_requests_run(compiled):
    """Looks fall on the ends of steps, when no step is under way: the next one must come too.

    At 0.1 two requests run; from 0.15 on one, which is too few for two replicas: at 0.2 the idle
    one goes.
    """
    rule = Scaler(interval=0.1, low=0.75, high=9.0)
    cluster = fleet(flat(0.01), 2, engine(), scaler=rule)
    made = run(cluster, ask([0.0, 0.0], 10, [100, 15]), compiled=compiled)
    assert made.record.counts["scaled_down"] == 1
    assert made.record.on_time.tolist() == pytest.approx([1.0, 0.2])


# --- planned changes ------------------------------------------------------------------------------


@BOTH
def test_a_drained_replica_serves_what_it_has(compiled):
    """Its queue included; new requests go elsewhere, and it is off until it is ready again."""
    changes = (Change(2.5, 0, State.DRAINING), Change(40.0, 0, State.READY))
    cluster = fleet(
        flat(1.0), 2, engine(max_num_seqs=1), routing=Routing.ROUND_ROBIN, changes=changes
    )
    asked = ask([0.0, 0.0, 0.0, 3.0, 4.0, 41.0, 41.0], 10, [5, 5, 5, 5, 5, 5, 2])
    made = run(cluster, asked, compiled=compiled)
    assert made.record.replica.tolist() == [0, 1, 0, 1, 1, 1, 0]
    assert made.record.finish[2] == 10
    assert made.record.on_time.tolist() == pytest.approx([10 + (made.record.makespan - 40), 46])


@BOTH
def test_a_planned_start(compiled):
    cluster = spare(flat(1.0), changes=(Change(3.0, 1, State.READY),))
    made = run(cluster, ask([0.0, 2.0, 4.0], 10, 10), compiled=compiled)
    assert made.record.replica.tolist() == [0, 0, 1]
    assert made.record.on_time.tolist() == pytest.approx([14, 11])


# --- failures -------------------------------------------------------------------------------------


@BOTH
def test_requests_of_a_failed_replica_are_computed_elsewhere(compiled):
    """The step under way is lost, tokens that were shown are kept."""
    table = surface()
    before = ends(table, ([], [(100, 0)]), [101], [102], [103])
    fails = (before[2] + before[3]) / 2  # three tokens are there
    cluster = fleet(table, 2, engine(), changes=(Change(fails, 0, State.FAILED),))
    made = run(cluster, ask([0.0], 100, 6), compiled=compiled)
    after = ends(table, ([], [(103, 0)]), [104], [105], at=fails)
    assert made.record.first == pytest.approx(before[:1], rel=1e-9)
    assert made.record.finish == pytest.approx(after[-1:], rel=1e-9)
    assert made.record.replica.tolist() == [1]
    assert made.record.counts["retries"] == 1
    assert made.record.preempted.tolist() == [0]
    assert made.record.prompt_tokens.tolist() == [100, 103]
    assert made.record.decode_tokens.tolist() == [2, 2]


@BOTH
def test_all_of_a_failed_replicas_requests_go(compiled):
    """Running, in its prompt, and waiting; those that run are before those that wait."""
    limits = engine(max_num_seqs=2, budget=20)
    cluster = fleet(flat(1.0), 2, limits, routing=Routing.ROUND_ROBIN,
                    changes=(Change(2.5, 0, State.FAILED),))  # fmt: skip
    asked = ask([0.0, 0.0, 0.1, 0.1, 0.2], [10, 10, 60, 10, 10], [9, 2, 2, 9, 3])
    made = run(cluster, asked, compiled=compiled)
    # 0: A (2 tokens), C (19 tokens of its prompt in, then 19 more), E waits; 1: B, D
    assert made.record.counts["retries"] == 3
    assert made.record.replica.tolist() == [1, 1, 1, 1, 1]
    assert made.record.start[[0, 2, 4]].tolist()[:2] == [0, 1]
    assert made.record.start[4] > 2.5
    # B was done at 2; D goes on; A is next, then C, then E
    assert made.record.finish[0] < made.record.first[2] < made.record.first[4]


@BOTH
def test_without_another_replica_requests_wait_for_recovery(compiled):
    """Two tokens until 2.5; the rest from 10 on; a request that comes meanwhile starts then too."""
    changes = (Change(2.5, 0, State.FAILED), Change(10.0, 0, State.READY))
    made = run(
        alone(flat(1.0), engine(), changes=changes), ask([0.0, 5.0], 10, 5), compiled=compiled
    )
    assert made.record.first.tolist() == [1, 11]
    assert made.record.finish.tolist() == [13, 15]
    assert made.record.counts["retries"] == 1
    assert made.record.busy[0] == pytest.approx(2 + 5)


@BOTH
def test_a_failed_cache_is_empty(compiled):
    changes = (Change(5.0, 0, State.FAILED), Change(6.0, 0, State.READY))
    asked = ask([0.0, 7.0, 9.0], 40, 1, hash_ids=[[1, 2, 3]] * 3)
    made = run(alone(flat(1.0), engine(prefix_cache=True), changes=changes), asked,
               compiled=compiled)  # fmt: skip
    assert made.record.hits.tolist() == [0, 0, 32]


@BOTH
@pytest.mark.parametrize("extra", [{}, {"scaler": Scaler(1.0, 0.0, 99.0)},
                                   {"migration": Migration(1.0, 1.0, 2.0)},
                                   {"scaler": Scaler(1.0, 0.0, 99.0, least=0),
                                    "migration": Migration(0.7, 1.0, 2.0)}])  # fmt: skip
def test_requests_that_nobody_can_serve_are_an_answer(extra, compiled):
    """Whatever looks periodically at nothing to do comes to an end."""
    cluster = alone(flat(1.0), engine(), changes=(Change(2.5, 0, State.FAILED),), **extra)
    with pytest.raises(InfeasibleError, match="2 of 3 requests are never served"):
        serve(cluster, ask([0.0, 0.0, 4.0], 10, [2, 9, 9]), compiled=compiled)


@BOTH
def test_a_scaler_replaces_what_failed(compiled):
    """One request waits, too few for a second replica, but none is left: at 3 the spare starts."""
    rule = Scaler(interval=1.0, low=0.0, high=9.0, start_time=0.5)
    cluster = spare(flat(1.0), rule, changes=(Change(2.5, 0, State.FAILED),))
    made = run(cluster, ask([0.0], 10, 5), compiled=compiled)
    assert made.record.counts["scaled_up"] == 1
    assert made.record.finish.tolist() == [3.5 + 3]


@BOTH
def test_from_none_to_one(compiled):
    """Nobody is ready and none has to be, but somebody waits."""
    rule = Scaler(interval=1.0, low=0.0, high=9.0, least=0, start_time=0.5)
    cluster = Cluster((flat(1.0),), (Replica(engine(), state=State.OFF),), scaler=rule)
    made = run(cluster, ask([2.2], 10, 5), compiled=compiled)
    assert made.ttft == pytest.approx([0.8 + 0.5 + 1.0])
    assert made.record.on_time.tolist() == pytest.approx([5.5])


@BOTH
def test_a_scaler_keeps_its_least(compiled):
    """Two are to stay; of the two that are ready one fails at 2.5."""
    rule = Scaler(interval=1.0, low=0.0, high=9.0, least=2)
    cluster = dataclasses.replace(
        spare(flat(1.0), rule, count=2),
        changes=(Change(0.0, 1, State.READY), Change(2.5, 0, State.FAILED)),
    )
    made = run(cluster, ask([0.0] * 2, 10, 9), compiled=compiled)
    assert made.record.counts["scaled_up"] == 1
    assert made.record.on_time[2] == pytest.approx(made.record.makespan - 3)


@BOTH
def test_migration_goes_on_after_an_outage(compiled):
    """From 0.5 to the scaler's look at 2 nothing happens; then the spare serves both requests.

    A third replica takes none, but one of the two moves there at 2.1.
    """
    replicas = (
        Replica(engine()), Replica(engine(), state=State.OFF), Replica(engine(), role=Role.DECODE)
    )  # fmt: skip
    cluster = Cluster(
        (flat(0.01),), replicas, migration=Migration(interval=0.7, low=500.0, high=900.0),
        scaler=Scaler(interval=2.0, low=0.0, high=9.0), changes=(Change(0.5, 0, State.FAILED),),
    )  # fmt: skip
    made = run(cluster, ask([0.0, 0.0], 10, 300), compiled=compiled)
    assert made.record.counts["migrations"] == 1
    assert sorted(made.record.replica.tolist()) == [1, 2]


@BOTH
def test_time_switched_on_is_no_less_than_time_busy(compiled):
    rng = np.random.default_rng(3)
    asked = ask(np.sort(rng.random(200)) * 30, rng.integers(1, 200, 200), rng.integers(1, 60, 200))
    changes = tuple(
        change
        for i in range(6)
        for change in (
            Change(3.0 + 4 * i, i % 3, State.FAILED if i % 2 else State.DRAINING),
            Change(6.0 + 4 * i, i % 3, State.READY),
        )
    )
    cluster = fleet(flat(0.02), 3, engine(), changes=changes,
                    scaler=Scaler(0.5, 1.0, 4.0, start_time=0.3))  # fmt: skip
    made = run(cluster, asked, compiled=compiled)
    assert made.record.counts["retries"] > 0
    assert (made.record.busy <= made.record.on_time + 1e-9).all()
