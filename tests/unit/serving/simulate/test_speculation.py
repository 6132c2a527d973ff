"""Speculative decoding: how many tokens a step gives, and what it costs."""

import math

import numpy as np
import pytest

from perfmodel.serving.simulate.policy import Speculation
from tests.unit.serving.simulate.hand import BOTH, alone, ask, engine, flat, run

LONG = 3000


def rule(acceptance: float, lengths, draft: float = 0.0, seed: int = 0) -> Speculation:
    """One length for any number of sequences, or a list by that number."""
    each = np.broadcast_to(np.asarray(lengths, np.int64), 9)
    return Speculation(acceptance, each.copy(), np.full(9, draft), seed)


def speculative(acceptance: float, lengths, draft: float = 0.0, seed: int = 0, **changes):
    return engine(speculation=rule(acceptance, lengths, draft, seed), **changes)


def law(acceptance: float, length: int) -> tuple[float, float]:
    """Mean and variance of the tokens of a step."""
    chances = [acceptance**i * (1 - acceptance) for i in range(length)] + [acceptance**length]
    mean = sum(p * (i + 1) for i, p in enumerate(chances))
    return mean, sum(p * (i + 1 - mean) ** 2 for i, p in enumerate(chances))


@BOTH
@pytest.mark.parametrize("length", [1, 2, 4, 7])
@pytest.mark.parametrize("acceptance", [0.3, 0.7, 0.9])
def test_tokens_per_step(acceptance, length, compiled):
    """(1 - a^(k+1)) / (1 - a), within four standard deviations."""
    made = run(
        alone(flat(1.0), speculative(acceptance, length, seed=length)), ask([0.0], 10, LONG),
        compiled=compiled,
    )  # fmt: skip
    mean, variance = law(acceptance, length)
    assert mean == pytest.approx((1 - acceptance ** (length + 1)) / (1 - acceptance))
    steps = int(made.record.steps[0]) - 1
    assert abs((LONG - 1) / steps - mean) < 4 * math.sqrt(variance / steps) + length / steps


