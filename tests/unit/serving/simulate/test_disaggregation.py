"""Prompts computed here, decoded there: the cache's way over the link."""

import numpy as np
import pytest

from perfmodel.serving.simulate import Cluster, Replica
from perfmodel.serving.simulate.fleet import Change, Link, Role, State
from tests.unit.serving.simulate.hand import BOTH, ask, bins, ends, engine, flat, gaps, run
from tests.unit.serving.simulation import poisson, surface

LINK = Link(latency=0.002, per_token=1e-5)


def pools(table, prefill=None, decode=None, link=LINK, decoders=1, **rules) -> Cluster:
    replicas = [Replica(prefill or engine(), role=Role.PREFILL)]
    replicas += [Replica(decode or engine(), role=Role.DECODE)] * decoders
    return Cluster((table,), tuple(replicas), link=link, **rules)


@BOTH
def test_prompt_transfer_decode(compiled):
    table = surface()
    made = run(pools(table), ask([0.0], 300, 4), compiled=compiled)
    (prompt,) = ends(table, ([], [(300, 0)]))
    moved = prompt + 0.002 + 300e-5
    times = ends(table, [301], [302], [303], at=moved)
    assert made.record.first == pytest.approx([prompt], rel=1e-12)
    assert made.record.finish == pytest.approx(times[-1:], rel=1e-12)
    # the second token waits for the transfer, the others do not
    assert gaps(made) == bins(times[0] - prompt, *np.diff(times))
    assert made.record.counts["transfers"] == 1
    assert made.record.replica.tolist() == [1]
    assert made.record.prompt_tokens.tolist() == [300, 0]
    assert made.record.decode_tokens.tolist() == [0, 3]


@BOTH
def test_copies_leave_a_replica_one_after_the_other(compiled):
    """Three prompts end at 1; their copies take 2.2, 2.1 and 2.2 s, one after the other."""
    link = Link(latency=2.0, per_token=1e-3)
    made = run(pools(flat(1.0), link=link), ask(np.zeros(3), [200, 100, 200], 2), compiled=compiled)
    assert made.record.first.tolist() == [1, 1, 1]
    # there at 3.2, 5.3 and 7.5, each with a step of its own
    assert made.record.finish == pytest.approx([4.2, 6.3, 8.5])


@BOTH
def test_each_source_has_its_own_way_out(compiled):
    link = Link(latency=2.0)
    replicas = (Replica(engine(), role=Role.PREFILL),) * 2 + (Replica(engine(), role=Role.DECODE),)
    made = run(Cluster((flat(1.0),), replicas, link=link), ask(np.zeros(2), 10, 2),
               compiled=compiled)  # fmt: skip
    assert made.record.finish.tolist() == [4, 4]


@BOTH
def test_blocks_are_held_until_the_copy_is_over(compiled):
    """A's 7 of 10 blocks are free again at 1 + 5; B needs 4."""
    link = Link(latency=5.0)
    made = run(
        pools(flat(1.0), prefill=engine(blocks=10), link=link), ask([0.0, 0.0], [100, 50], 2),
        compiled=compiled,
    )  # fmt: skip
    assert made.record.start.tolist() == [0, 6]
    assert made.record.peak_blocks[0] == 7
    assert made.record.preemptions.sum() == 0


@BOTH
def test_a_single_token_needs_no_decoder(compiled):
    made = run(pools(flat(1.0)), ask([0.0, 0.0], 10, [1, 2]), compiled=compiled)
    assert made.record.replica.tolist() == [0, 1]
    assert made.record.counts["transfers"] == 1


@BOTH
def test_decodes_are_not_disturbed_by_prompts(compiled):
    """Every gap is a decode step, but the first of each request; in one pool prompts stretch it."""
    table = flat(0.01, row=1e-4)
    limits = engine(max_num_seqs=1, budget=4000)
    asked = poisson(3.0, 60, 1000, 8, seed=1)
    apart = run(pools(table, decode=limits), asked, compiled=compiled)
    step = table.time([1])
    found = gaps(apart)
    (place,) = bins(step)
    assert found[place] >= 60 * 6
    assert sum(count for at, count in found.items() if at != place) <= 60
    assert apart.tpot.min() >= (step * 7 + 0.002 + 1000e-5) / 7 - 1e-9
    mixed = run(Cluster((table,), (Replica(engine(budget=4000)),)), asked, compiled=compiled)
    assert max(gaps(mixed)) > bins(table.time([], [(1000, 0)])).popitem()[0] - 2


