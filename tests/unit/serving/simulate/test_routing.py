"""Which replica a request is given to."""

import dataclasses

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving.simulate import Cluster, Replica
from perfmodel.serving.simulate.draws import draw
from perfmodel.serving.simulate.fleet import Change, Role, Routing, State, routing
from tests.unit.serving.simulate.hand import BOTH, ask, engine, flat, fleet, run
from tests.unit.serving.simulation import poisson

LONG = 500  # nobody is done before the last has come
SOON = np.arange(12) * 1e-3


def homes(made) -> list[int]:
    return made.record.replica.tolist()


def three(rule: Routing, **changes) -> Cluster:
    return fleet(flat(0.01), 3, engine(**changes), routing=rule)


# --- by hand on three replicas --------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("rule", [Routing.ROUND_ROBIN, Routing.LEAST_OUTSTANDING])
def test_in_turn(rule, compiled):
    made = run(three(rule), ask(SOON[:7], 10, LONG), compiled=compiled)
    assert homes(made) == [0, 1, 2, 0, 1, 2, 0]


@BOTH
@pytest.mark.parametrize(
    ("rule", "home"), [(Routing.ROUND_ROBIN, 0), (Routing.LEAST_OUTSTANDING, 1)]
)
def test_a_finished_request_is_not_outstanding(rule, home, compiled):
    """The second ends soon; the fourth comes when replica 1 is empty."""
    asked = ask([0.0, 0.001, 0.002, 1.0], 10, [LONG, 2, LONG, LONG])
    assert homes(run(three(rule), asked, compiled=compiled)) == [0, 1, 2, home]


@BOTH
def test_random_and_power_of_two_follow_their_draws(compiled):
    """Draws count from 1 in stream 1; of two replicas the one with fewer requests, or the first."""
    cluster = dataclasses.replace(three(Routing.RANDOM), seed=5)
    made = run(cluster, ask(SOON, 10, LONG), compiled=compiled)
    assert homes(made) == [int(3 * draw(5, 1, i + 1)) for i in range(12)]
    cluster = dataclasses.replace(cluster, routing=Routing.POWER_OF_TWO)
    made = run(cluster, ask(SOON, 10, LONG), compiled=compiled)
    load, expected = [0, 0, 0], []
    for i in range(12):
        picks = sorted(int(3 * draw(5, 1, 2 * i + j)) for j in (1, 2))
        expected.append(min(picks, key=load.__getitem__))
        load[expected[-1]] += 1
    assert homes(made) == expected


@BOTH
def test_least_kv_counts_prompts_per_cache(compiled):
    """Prompts of 300, 100, 60; then to the least; the third cache is a tenth of the others'."""
    limits = [engine(), engine(), engine(blocks=100)]
    cluster = Cluster((flat(0.01),), tuple(map(Replica, limits)), Routing.LEAST_KV)
    asked = ask(SOON[:6], [300, 100, 60, 150, 20, 100], LONG)
    # in tokens of a large cache: 300; 100; 600; 100 + 150; 250 + 20; 270 + 100 on 1, so that the
    # first replica is next
    assert homes(run(cluster, asked, compiled=compiled)) == [0, 1, 2, 1, 1, 1]
    again = ask(SOON[:7], [300, 100, 60, 150, 20, 100, 5], LONG)
    assert homes(run(cluster, again, compiled=compiled))[-1] == 0


@BOTH
def test_sessions_stay_where_they_began(compiled):
    session = [0, 1, 0, 0, 2, 1, 3]
    made = run(three(Routing.SESSION), ask(SOON[:7], 10, LONG, session=session), compiled=compiled)
    # 0 -> 0, 1 -> 1, two more of 0; 2 -> 2 (the empty one); 1 -> 1; 3 -> 2, which has one
    assert homes(made) == [0, 1, 0, 0, 2, 1, 2]


