"""Priorities: who is let in first, and who gives way."""

import numpy as np
import pytest

from perfmodel.serving.simulate.policy import Speculation
from tests.unit.serving.simulate.hand import BOTH, alone, ask, engine, flat, run


@BOTH
def test_smaller_numbers_first_then_order_of_arrival(compiled):
    """One place; six wait when the first is done."""
    asked = ask(np.arange(7) * 1e-6, 10, 2, priority=[5, 2, 0, 2, -7, 0, 9])
    made = run(alone(flat(1.0), engine(max_num_seqs=1)), asked, compiled=compiled)
    assert np.argsort(made.record.start).tolist() == [0, 4, 2, 5, 1, 3, 6]
    assert np.sort(made.record.start).tolist() == [0, 2, 4, 6, 8, 10, 12]


@BOTH
@pytest.mark.parametrize(("large", "small", "starts"), [(0, 1, (3.0, 3.0)), (1, 0, (3.0, 1.0))])
def test_only_the_first_in_line_of_the_highest_priority_is_looked_at(
    large, small, starts, compiled
):
    """A holds 10 of 20 blocks until 3; B needs 12, C 1."""
    asked = ask([0.0, 0.1, 0.2], [160, 192, 16], [3, 2, 2], priority=[0, large, small])
    made = run(alone(flat(1.0), engine(blocks=20)), asked, compiled=compiled)
    assert tuple(made.record.start[1:]) == starts


@BOTH
@pytest.mark.parametrize(
    ("priority", "victims"),
    [([0, 0, 0], [2]), ([1, 0, 0], [0]), ([1, 1, 0], [1]), ([0, 2, 1], [1]), ([3, 2, 1], [0])],
)
def test_the_youngest_of_the_lowest_priority_gives_way(priority, victims, compiled):
    """Three requests of 2 blocks in 7: the third token of each takes a third block."""
    asked = ask([0.0, 0.1, 0.2], 15, [4, 8, 8], priority=priority)
    made = run(alone(flat(1.0), engine(block_size=8, blocks=7)), asked, compiled=compiled)
    # A's prompt 0-1, B's and C's 1-2; at 2 A grows into the last block, at 3 B and C want one
    assert np.flatnonzero(made.record.preempted).tolist() == victims
    assert made.record.preemptions == 1


@BOTH
def test_preempted_before_others_of_its_priority_after_those_of_higher(compiled):
    """B, preempted at 2 by A's growth, C, there before, and D of higher priority wait for A's end.

    At 10 D takes all four blocks until 12; then B computes 15 + 2 tokens again, and C, which needs
    two blocks beside B's three, is last.
    """
    asked = ask([0.0, 0.0, 0.5, 3.5], [15, 15, 15, 30], [10, 10, 2, 2], priority=[1, 1, 1, 0])
    limits = engine(block_size=8, blocks=4, max_num_seqs=2)
    made = run(alone(flat(1.0), limits), asked, compiled=compiled)
    assert made.record.preempted.tolist() == [0, 1, 0, 0]
    assert made.record.start.tolist() == [0, 0, 20, 10]
    assert made.record.finish.tolist() == [10, 20, 22, 12]


@BOTH
def test_nobody_is_let_in_by_the_step_that_throws_out(compiled):
    """At 2 B gives way for A; one block is left, which C, of higher priority, gets at 3."""
    asked = ask([0.0, 0.0, 0.5], [15, 15, 5], [10, 10, 2], priority=[1, 1, 0])
    made = run(alone(flat(1.0), engine(block_size=8, blocks=4)), asked, compiled=compiled)
    assert made.record.preempted.tolist() == [0, 1, 0]
    assert made.record.start[2] == 3


@BOTH
@pytest.mark.parametrize(("urgent", "preempted"), [(False, 0), (True, 3)])
def test_an_urgent_prompt_under_way_is_not_thrown_out_by_lesser_decodes(
    urgent, preempted, compiled
):
    """Eight decodes grow by 8 blocks while a prompt of 38 is in its sixth of seven steps.

    49 blocks: 8 + 38 fit, 16 + 38 do not. After 460 tokens (29 blocks) beside 16 there are 4; the
    sixth chunk takes 6, the seventh 3 more. An urgent prompt takes them from three decodes of two
    blocks each; a prompt like the others waits for them instead.
    """
    asked = ask([0.0] * 8 + [1e-6], [11] * 8 + [600], [30] * 8 + [2],
                priority=[1] * 8 + [0 if urgent else 1])  # fmt: skip
    limits = engine(budget=100, max_num_seqs=9, blocks=49)
    made = run(alone(flat(1.0), limits), asked, compiled=compiled)
    assert made.record.preempted[8] == (0 if urgent else 1)
    assert made.record.preempted[:8].sum() == preempted
    if urgent:
        assert made.record.preempted[:8].tolist() == [0] * 5 + [1] * 3
        assert made.record.first[8] == 1 + 7
    else:
        assert made.record.start[8] == 1  # its first start
        assert made.record.first[8] == made.record.finish[0] + 6  # alone: 100 tokens a step


@BOTH
def test_drafts_of_those_who_give_way_are_not_verified(compiled):
    """As above, with a draft token each: the sixth chunk's step verifies those who stay."""
    rule = Speculation(0.0, np.ones(11, np.int64), np.zeros(11))
    asked = ask([0.0] * 8 + [1e-6], [11] * 8 + [600], [30] * 8 + [2], priority=[1] * 8 + [0])
    limits = engine(budget=108, max_num_seqs=9, blocks=49, speculation=rule)
    made = run(alone(flat(1.0), limits), asked, compiled=compiled)
    assert made.record.preempted[8] == 0
    gone = made.record.preempted[:8].sum()
    assert gone > 0
    rows = {int(i): int(made.record.row_steps[0, i]) for i in np.flatnonzero(made.record.row_steps)}
    # full steps of 8 x 2 + 92 tokens, one after decodes of two tokens each went
    assert any(rows.get(108 - 2 * lost) for lost in range(1, int(gone) + 1))


@BOTH
def test_priorities_do_not_change_the_work(compiled):
    rng = np.random.default_rng(0)
    table = flat(0.0, row=1e-4)
    arrival, prompt, output = np.zeros(60), rng.integers(1, 200, 60), rng.integers(1, 60, 60)
    runs = [
        run(alone(table, engine()), ask(arrival, prompt, output, **columns), compiled=compiled)
        for columns in ({}, {"priority": rng.integers(0, 3, 60)})
    ]
    assert runs[0].record.makespan == pytest.approx(runs[1].record.makespan, rel=1e-9)
    level = runs[1].requests.priority
    waits = [runs[1].queue_time[level == each].mean() for each in range(3)]
    assert waits[0] < waits[1] < waits[2]