@BOTH
@pytest.mark.parametrize("policy", ["trtllm", "sglang"])
def test_a_prefill_replica_reserves_for_prompts_alone(policy, compiled):
    """Four prompts of 2 blocks fit in 8, whatever they will generate elsewhere."""
    made = run(
        pools(flat(1.0), prefill=engine(policy, blocks=8), decode=engine(max_num_seqs=2)),
        ask(np.zeros(4), 32, 90), compiled=compiled,
    )  # fmt: skip
    assert made.record.start.tolist() == [0, 0, 0, 0]
    assert made.record.preemptions.tolist() == [0, 0]


@BOTH
def test_cached_prefixes_are_copied_too(compiled):
    """B computes 4 tokens, but its whole cache of 100 is copied."""
    link = Link(per_token=0.01)
    asked = ask([0.0, 10.0], 100, 2, hash_ids=[[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 8]])
    made = run(
        pools(flat(1.0), prefill=engine(prefix_cache=True), link=link), asked, compiled=compiled
    )
    assert made.record.hits.tolist() == [0, 96]
    assert made.record.finish == pytest.approx([3.0, 13.0])


@BOTH
def test_caches_that_nobody_takes_wait(compiled):
    """The only decoder is off until 20: the copy is made, and decodes from then on."""
    cluster = Cluster(
        (flat(1.0),),
        (Replica(engine(), role=Role.PREFILL),
         Replica(engine(), role=Role.DECODE, state=State.OFF)),
        changes=(Change(20.0, 1, State.READY),),
    )  # fmt: skip
    made = run(cluster, ask([0.0, 0.0], 10, 3), compiled=compiled)
    assert made.record.first.tolist() == [1, 1]
    assert made.record.finish.tolist() == [22, 22]


@BOTH
def test_a_failed_prefill_replica_loses_what_it_has_not_sent(compiled):
    """At 2 A's copy is under way: A is computed again on the other, with its first token kept."""
    replicas = (Replica(engine(), role=Role.PREFILL),) * 2 + (Replica(engine(), role=Role.DECODE),)
    cluster = Cluster(
        (flat(1.0),), replicas, link=Link(latency=5.0), changes=(Change(2.0, 0, State.FAILED),)
    )
    made = run(cluster, ask([0.0], 10, 4), compiled=compiled)
    assert made.record.first.tolist() == [1]
    # computed again 2-3, which gives the second token; copied 3-8; two more tokens
    assert made.record.finish.tolist() == [10]
    assert made.record.prompt_tokens.tolist() == [10, 11, 0]
    assert made.record.counts["retries"] == 1
    assert made.record.counts["transfers"] == 1


@BOTH
def test_what_was_to_be_sent_does_not_hold_up_a_recovered_replica(compiled):
    """A's copy would have taken until 101; the replica is back at 3, and B's takes 1 s."""
    changes = (Change(2.0, 0, State.FAILED), Change(3.0, 0, State.READY))
    cluster = pools(flat(1.0), link=Link(per_token=1.0), changes=changes)
    made = run(cluster, ask([0.0, 3.0], [100, 1], 2), compiled=compiled)
    # both prompts 3-4, which gives A its second and last token; B is copied 4-5
    assert made.record.finish.tolist() == [4, 6]


@BOTH
def test_a_failed_decoder_sends_its_requests_back_to_prefill(compiled):
    """At 3.5 A has three tokens; 13 tokens are computed again and copied to the other decoder."""
    cluster = pools(
        flat(1.0), link=Link(per_token=0.1), decoders=2, changes=(Change(3.5, 1, State.FAILED),)
    )
    made = run(cluster, ask([0.0], 10, 6), compiled=compiled)
    # prompt 0-1, copy 1-2, tokens at 3; lost at 3.5; prompt of 12 until 4.5; copied for 1.2; three
    # more tokens
    assert made.record.finish == pytest.approx([4.5 + 1.2 + 3])
    assert made.record.replica.tolist() == [2]
    assert made.record.prompt_tokens.tolist() == [10 + 12, 0, 0]
