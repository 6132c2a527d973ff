"""Prefix caching: what is found, what is shared, what is given up."""

from collections import OrderedDict

import numpy as np
import pytest

from perfmodel.serving.lengths import Fixed
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.fleet import Routing
from perfmodel.serving.workload import SharedPrefix, generate, summarise
from tests.unit.serving.simulate.hand import BOTH, alone, ask, ends, engine, flat, fleet, run
from tests.unit.serving.simulation import surface


def cached(**changes):
    return engine(prefix_cache=True, **changes)


def late(count: int) -> list[float]:
    """Arrivals so far apart that each request is alone."""
    return [1000.0 * i for i in range(count)]


# --- hits -----------------------------------------------------------------------------------------


@BOTH
def test_a_later_request_computes_the_rest(compiled):
    """48 tokens in three blocks are common to A (50) and B (100 tokens)."""
    table = surface()
    asked = ask([0.0, 10.0], [50, 100], [3, 2], hash_ids=[[1, 2, 3, 9], [1, 2, 3, 4, 5, 6, 8]])
    made = run(alone(table, cached()), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 48]
    assert made.record.counts["hit_tokens"] == 48
    assert made.record.prompt_tokens == 50 + 52
    np.testing.assert_allclose(
        made.ttft, [table.time([], [(50, 0)]), table.time([], [(52, 48)])], rtol=1e-12
    )
    assert made.tpot[1] == pytest.approx(table.time([101]), rel=1e-9)
    without = run(alone(table, engine()), asked, compiled=compiled)
    assert without.record.hits.tolist() == [0, 0]


