"""Preemption by swapping, and how requests that bring their cache get their places."""

import numpy as np
import pytest

from perfmodel.serving.simulate import Cluster, Replica
from perfmodel.serving.simulate.fleet import Role
from tests.unit.serving.simulate.hand import BOTH, alone, ask, bins, engine, flat, gaps, run
from tests.unit.serving.simulation import surface

BLOCK = 0.003  # to move one block [s]


def small(**changes):
    return engine(**{"block_size": 8, "swap_time": BLOCK} | changes)


@BOTH
def test_swapped_out_and_in_again(compiled):
    """As the recomputation in ``test_simulate``, but B's two blocks go to the host and back."""
    table = surface()
    made = run(alone(table, small(blocks=4)), ask([0.0, 0.0], 15, 10), compiled=compiled)
    steps = [
        table.time([], [(15, 0), (15, 0)]), table.time([16, 16]),
        table.time([17]) + 2 * BLOCK,  # out
        *(table.time([18 + i]) for i in range(7)),
        table.time([17]) + 2 * BLOCK,  # in
        *(table.time([18 + i]) for i in range(7)),
    ]  # fmt: skip
    times = np.cumsum(steps)
    np.testing.assert_allclose(made.record.finish, times[[9, 17]], rtol=1e-12)
    assert made.record.preempted.tolist() == [0, 1]
    assert made.record.counts["swapped_blocks"] == 4
    assert made.record.prompt_tokens == 30
    assert made.record.steps == 18
    assert gaps(made) == bins(*steps[1:10], steps[1], times[10] - times[1], *steps[11:])


@BOTH
def test_swapped_ones_come_before_waiting_ones(compiled):
    """C arrives while B is out; when A ends at 10 there are blocks for B's three or for C's two.

    One block is free all along, which is as much as D needs: it has to wait for B as well.
    """
    asked = ask([0.0, 0.0, 4.0], 15, [10, 10, 2])
    made = run(alone(flat(1.0), small(blocks=4, swap_time=0.0)), asked, compiled=compiled)
    assert made.record.preempted.tolist() == [0, 1, 0]
    assert made.record.start.tolist() == [0, 0, 18]
    assert made.record.finish.tolist() == [10, 18, 20]
    asked = ask([0.0, 0.0, 4.0], [15, 15, 5], [10, 10, 2])
    made = run(alone(flat(1.0), small(blocks=4, swap_time=0.0)), asked, compiled=compiled)
    assert made.record.start.tolist() == [0, 0, 10]


@BOTH
def test_the_older_of_two_swapped_ones_returns_first(compiled):
    """At 2 A's growth swaps D, and C's finds only C itself. A ends at 4, B at 12."""
    asked = ask([0.0] * 4, 15, [4, 12, 12, 12])
    made = run(alone(flat(1.0), small(blocks=8, swap_time=0.0)), asked, compiled=compiled)
    assert made.record.preempted.tolist() == [0, 0, 1, 1]
    assert made.record.finish.tolist() == [4, 12, 4 + 10, 12 + 10]


@BOTH
def test_whoever_returns_has_room_to_go_on(compiled):
    """Without room for its next token a request would be swapped out in the step it comes back.

    At 2 A takes the fifth block and B, which wants one too, goes. Two blocks are free then, as many
    as B had, but B needs three from the start: it waits for A's end at 18.
    """
    asked = ask([0.0, 0.0], 15, [18, 10])
    made = run(alone(flat(1.0), small(blocks=5, swap_time=0.0)), asked, compiled=compiled)
    assert made.record.preempted.tolist() == [0, 1]
    assert made.record.counts["swapped_blocks"] == 4
    assert made.record.finish.tolist() == [18, 18 + 8]


@BOTH
def test_several_moves_lengthen_one_step(compiled):
    """Five requests of two blocks in ten: at 2 the youngest two make room for the oldest three."""
    asked = ask([0.0] * 5, 15, 10)
    made = run(alone(flat(1.0), small(blocks=10, swap_time=0.01)), asked, compiled=compiled)
    assert made.record.finish == pytest.approx([10.04] * 3 + [18.08] * 2)
    assert made.record.counts["swapped_blocks"] == 8


