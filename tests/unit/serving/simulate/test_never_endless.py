"""Bad input gets an answer, extremes an end, and random clusters keep the laws."""

import dataclasses

import numpy as np
import pytest

from perfmodel.core.errors import InfeasibleError, UsageError
from perfmodel.serving.arrivals import poisson as process
from perfmodel.serving.lengths import Fixed
from perfmodel.serving.simulate import POLICIES, Cluster, Engine, Replica, Slo, serve
from perfmodel.serving.simulate.fleet import (
    Change,
    HostStage,
    Link,
    Migration,
    Role,
    Routing,
    Scaler,
    State,
)
from perfmodel.serving.simulate.policy import Speculation, policy
from perfmodel.serving.workload import generate
from tests.unit.serving.simulate.hand import BOTH, alone, ask, engine, flat, fleet, obeys, run

# --- contradictions -------------------------------------------------------------------------------

TABLE = flat(0.01)
ONE = ask([0.0], 10, 2)


def cluster(*replicas: Replica, **rules) -> Cluster:
    return Cluster((TABLE,), replicas or (Replica(engine()),), **rules)


CONTRADICTIONS = [
    (cluster(), ask([0.0], 10, 2, pool=1), "ask pool 1, which has no replica that takes prompts"),
    (cluster(Replica(engine(), role=Role.DECODE)), ONE, "pool 0, which has no replica that takes"),
    (cluster(Replica(engine(), role=Role.PREFILL)), ONE, "pool 0 .* no replica that decodes"),
    (
        cluster(Replica(engine(), role=Role.PREFILL), Replica(engine(), pool=1)), ONE,
        "pool 0 .* no replica that decodes",
    ),
    (cluster(), ask([0.0], 10, 2, tenant=2), "requests of 3 tenants, limits for 1"),
    (
        cluster(Replica(engine(prefix_cache=True, block_size=24))),
        ask([0.0], 10, 2, hash_ids=[[1]], hash_block=32),
        "replica 0 has blocks of 24 tokens, which do not divide the requests' blocks of 32",
    ),
    (cluster(Replica(engine(), state=State.FAILED)), ONE, "begins as FAILED; ready or off"),
    (cluster(changes=(Change(1.0, 1, State.READY),)), ONE, "replica 1, which is not there"),
    (cluster(changes=(Change(1.0, -1, State.READY),)), ONE, "replica -1, which is not there"),
    (cluster(changes=(Change(1.0, 0, State.OFF),)), ONE, "change to OFF; ready, draining or"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("made", "asked", "message"), CONTRADICTIONS, ids=range(len(CONTRADICTIONS))
)
def test_contradictions_are_named(made, asked, message):
    with pytest.raises(UsageError, match=message):
        serve(made, asked, compiled=False)


@BOTH
def test_a_request_longer_than_a_cache(compiled):
    """Of its own pool; it counts without its last token."""
    small = engine(blocks=4)
    pools = cluster(Replica(engine()), Replica(small, pool=1))
    asked = ask([0.0, 0.0], [500, 60], [9, 5], pool=[0, 1])
    assert run(pools, asked, compiled=compiled).record.finished.sum() == 2
    with pytest.raises(InfeasibleError, match=r"request 1 \(60 \+ 6 tokens\) needs 5 .* has 4"):
        serve(pools, dataclasses.replace(asked, output=np.array([9, 6])), compiled=compiled)


@BOTH
def test_nobody_is_ever_ready(compiled):
    off = cluster(Replica(engine(), state=State.OFF))
    with pytest.raises(InfeasibleError, match="1 of 1 requests are never served"):
        serve(off, ONE, compiled=compiled)
    drained = cluster(changes=(Change(0.5, 0, State.DRAINING),))
    with pytest.raises(InfeasibleError, match="1 of 2 requests are never served"):
        serve(drained, ask([0.0, 1.0], 10, 2), compiled=compiled)


def test_an_unknown_scheduler():
    with pytest.raises(UsageError, match="nearest: sarathi"):
        policy("sarati")


# --- extremes -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("rate", [1e-6, 1e-2, 1e3, 1e9, np.inf])
def test_rates(rate, compiled):
    """From each request alone to all at once, the work is the same."""
    asked = generate(Fixed(20), Fixed(5), 100, rate, process=process)
    made = run(alone(flat(0.0, row=0.001), engine()), asked, compiled=compiled)
    assert made.record.busy == pytest.approx(100 * 0.024)
    if rate < 1:
        # steps end within the nanosecond to which a double tells times apart at 10^8 s
        np.testing.assert_allclose(made.e2el, 0.024, rtol=1e-5)
    if np.isinf(rate):
        assert made.record.makespan == pytest.approx(2.4)


@BOTH
def test_steps_that_take_no_time(compiled):
    made = run(alone(flat(0.0), engine()), ask([0.0, 1.0], 600, 50), compiled=compiled)
    assert made.e2el.tolist() == [0, 0]
    assert made.record.steps == 2 * 51


@BOTH
@pytest.mark.parametrize("policy", POLICIES)
def test_the_smallest_engine(policy, compiled):
    """One token a step, one request, blocks of one token, and just enough of them."""
    limits = Engine(POLICIES[policy], 1, 1, 1, 12)
    made = run(alone(flat(1.0), limits), ask([0.0, 0.0], 8, 5), compiled=compiled)
    # eight chunks take a step each, eight shares of the layers one step in all
    chunks = POLICIES[policy].chunked and not POLICIES[policy].layered
    assert made.record.finish == pytest.approx([12, 24] if chunks else [5, 10])
    assert made.record.peak_blocks == 12


@BOTH
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("changes", [{}, {"swap_time": 0.001}, {"prefix_cache": True}])
def test_a_cache_that_just_holds_the_longest(policy, changes, compiled):
    """Everything is thrown out all the time, and yet served; the oldest is never thrown out."""
    rng = np.random.default_rng(11)
    prompt, output = rng.integers(1, 60, 40), rng.integers(1, 60, 40)
    ids = [range(100 * i, 100 * i + -(-p // 4)) for i, p in enumerate(prompt)]
    asked = ask(np.zeros(40), prompt, output, hash_block=4, hash_ids=ids)
    blocks = int((-(-(prompt + output - 1) // 4)).max())
    limits = engine(policy, budget=40, block_size=4, blocks=blocks, **changes)
    made = run(alone(flat(0.01), limits), asked, compiled=compiled)
    assert made.record.preempted[0] == 0
    if POLICIES[policy].foresight == 1:
        assert made.record.preemptions == 0


# --- anything goes --------------------------------------------------------------------------------


def drawn(seed: int) -> tuple[Cluster, dict, int]:
    """A cluster with many of its features at once, and requests for it."""
    rng = np.random.default_rng(seed)

    def maybe(share: float, made):
        return made() if rng.random() < share else None

    count, size = int(rng.integers(1, 60)), int(rng.choice([1, 2, 8, 16]))
    prompt = rng.integers(1, int(rng.choice([5, 60, 400])), count)
    output = rng.integers(1, int(rng.choice([3, 20, 120])), count)
    columns = {
        "priority": maybe(0.3, lambda: rng.integers(0, 3, count)),
        "tenant": maybe(0.3, lambda: np.arange(count) % 3),
        "adapter": maybe(0.3, lambda: rng.integers(-1, 5, count)),
        "hidden": maybe(0.3, lambda: (rng.random(count) * output).astype(int)),
        "session": maybe(0.3, lambda: rng.integers(0, 6, count)),
        "after": maybe(0.3, lambda: [[int(rng.integers(i))] if i % 3 == 2 else []
                                     for i in range(count)]),
        "hash_ids": maybe(0.5, lambda: [
            [*range(100 * g, 100 * g + c), *range(1000 + 500 * i, 1000 + 500 * i + n - c)]
            for i, (g, n) in enumerate(zip(rng.integers(0, 4, count), -(-prompt // size),
                                           strict=True))
            for c in [int(rng.integers(0, n + 1)) % 99]
        ]),
    }  # fmt: skip
    columns = {name: value for name, value in columns.items() if value is not None}
    asked = ask(np.sort(rng.random(count)) * rng.choice([0, 0.1, 1, 5]), prompt, output,
                hash_block=size, **columns)  # fmt: skip
    longest = int((-(-(prompt + output - 1) // size)).max())

    def limits() -> Engine:
        seqs = int(rng.integers(1, 20))
        speculation = maybe(0.3, lambda: Speculation(
            float(rng.choice([0, 0.5, 0.9, 1])), rng.integers(0, 5, seqs + 1),
            np.full(seqs + 1, 0.001), seed))  # fmt: skip
        return Engine(
            POLICIES[str(rng.choice(list(POLICIES)))], int(rng.integers(20, 500)), seqs, size,
            longest + int(rng.integers(0, 2 * longest + 1)), "hash_ids" in columns,
            maybe(0.4, lambda: 1e-4), int(rng.integers(0, 4)), 0.01, 0.001,
            int(rng.choice([0, 10])), float(rng.choice([0, 0.001])), speculation,
        )  # fmt: skip

    number = int(rng.integers(1, 5))
    split = number > 1 and rng.random() < 0.35
    replicas = tuple(
        Replica(limits(), role=(Role.PREFILL, Role.DECODE)[i % 2] if split else Role.BOTH,
                state=State.READY if i < 2 or rng.random() < 0.7 else State.OFF, price=float(i))
        for i in range(number)
    )  # fmt: skip
    changes = tuple(
        change
        for _ in range(int(rng.integers(0, 5)))
        for at, when, state in [(int(rng.integers(number)), 2 * rng.random(), rng.integers(2))]
        for change in (
            Change(when, at, (State.FAILED, State.DRAINING)[state]),
            Change(when + rng.random(), at, State.READY),
        )
    )
    low, high = sorted(rng.choice([2.0, 5.0, 20.0], 2))
    rules = {
        "link": Link(float(rng.choice([0, 0.01])), float(rng.choice([0, 1e-5, 1e-3]))),
        "migration": maybe(0.4, lambda: Migration(float(rng.choice([0.01, 0.1])), low, high)),
        "scaler": maybe(0.3, lambda: Scaler(0.05, 1.0, high, start_time=float(rng.random()))),
        "stages": tuple(HostStage(int(rng.integers(1, 3)), 0.001, 1e-5, bool(i))
                        for i in range(int(rng.integers(0, 3)))),
    }  # fmt: skip
    table = flat(float(rng.choice([0.01, 0.003])), row=float(rng.choice([0, 1e-4])), context=1e-6,
                 pair=1e-7)  # fmt: skip
    made = Cluster((table,), replicas, Routing(rng.integers(9)), Routing(rng.integers(9)),
                   changes=changes, seed=seed, **rules)  # fmt: skip
    users = int(rng.integers(1, 10)) if rng.random() < 0.3 and "after" not in columns else None
    return made, {"requests": asked, "max_concurrency": users}, 3 if "tenant" in columns else 1


@BOTH
@pytest.mark.parametrize("seed", range(100))
def test_random_clusters_keep_the_laws(seed, compiled):
    """Every step of the twin is audited, too: see ``conftest``."""
    made, given, tenants = drawn(seed)
    obeys(serve(made, **given, slos=(Slo(),) * tenants, compiled=compiled))


@BOTH
def test_equal_runs_are_equal_and_seeds_matter(compiled):
    asked = ask(np.arange(50) * 0.01, 10, 20)
    runs = [
        run(fleet(flat(0.01), 3, routing=Routing.RANDOM, seed=seed), asked, compiled=compiled)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0].record.finish, runs[1].record.finish)
    assert (runs[0].record.replica != runs[2].record.replica).any()
