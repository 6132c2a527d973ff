"""Migration of running requests: stages, the stop at the end, and what it is good for."""

import numpy as np
import pytest

from perfmodel.serving.simulate import Cluster, Replica
from perfmodel.serving.simulate.fleet import Change, Link, Migration, Routing, State
from tests.unit.serving.simulate.hand import BOTH, ask, bins, engine, flat, fleet, gaps, run

# freeness of an empty replica is 1,000; with two requests below 500
WHEN = Migration(interval=0.105, low=600.0, high=800.0)


def two(per_token: float, latency: float = 0.05, when: Migration = WHEN, **rules) -> Cluster:
    """Steps of 10 ms. A and C are on the first replica, B, which is short, is on the other."""
    return fleet(
        flat(0.01), 2, engine(), routing=Routing.ROUND_ROBIN, link=Link(latency, per_token),
        migration=when, **rules,
    )  # fmt: skip


def abc(output: int = 100, **columns):
    return ask(np.zeros(3), [100, 16, 50], [output, 2, output], **columns)


@BOTH
def test_only_the_last_stage_stops_a_request(compiled):
    """C, the shorter: 59 tokens are copied while it decodes, 12 after it has left.

    0.105 + 0.05 + 0.059 = 0.214, in the step until 0.22; then 0.05 + 0.012 until 0.282.
    """
    made = run(two(1e-3), abc(), compiled=compiled)
    assert made.record.counts["migrations"] == 1
    assert made.record.replica.tolist() == [0, 1, 1]
    # 22 tokens until 0.22, 78 from 0.282
    assert made.record.finish == pytest.approx([1.0, 0.02, 0.282 + 0.78])
    assert gaps(made) == bins(*[0.01] * (99 + 1 + 98), 0.072)


@BOTH
def test_stages_repeat_while_much_is_added(compiled):
    """At 2 ms per token 17 tokens are added meanwhile, more than a block: a second stage.

    0.105 + 0.05 + 2 x 0.059 = 0.273; + 0.05 + 2 x 0.017 = 0.357, in the step until 0.36; C has 85
    tokens then, 76 are copied: + 0.05 + 2 x 0.009 = 0.428.
    """
    made = run(two(2e-3), abc(), compiled=compiled)
    assert made.record.finish[2] == pytest.approx(0.428 + 0.01 * (100 - 36))
    assert max(gaps(made)) == max(bins(0.078))
    assert made.record.counts["migrations"] == 1


@BOTH
def test_stages_come_to_an_end(compiled):
    """A link slower than decoding never catches up: after eight stages the request is stopped."""
    made = run(two(0.011, latency=0.0003), abc(1500), compiled=compiled)
    now, copied = 0.105, 0
    for _ in range(8):
        tokens = 50 + int(now / 0.01) - 1
        now, copied = now + 0.0003 + 0.011 * (tokens - copied), tokens
    left = int(now / 0.01) + 1  # tokens when it leaves the batch
    there = 0.01 * left + 0.0003 + 0.011 * (50 + left - 1 - copied)
    assert there - 0.01 * left > 1.0
    assert made.record.finish[2] == pytest.approx(there + 0.01 * (1500 - left))


@BOTH
@pytest.mark.parametrize(
    ("prompts", "priority", "moved"),
    [([100, 50], [0, 0], 1), ([50, 100], [0, 0], 0), ([100, 50], [1, 0], 0), ([50, 50], [0, 0], 0)],
)
def test_the_shortest_of_the_lowest_priority_moves(prompts, priority, moved, compiled):
    asked = ask(np.zeros(3), [prompts[0], 16, prompts[1]], [100, 2, 100],
                priority=[priority[0], 0, priority[1]])  # fmt: skip
    made = run(two(1e-3), asked, compiled=compiled)
    assert made.record.counts["migrations"] == 1
    assert made.record.replica[[0, 2]].tolist() == [1 - moved, moved]


@BOTH
def test_equal_loads_stay(compiled):
    made = run(two(1e-3), ask(np.zeros(4), 50, 100), compiled=compiled)
    assert made.record.counts["migrations"] == 0