@BOTH
@pytest.mark.parametrize("length", [0, 1, 3])
def test_limits_of_acceptance(length, compiled):
    """None accepted: a token per step. All: the prompt's token, then length + 1 at a time."""
    for acceptance, steps in ((0.0, 40), (1.0, 1 + -(-40 // (length + 1)))):
        limits = speculative(acceptance, length)
        made = run(alone(flat(1.0), limits), ask([0.0], 10, 41), compiled=compiled)
        assert made.record.steps[0] == steps + (acceptance == 0)
        assert made.record.counts["accepted"] == (41 - made.record.steps[0])
        assert made.record.decode_tokens == 40


@BOTH
def test_no_more_is_proposed_than_is_left(compiled):
    """Seven tokens after the first, four proposed: 4 + 1, then 1 and 1."""
    made = run(alone(flat(1.0), speculative(1.0, 4)), ask([0.0], 10, 8), compiled=compiled)
    assert made.record.counts["proposed"] == 4 + 1
    assert made.record.steps[0] == 3


@BOTH
def test_a_steps_time(compiled):
    """Two sequences verify 3 tokens each, in the first such step beside a prompt; none is accepted.

    The sixth to eighth of their decode steps have 2, 1 and no tokens left to propose.
    """
    limits = speculative(0.0, 3, draft=0.002)
    table = flat(0.01, row=1e-4, sequence=1e-3, context=1e-5)
    asked = ask([0.0, 0.0, 1e-6], [20, 30, 50], [9, 9, 1])
    made = run(alone(table, limits), asked, compiled=compiled)
    steps = [table.time([], [(20, 0), (30, 0)])]
    for i, length in enumerate([3, 3, 3, 3, 3, 2, 1, 0]):
        tokens, prompt = 2 * (1 + length), i == 0
        contexts = (21 + i + length) + (31 + i + length)
        steps.append(
            0.01 + 1e-4 * (tokens + 50 * prompt) + 1e-3 * (tokens + prompt) + 1e-5 * contexts
            + (3 * 0.002 if length else 0.0)
        )  # fmt: skip
    times = np.cumsum(steps)
    np.testing.assert_allclose(made.record.finish, times[[8, 8, 1]], rtol=1e-12)
    assert made.record.counts["proposed"] == 2 * (5 * 3 + 2 + 1)
    assert made.record.row_steps[0][[8 + 50, 8, 6, 4, 2]].tolist() == [1, 4, 1, 1, 1]


@BOTH
def test_length_by_batch(compiled):
    """Four tokens for one sequence, two for two, none, and no time for drafts, for three."""
    limits = speculative(1.0, [0, 4, 2, 0, 0, 0, 0, 0, 0], draft=0.1)
    asked = ask(np.zeros(3), 10, [4, 10, 30])
    made = run(alone(flat(1.0), limits), asked, compiled=compiled)
    # prompts; three steps of three until A has 4; two steps of two with 3 each until B has 10;
    # C has 10 then, and four steps of 5
    times = np.cumsum([1.0] * 4 + [1.2] * 2 + [1.4] * 4)
    np.testing.assert_allclose(made.record.finish, times[[3, 5, 9]], rtol=1e-12)
    assert made.record.counts["proposed"] == 2 * 2 * 2 + 4 * 4


@BOTH
def test_a_prompt_under_way_waits_while_drafts_fill_the_budget(compiled):
    """A and B verify ten tokens a step until 3, so that C, four tokens in, goes on at 3."""
    limits = speculative(1.0, 4, budget=10)
    made = run(alone(flat(1.0), limits), ask(np.zeros(3), [3, 3, 20], [11, 11, 1]),
               compiled=compiled)  # fmt: skip
    assert made.record.finish.tolist() == [3, 3, 5]
    assert made.record.prompt_tokens == 26


@BOTH
def test_draws_do_not_depend_on_the_company(compiled):
    """The same request accepts alike alone and beside others, as its place in the list is equal."""
    limits = speculative(0.6, 4)
    alone_ = run(alone(flat(1.0), limits), ask([0.0], 10, 200), compiled=compiled)
    beside = run(alone(flat(1.0), limits), ask([0.0] * 3, 10, [200, 50, 300]), compiled=compiled)
    assert alone_.record.finish[0] == beside.record.finish[0]
    other = run(alone(flat(1.0), speculative(0.6, 4, seed=1)), ask([0.0], 10, 200),
                compiled=compiled)  # fmt: skip
    assert other.record.finish[0] != alone_.record.finish[0]


@BOTH
@pytest.mark.parametrize("policy", ["vllm-v1", "prefill-first", "sglang", "trtllm"])
def test_tokens_are_conserved_under_pressure(policy, compiled):
    rng = np.random.default_rng(7)
    asked = ask(np.sort(rng.random(60)), rng.integers(1, 80, 60), rng.integers(1, 120, 60),
                hidden=np.zeros(60))  # fmt: skip
    limits = speculative(0.7, [5, 5, 4, 4, 3, 3, 2, 2, 1], blocks=30, budget=64,
                         policy=policy)  # fmt: skip
    made = run(alone(flat(0.01), limits), asked, compiled=compiled)
    counts = made.record.counts
    assert 0.3 * counts["proposed"] < counts["accepted"] < counts["proposed"]
    assert (made.record.preemptions > 0) == (policy in ("vllm-v1", "prefill-first"))


@BOTH
def test_accepted_tokens_come_at_once(compiled):
    """All accepted: three of each step's four tokens have no gap, and the visible one is hit."""
    asked = ask([0.0], 10, 41, hidden=[18])
    made = run(alone(flat(1.0), speculative(1.0, 3)), asked, compiled=compiled)
    assert made.record.histogram[0, -1, 0] == 30
    # tokens 2-5 at 2, 6-9 at 3, 10-13 at 4, 14-17 at 5, 18-21 at 6
    assert made.visible.tolist() == [6.0]
    assert made.statistics("itl")["mean"] == pytest.approx(10 / 40, rel=0.01)