@BOTH
def test_a_session_moves_when_its_home_does_not_take_requests(compiled):
    """Replica 0 is drained before the session's second request, and back before its third."""
    changes = (Change(0.5, 0, State.DRAINING), Change(8.0, 0, State.READY))
    cluster = dataclasses.replace(three(Routing.SESSION), changes=changes)
    made = run(cluster, ask([0.0, 1.0, 9.0], 10, 20, session=0), compiled=compiled)
    assert homes(made) == [0, 1, 1]


@BOTH
def test_prefix_aware_sends_to_the_holder(compiled):
    """A common prefix of three blocks: the longest match, else the fewest requests."""
    ids = [[1, 2, 3, 90], [5, 6, 7, 91], [1, 2, 3, 92], [5, 6, 8, 93], [1, 9, 9, 94], [4, 4, 4, 95]]
    asked = ask([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], 60, LONG, hash_ids=ids)
    made = run(three(Routing.PREFIX_AWARE, prefix_cache=True), asked, compiled=compiled)
    assert homes(made) == [0, 1, 0, 1, 0, 2]
    assert made.record.hits.tolist() == [0, 0, 48, 32, 16, 0]


@BOTH
def test_prefix_aware_gives_up_the_prefix_when_load_is_uneven(compiled):
    """The holder may have up to 32 requests more than the emptiest."""
    asked = ask(np.arange(40) * 0.02, 33, LONG, hash_ids=[[1, 2, 100 + i] for i in range(40)])
    made = run(
        three(Routing.PREFIX_AWARE, prefix_cache=True, max_num_seqs=64), asked, compiled=compiled
    )
    # 33 on the holder; then 34, 35 ... each go to the emptiest, which has none, and hold it too
    assert homes(made)[:33] == [0] * 33
    assert homes(made)[33:36] == [1, 2, 1]
    assert set(homes(made)[33:]) == {1, 2}


@BOTH
def test_load_is_uneven_only_if_it_is_by_half(compiled):
    """80 requests each, then 60 for what the first holds: it may have up to 120."""
    ids = [[1000 + i, 1] for i in range(160)] + [[1000, 2]] * 60
    asked = ask(np.arange(220) * 0.005, 17, 30, hash_ids=ids)
    limits = engine(prefix_cache=True, max_num_seqs=256, budget=4096)
    cluster = fleet(flat(1.0), 2, limits, routing=Routing.PREFIX_AWARE)
    made = run(cluster, asked, compiled=compiled)
    assert homes(made)[:160] == [0, 1] * 80
    assert homes(made)[160:202] == [0] * 41 + [1]


@BOTH
def test_the_cheapest_with_a_free_place(compiled):
    """Two places each, at 3, 1 and 2 USD/s; beyond that the least full."""
    replicas = tuple(Replica(engine(max_num_seqs=2), price=price) for price in (3.0, 1.0, 2.0))
    cluster = Cluster((flat(0.01),), replicas, Routing.COST_AWARE)
    made = run(cluster, ask(SOON[:8], 10, LONG), compiled=compiled)
    assert homes(made) == [1, 1, 2, 2, 0, 0, 0, 1]


@BOTH
def test_an_adapter_goes_where_it_is_loaded(compiled):
    """One adapter at a time, two places; -1 is the base model."""
    asked = ask([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], 10, LONG, adapter=[7, 8, 7, -1, 7, 8])
    made = run(three(Routing.ADAPTER, adapters=1, max_num_seqs=2), asked, compiled=compiled)
    # 7 -> 0, 8 -> 1, 7 -> 0 (full now), base -> 2; 7 -> the first with one request; 8 -> there is
    # no holder with a free place: the first with one
    assert homes(made)[:5] == [0, 1, 0, 2, 1]
    assert homes(made)[5] == 2


@BOTH
def test_pools_and_their_turns(compiled):
    """Replicas 0 and 2 serve one model, 1 and 3 the other; each takes turns for itself."""
    replicas = tuple(Replica(engine(), pool=i % 2) for i in range(4))
    cluster = Cluster((flat(0.01),), replicas, Routing.ROUND_ROBIN)
    made = run(cluster, ask(SOON[:6], 10, LONG, pool=[0, 0, 1, 0, 1, 1]), compiled=compiled)
    assert homes(made) == [0, 2, 1, 0, 3, 1]