@BOTH
@pytest.mark.parametrize(("tokens", "hits"), [(48, 32), (49, 48), (16, 0), (17, 16), (1, 0)])
def test_at_least_one_token_is_computed(tokens, hits, compiled):
    asked = ask(late(2), tokens, 1, hash_ids=[[1, 2, 3, 4][: -(-tokens // 16)]] * 2)
    made = run(alone(flat(0.01), cached()), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, hits]


@BOTH
def test_a_hit_ends_where_prompts_part(compiled):
    """Block 7 is known, but behind a block that is not."""
    asked = ask(late(2), 65, 1, hash_ids=[[1, 7, 8, 9, 2], [1, 5, 7, 8, 3]])
    made = run(alone(flat(0.01), cached()), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 16]


@BOTH
def test_pieces_of_several_blocks(compiled):
    """Content is told apart by 32 tokens, blocks hold 16: 64 of 95 tokens are two pieces."""
    asked = ask(late(2), 95, 1, hash_ids=[[1, 2, 3], [1, 2, 3]], hash_block=32)
    made = run(alone(flat(0.01), cached()), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 64]
    assert made.record.peak_blocks == 6


# --- sharing while both run -----------------------------------------------------------------------


@BOTH
def test_content_is_shared_from_the_step_that_computes_it(compiled):
    """B finds what A computes in the same step; six blocks are shared, each adds its seventh."""
    table = surface()
    asked = ask([0.0, 0.0], 100, [3, 3], hash_ids=[[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 8]])
    made = run(alone(table, cached()), asked, compiled=compiled)
    times = ends(table, ([], [(100, 0), (4, 96)]), [101, 101], [102, 102])
    np.testing.assert_allclose(made.record.first, times[0], rtol=1e-12)
    np.testing.assert_allclose(made.record.finish, times[2], rtol=1e-12)
    assert made.record.peak_blocks == 8


@BOTH
def test_only_what_is_computed_is_shared(compiled):
    """Of A's 100 tokens the first step computes 64; B joins in the second, when all are there."""
    table = surface()
    asked = ask([0.0, 0.0], 100, [1, 1], hash_ids=[[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 8]])
    made = run(alone(table, cached(budget=64)), asked, compiled=compiled)
    times = ends(table, ([], [(64, 0)]), ([], [(36, 64), (4, 96)]))
    np.testing.assert_allclose(made.record.finish, times[1], rtol=1e-12)
    assert made.record.start[1] == pytest.approx(times[0], rel=1e-12)


@BOTH
def test_a_block_computed_twice_is_held_twice(compiled):
    """The last of two whole blocks is computed again by B, which keeps a copy of its own."""
    asked = ask([0.0, 0.0, 100.0], 32, [3, 3, 1], hash_ids=[[1, 2]] * 3)
    made = run(alone(flat(0.01), cached()), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 16, 16]
    # two prompt blocks of A, one of B, and a third block each for the output
    assert made.record.peak_blocks == 5


@BOTH
def test_replicas_do_not_share(compiled):
    asked = ask(late(4), 50, 1, hash_ids=[[1, 2, 3, 9]] * 4)
    made = run(fleet(flat(0.01), 2, cached(), routing=Routing.ROUND_ROBIN), asked,
               compiled=compiled)  # fmt: skip
    assert made.record.hits.tolist() == [0, 0, 48, 48]


# --- what is given up -----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("between", "hits", "evicted"),
    [(33, 48, 0), (48, 48, 1), (49, 32, 2), (65, 16, 4), (81, 0, 6)],
)
def test_the_tail_of_what_was_released_first_goes_first(between, hits, evicted, compiled):
    """Six blocks, three of which A leaves behind; the second takes 3 to 6, then A comes again."""
    ids = [[1, 2, 3, 90], [11, 12, 13, 14, 15, 16][: -(-between // 16)], [1, 2, 3, 91]]
    asked = ask(late(3), [49, between, 49], 1, hash_ids=ids)
    made = run(alone(flat(0.01), cached(blocks=6)), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 0, hits]
    assert made.record.counts["evicted_blocks"] == evicted


@BOTH
def test_what_was_used_last_stays(compiled):
    """A, B, A again, then C takes room: B's block goes, A's stays."""
    ids = [[1, 90], [2, 91], [1, 92], [3, 4, 93], [1, 94], [2, 95]]
    asked = ask(late(6), [17, 17, 17, 33, 17, 17], 1, hash_ids=ids)
    made = run(alone(flat(0.01), cached(blocks=4)), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 0, 16, 0, 16, 0]


@BOTH
def test_what_is_held_is_not_given_up(compiled):
    """B shares A's three blocks and goes on for long; C fills the rest; D still finds them."""
    ids = [[1, 2, 3, 90], [1, 2, 3, 91], [4, 5, 6, 7, 8], [1, 2, 3, 92]]
    asked = ask([0.0, 0.1, 3.0, 20.0], [49, 49, 65, 49], [1, 40, 10, 1], hash_ids=ids)
    made = run(alone(flat(1.0), cached(blocks=12)), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 48, 0, 48]
    assert made.record.preemptions == 0


@BOTH
def test_an_answer_can_be_found_once_it_is_whole(compiled):
    """A conversation: the second prompt is the first, its answer of 20 tokens, and 13 more.

    The last token of an answer is never computed, so of 16 + 19 cached tokens two blocks are whole;
    while the answer is under way only the prompt's block can be found.
    """
    ids = [[1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 5]]
    asked = ask([0.0, 0.05, 10.0], [16, 49, 49], [20, 1, 1], hash_ids=ids)
    made = run(alone(flat(0.01), cached(blocks=20)), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 16, 48]  # B has computed the third block


@BOTH
@pytest.mark.parametrize("blocks", [24, 60])
def test_hits_are_those_of_an_lru_model(blocks, compiled):
    """One request at a time; no prompt ends with a block, so nothing is computed twice."""
    rng = np.random.default_rng(blocks)
    prompts = 16 * rng.integers(0, 18, 400) + rng.integers(1, 16, 400)
    output = rng.integers(1, 40, 400)
    groups = rng.zipf(1.5, 400) % 9
    common = np.minimum(rng.integers(0, 18, 400), prompts // 16)
    ids = [
        [100 * g + i for i in range(c)] + [10_000 + 20 * n + i for i in range(p // 16 + 1 - c)]
        for n, (g, c, p) in enumerate(zip(groups.tolist(), common, prompts, strict=True))
    ]
    asked = ask(late(400), prompts, output, hash_ids=ids)
    made = run(alone(flat(0.01), cached(blocks=blocks)), asked, compiled=compiled)
    lru, hits, evicted = OrderedDict(), [], 0
    for content, prompt, new in zip(ids, prompts, output, strict=True):
        whole = content[: prompt // 16]
        found = next((i for i, block in enumerate(whole) if block not in lru), len(whole))
        hits.append(16 * found)
        for block in whole[:found]:
            del lru[block]
        while len(lru) > blocks - -(-(prompt + new - 1) // 16):
            lru.popitem(last=False)
            evicted += 1
        for block in reversed(content[: (prompt + new - 1) // 16]):
            lru[block] = None
            lru.move_to_end(block)
    assert made.record.hits.tolist() == hits
    assert made.record.counts["evicted_blocks"] == evicted > 0
    assert sum(hits) > 0


@BOTH
@pytest.mark.parametrize("rate", [0.1, np.inf])
def test_an_endless_cache_finds_every_repeated_block(rate, compiled):
    asked = generate(Fixed(200), Fixed(5), 300, rate, prefix=SharedPrefix(100, groups=7, share=0.8))
    made = run(alone(flat(0.01), cached(blocks=10**5)), asked, compiled=compiled)
    repeated = summarise(asked).repeated
    assert repeated is not None
    assert made.record.counts["hit_tokens"] == round(repeated * 300 * 13) * 16 > 0
    assert made.record.counts["evicted_blocks"] == 0


# --- under pressure -------------------------------------------------------------------------------


@BOTH
def test_a_preempted_request_finds_its_own_blocks(compiled):
    """As in ``test_simulate``, but B's first block of eight survives its preemption."""
    table = surface()
    asked = ask([0.0, 0.0], 15, 10, hash_ids=[[1, 8], [2, 9]], hash_block=8)
    made = run(alone(table, cached(block_size=8, blocks=4)), asked, compiled=compiled)
    assert made.record.preempted.tolist() == [0, 1]
    times = ends(
        table, ([], [(15, 0), (15, 0)]), [16, 16], *([17 + i] for i in range(8)),
        ([], [(9, 8)]), *([18 + i] for i in range(7)),
    )  # fmt: skip
    np.testing.assert_allclose(made.record.finish, [times[9], times[17]], rtol=1e-12)
    assert made.record.counts["hit_tokens"] == 8
    assert made.record.hits.tolist() == [0, 0]  # of first admissions
    assert made.record.prompt_tokens == 15 + 15 + 9


@BOTH
def test_sharing_saves_blocks_and_preemptions(compiled):
    asked = generate(Fixed(200), Fixed(60), 60, np.inf, prefix=SharedPrefix(192, groups=2), seed=3)
    results = {
        shared: run(alone(flat(0.01, row=1e-4), engine(blocks=60, prefix_cache=shared)), asked,
                    compiled=compiled)
        for shared in (False, True)
    }  # fmt: skip
    assert results[True].record.makespan < 0.6 * results[False].record.makespan
    assert results[True].record.peak_blocks <= 60
    assert results[True].running > 1.5 * results[False].running


@BOTH
def test_turns_of_a_conversation_find_the_ones_before(compiled):
    """Each turn repeats 64 tokens more; only whole blocks of prompts are found, not answers."""
    turns = [range(4 * (i + 1)) for i in range(5)]
    asked = ask(late(5), [64 * (i + 1) + 1 for i in range(5)], 10,
                hash_ids=[[*turn, 900 + i] for i, turn in enumerate(turns)])  # fmt: skip
    made = run(alone(flat(0.01), cached()), asked, compiled=compiled)
    assert made.record.hits.tolist() == [0, 64, 128, 192, 256]


def test_requests_without_content_find_nothing():
    asked = Requests(np.zeros(2), np.array([64, 64]), np.array([2, 2]), hash_block=16)
    made = run(alone(flat(0.01), cached()), asked, compiled=False)
    assert made.record.hits.tolist() == [0, 0]