@BOTH
def test_blocks_go_with_the_request(compiled):
    """The source holds C's blocks until the last copy is over, then A's alone; no block is lost."""
    made = run(two(1e-3), abc(300), log=2000, compiled=compiled)
    log = made.record.log[: made.record.logged]
    last = {at: log[log[:, 0] == at][-1] for at in (0, 1)}
    assert last[0][6] == -(-(100 + 299) // 16)
    assert last[1][6] == -(-(50 + 299) // 16)


@BOTH
def test_a_request_that_ends_meanwhile_does_not_move(compiled):
    """C has ten tokens left when the first stage begins, and the stage takes longer."""
    made = run(two(1e-3), ask(np.zeros(3), [100, 16, 50], [100, 2, 19]), compiled=compiled)
    assert made.record.counts["migrations"] == 0
    assert made.record.replica[2] == 0
    assert made.record.finish[2] == pytest.approx(0.19)


@BOTH
def test_a_draining_replica_is_emptied(compiled):
    """Its requests leave one by one, and it is off once the last copy is over."""
    made = run(
        two(1e-4, latency=0.0, changes=(Change(0.03, 0, State.DRAINING),)), abc(200),
        compiled=compiled,
    )  # fmt: skip
    assert made.record.counts["migrations"] == 2
    assert made.record.replica.tolist() == [1, 1, 1]
    assert 0.21 < made.record.on_time[0] < 0.3
    assert made.record.on_time[1] == pytest.approx(made.record.makespan)


@BOTH
@pytest.mark.parametrize("state", [State.FAILED, State.DRAINING])
def test_a_target_that_goes_away_ends_the_copy(state, compiled):
    """At 0.15 the first stage is under way; C stays and is not stopped."""
    made = run(two(1e-3, changes=(Change(0.15, 1, state),)), abc(), compiled=compiled)
    assert made.record.counts["migrations"] == 0
    assert made.record.finish == pytest.approx([1.0, 0.02, 1.0])


@BOTH
@pytest.mark.parametrize("when", [0.15, 0.25])
def test_a_source_that_fails_loses_the_request_to_recomputation(when, compiled):
    """During the first stage, or during the last, when C has left the batch."""
    made = run(two(1e-3, changes=(Change(when, 0, State.FAILED),)), abc(), compiled=compiled)
    assert made.record.counts["retries"] == 2
    assert made.record.counts["migrations"] == 0
    done = {0.15: (15, 15), 0.25: (25, 22)}[when]
    # both computed again in one step beside nothing else, which gives the next token
    assert made.record.finish[[0, 2]] == pytest.approx(
        [when + 0.01 * (100 - done[0]), when + 0.01 * (100 - done[1])]
    )
    assert made.record.prompt_tokens[1] == 16 + (100 + done[0]) + (50 + done[1])


@BOTH
def test_copies_of_one_source_do_not_overlap(compiled):
    """Both leave a draining replica; A's first stage waits until C's last one is over.

    C: 0.02 to 0.114, leaves at 0.12, is there at 0.214. A: from 0.214 to 0.308, more than a block
    behind by then; again until 0.402, leaves at 0.41, is there at 0.504.
    """
    made = run(
        two(0.0, 0.094, Migration(0.02, 600.0, 800.0), changes=(Change(0.005, 0, State.DRAINING),)),
        abc(300), compiled=compiled,
    )  # fmt: skip
    assert made.record.finish[2] == pytest.approx(0.214 + 0.01 * (300 - 12))
    assert made.record.finish[0] == pytest.approx(0.504 + 0.01 * (300 - 41))
    assert made.record.on_time[0] == pytest.approx(0.504)


@BOTH
def test_static_batches_go_on_after_a_migration(compiled):
    """The only request of the first replica's batch moves away; the next batch starts."""
    limits = engine("static", max_num_seqs=1)
    cluster = Cluster(
        (flat(0.01),), (Replica(limits), Replica(engine())), Routing.ROUND_ROBIN,
        migration=Migration(interval=0.055, low=998.5, high=999.5),
    )  # fmt: skip
    asked = ask([0.0, 0.0, 0.001], [20, 20, 10], [50, 2, 60])
    made = run(cluster, asked, compiled=compiled)
    assert made.record.replica.tolist() == [1, 1, 0]
    assert made.record.start[2] == pytest.approx(0.06)


@BOTH
def test_balance_shortens_the_tail(compiled):
    """Lengths that a round robin cannot see fill one replica after the other."""
    rng = np.random.default_rng(0)
    output = np.where(np.arange(160) % 4 == 0, 400, 20)  # every fourth is long: all on one of two
    asked = ask(np.sort(rng.random(160)) * 8, rng.integers(20, 100, 160), output)
    limits = engine(max_num_seqs=32, blocks=300)
    results = {}
    for when in (None, Migration(0.1, 20.0, 30.0)):
        cluster = fleet(flat(0.01, row=1e-4, context=1e-6), 2, limits, routing=Routing.ROUND_ROBIN,
                        link=Link(0.005, 1e-6), migration=when)  # fmt: skip
        results[when] = run(cluster, asked, compiled=compiled)
    off, on = results.values()
    assert on.record.counts["migrations"] > 10
    assert np.quantile(on.e2el, 0.99) < 0.8 * np.quantile(off.e2el, 0.99)
    assert on.record.preemptions.sum() <= off.record.preemptions.sum()