@BOTH
@pytest.mark.parametrize("policy", ["vllm-v1", "prefill-first", "sarathi"])
def test_nothing_is_computed_twice(policy, compiled):
    rng = np.random.default_rng(0)
    asked = ask(np.sort(rng.random(80)) * 3, rng.integers(1, 60, 80), rng.integers(1, 90, 80))
    limits = small(blocks=30, max_num_seqs=20, policy=policy)
    made = run(alone(flat(0.01), limits), asked, compiled=compiled)
    assert made.record.preemptions > 5
    assert made.record.prompt_tokens == asked.prompt.sum()
    assert made.record.decode_tokens == (asked.output - 1).sum()
    # so many steps of 10 ms, and each block moved
    moved = made.record.counts["swapped_blocks"]
    assert made.record.busy == pytest.approx(0.01 * made.record.steps[0] + BLOCK * moved)
    assert moved % 2 == 0


@BOTH
def test_a_prompt_under_way_has_nothing_to_swap(compiled):
    """The youngest is in its prompt when the others grow: it is computed again."""
    asked = ask([0.0] * 4 + [1e-6], [15] * 4 + [64], [10] * 4 + [2])
    limits = small(budget=60, blocks=16, max_num_seqs=5)
    made = run(alone(flat(1.0), limits), asked, compiled=compiled)
    # at 1: 8 blocks used, 8 free, as many as the prompt has; at 2 its 56 tokens hold 7 of them,
    # and four blocks are wanted; the others end at 10
    assert made.record.preempted.tolist() == [0, 0, 0, 0, 1]
    assert made.record.counts["swapped_blocks"] == 0
    assert made.record.prompt_tokens == 60 + 56 + 64
    assert made.record.first[4] == 10 + 2


# --- requests that come with their cache ----------------------------------------------------------


@BOTH
def test_a_transferred_cache_waits_for_its_blocks(compiled):
    """Decode replica of 5 blocks of 16; A and B bring 2 and will have 3."""
    pair = (
        Replica(engine(), role=Role.PREFILL),
        Replica(engine(blocks=5), role=Role.DECODE),
    )
    asked = ask([0.0, 0.0], 31, [12, 12])
    made = run(Cluster((flat(1.0),), pair), asked, compiled=compiled)
    # both prompts end at 1; A decodes from 1, and grows at 2 (32 tokens) into its third block; B
    # joins at 1, its growth at 2 finds none: it is computed again once A is done, at 12
    assert made.record.preempted.tolist() == [0, 1]
    assert made.record.finish.tolist() == [12, 12 + 10]
    assert made.record.prompt_tokens.tolist() == [62, 33]


@BOTH
def test_whoever_lands_has_room_to_go_on(compiled):
    """B brings 32 tokens in 2 blocks; 2 are free, but its first token needs a third."""
    pair = (
        Replica(engine(), role=Role.PREFILL),
        Replica(engine(blocks=5), role=Role.DECODE),
    )
    asked = ask([0.0, 1.0], [40, 32], [8, 3])
    made = run(Cluster((flat(1.0),), pair), asked, compiled=compiled)
    # A holds 3 blocks until 8
    assert made.record.preemptions.tolist() == [0, 0]
    assert made.record.finish.tolist() == [8, 8 + 2]
    assert gaps(made) == bins(*[1.0] * 7, 7.0, 1.0)


@BOTH
def test_landed_ones_come_in_order(compiled):
    """Two places; the third waits for the first to end."""
    pair = (
        Replica(engine(), role=Role.PREFILL),
        Replica(engine(max_num_seqs=2), role=Role.DECODE),
    )
    asked = ask([0.0, 0.0, 0.0], 10, [4, 9, 3])
    made = run(Cluster((flat(1.0),), pair), asked, compiled=compiled)
    assert made.record.finish.tolist() == [4, 9, 4 + 2]