@BOTH
def test_decode_replicas_are_chosen_by_their_own_rule(compiled):
    roles = [Role.PREFILL, Role.DECODE, Role.DECODE]
    replicas = tuple(
        Replica(engine(), role=role, price=price)
        for role, price in zip(roles, (1.0, 2.0, 1.0), strict=True)
    )
    for rule, expected in ((Routing.ROUND_ROBIN, [1, 2, 1]), (Routing.COST_AWARE, [2, 2, 2])):
        cluster = Cluster((flat(0.01),), replicas, Routing.RANDOM, rule)
        assert homes(run(cluster, ask(SOON[:3], 10, 50), compiled=compiled)) == expected


@BOTH
def test_unlike_replicas_have_their_own_step_times(compiled):
    tables = (flat(1.0), flat(0.25))
    cluster = Cluster(tables, (Replica(engine()), Replica(engine(), surface=1)),
                      Routing.ROUND_ROBIN)  # fmt: skip
    made = run(cluster, ask([0.0, 0.0], 10, 4), compiled=compiled)
    assert made.record.finish.tolist() == [4.0, 1.0]
    assert made.record.row_steps.sum(axis=1).tolist() == [4, 4]


# --- waits ----------------------------------------------------------------------------------------

SERVERS, LOAD, COUNT = 4, 0.8, 4000


def arrivals():
    """Poisson; each request is one step of 1 s."""
    return poisson(LOAD * SERVERS, COUNT, 10, 1, seed=2)


def waits(rule: Routing, compiled: bool) -> np.ndarray:
    """Four replicas that serve one request at a time."""
    cluster = fleet(flat(1.0), SERVERS, engine(max_num_seqs=1), routing=rule, seed=1)
    return run(cluster, arrivals(), compiled=compiled).queue_time


def queues(rule: Routing) -> np.ndarray:
    """The same waits from queues without a simulator."""
    ends: list[list[float]] = [[] for _ in range(SERVERS)]
    found = []
    for i, now in enumerate(arrivals().arrival.tolist()):
        left = [sum(end > now for end in server[-60:]) for server in ends]
        pick = {
            Routing.RANDOM: lambda i=i: int(SERVERS * draw(1, 1, i + 1)),
            Routing.ROUND_ROBIN: lambda i=i: i % SERVERS,
            Routing.LEAST_OUTSTANDING: lambda left=left: left.index(min(left)),
            Routing.POWER_OF_TWO: lambda i=i, left=left: min(
                sorted(int(SERVERS * draw(1, 1, 2 * i + j)) for j in (1, 2)),
                key=left.__getitem__,
            ),
        }[rule]()
        begin = max(now, ends[pick][-1] if ends[pick] else 0.0)
        ends[pick].append(begin + 1.0)
        found.append(begin - now)
    return np.array(found)


@BOTH
def test_better_routers_wait_less(compiled):
    mean = {}
    for rule in (
        Routing.RANDOM, Routing.ROUND_ROBIN, Routing.POWER_OF_TWO, Routing.LEAST_OUTSTANDING
    ):  # fmt: skip
        found = waits(rule, compiled)
        np.testing.assert_allclose(found, queues(rule), atol=1e-6)
        mean[rule] = found.mean()
    # random routing makes M/D/1 queues of a Poisson stream
    assert mean[Routing.RANDOM] == pytest.approx(LOAD / (2 * (1 - LOAD)), rel=0.2)
    assert mean[Routing.POWER_OF_TWO] < 0.7 * mean[Routing.RANDOM]
    assert mean[Routing.ROUND_ROBIN] < 0.7 * mean[Routing.RANDOM]
    assert mean[Routing.LEAST_OUTSTANDING] < 0.8 * mean[Routing.POWER_OF_TWO]


@pytest.mark.parametrize("rule", Routing)
def test_names_on_the_command_line(rule):
    assert routing(rule.name.lower().replace("_", "-")) is rule


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="nearest: round-robin"):
        routing("roundrobin")
