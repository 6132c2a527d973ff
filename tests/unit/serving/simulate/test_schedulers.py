"""What each policy puts into its steps, and whom it lets in."""

import itertools

import numpy as np
import pytest

from tests.unit.serving.simulate.hand import BOTH, alone, ask, bins, ends, engine, flat, gaps, run
from tests.unit.serving.simulation import surface

# --- the same three requests under each policy ----------------------------------------------------

# prompts of 60, 120 and 50 tokens, 4, 2 and 3 tokens out, 100 tokens a step
A, B, C = (60, 0), (120, 0), (50, 0)
CHUNKED = (
    ([], [A]), ([61], [(99, 0)]), ([62], [(21, 99), C]), [63, 121, 51], [52],
)  # fmt: skip
WHOLE = (([], [A]), ([61], [B]), ([62, 121], [C]), [63, 51], [52])
# policy, places, steps, and the steps that give the first and the last tokens
SCHEDULES = [
    ("vllm-v1", 8, CHUNKED, (0, 2, 2), (3, 3, 4)),
    ("sarathi", 8, CHUNKED, (0, 2, 2), (3, 3, 4)),
    ("splitfuse", 8, CHUNKED, (0, 2, 2), (3, 3, 4)),
    (
        "prefill-first", 8,
        (([], [A]), ([], [B]), ([], [C]), [61, 121, 51], [62, 52], [63]), (0, 1, 2), (5, 3, 4),
    ),
    (
        "sglang", 8,
        (([], [A]), ([], [(100, 0)]), ([], [(20, 100), C]), [61, 121, 51], [62, 52], [63]),
        (0, 2, 2), (5, 3, 4),
    ),
    ("trtllm", 8, WHOLE, (0, 1, 2), (3, 2, 4)),
    ("orca", 8, WHOLE, (0, 1, 2), (3, 2, 4)),
    (
        "static", 2,
        (([], [A]), ([], [B]), [61, 121], [62], [63], ([], [C]), [51], [52]),
        (0, 1, 5), (4, 2, 7),
    ),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(
    ("policy", "seqs", "steps", "firsts", "lasts"), SCHEDULES, ids=[row[0] for row in SCHEDULES]
)
def test_three_requests(policy, seqs, steps, firsts, lasts, compiled):
    table = surface()
    limits = engine(policy, budget=100, max_num_seqs=seqs)
    made = run(
        alone(table, limits), ask([0.0, 1e-6, 2e-6], [60, 120, 50], [4, 2, 3]), compiled=compiled
    )
    times = ends(table, *steps)
    np.testing.assert_allclose(made.record.first, [times[i] for i in firsts], rtol=1e-12)
    np.testing.assert_allclose(made.record.finish, [times[i] for i in lasts], rtol=1e-12)
    assert made.record.steps == len(steps)
    assert made.record.prompt_tokens == 60 + 120 + 50
    assert made.record.busy == pytest.approx(times[-1], rel=1e-12)


@BOTH
def test_layered_steps_are_shares_of_whole_prompts(compiled):
    """B's layers take two steps: 99 and 21 of its 120 tokens' worth of layers."""
    table = surface()
    made = run(
        alone(table, engine("layered", budget=100)),
        ask([0.0, 1e-6, 2e-6], [60, 120, 50], [4, 2, 3]), compiled=compiled,
    )  # fmt: skip

    def share(context: int, *parts: tuple[int, float]) -> float:
        decode = table.time([context])
        return decode + sum(f * (table.time([context], [(n, 0)]) - decode) for n, f in parts)

    times = np.cumsum([
        table.time([], [A]), share(61, (120, 99 / 120)), share(62, (120, 21 / 120), (50, 1.0)),
        table.time([63, 121, 51]), table.time([52]),
    ])  # fmt: skip
    np.testing.assert_allclose(made.record.first, times[[0, 2, 2]], rtol=1e-12)
    np.testing.assert_allclose(made.record.finish, times[[3, 3, 4]], rtol=1e-12)


@BOTH
def test_layered_conserves_work_and_evens_out_stalls(compiled):
    """Where work is linear in tokens and pairs, chunks and layers take equally long in all."""
    table = flat(0.01, row=1e-5, pair=1e-7)
    asked = ask([0.0, 1e-6], [1, 1000], [30, 2])
    made = {
        policy: run(alone(table, engine(policy, budget=101)), asked, compiled=compiled)
        for policy in ("vllm-v1", "layered")
    }
    first = [made[policy].record.first[1] for policy in made]
    assert first[0] == pytest.approx(first[1], rel=1e-12)
    plain, prompt = table.time([2]), table.time([2], [(1000, 0)])
    chunks = [table.time([2], [(100, 100 * i)]) for i in range(10)]
    # after the ten steps: two decodes together once, then one alone
    rest = [table.time([2, 2])] * 2 + [plain] * 18
    layers = [plain + (prompt - plain) / 10] * 10
    assert gaps(made["vllm-v1"]) == bins(*chunks, *rest)
    assert gaps(made["layered"]) == bins(*layers, *rest)


# --- who is let in --------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("policy", "enough"), [("sglang", 16), ("trtllm", 22), ("orca", 22), ("vllm-v1", 11)]
)
def test_reservations(policy, enough, compiled):
    """Two requests of 1 block now and 11 in the end.

    With one of A's blocks taken, 10 + 10 are to come: sglang keeps 14 of them free, trtllm and
    orca all 20, and vllm-v1 none. B's own block comes on top.
    """
    asked = ask([0.0, 1e-6], 16, 161)
    for blocks in (enough - 1, enough):
        if blocks < 11:
            continue
        limits = engine(policy, blocks=blocks)
        made = run(alone(flat(0.01), limits), asked, compiled=compiled)
        second = 0.01 if blocks == enough else made.record.finish[0]
        assert made.record.start[1] == pytest.approx(second)


@BOTH
def test_full_foresight_admits_exactly_what_fits(compiled):
    rng = np.random.default_rng(1)
    asked = ask(np.sort(rng.random(120)), rng.integers(1, 200, 120), rng.integers(1, 150, 120))
    final = -(-(asked.prompt + asked.output - 1) // 16)
    limits = engine("trtllm", budget=4096, max_num_seqs=64, blocks=60)
    made = run(alone(flat(0.003, row=1e-5), limits), asked, log=10_000, compiled=compiled)
    greedy = engine("vllm-v1", budget=4096, max_num_seqs=64, blocks=60)
    assert run(alone(flat(0.003), greedy), asked, compiled=compiled).record.preemptions > 0
    assert made.record.preemptions == 0
    start, finish, held = made.record.start, made.record.finish, 0
    for begin in made.record.log[: made.record.logged, 1]:
        inside = (start <= begin + 1e-9) & (finish > begin + 1e-9)
        assert final[inside].sum() <= 60
        waiting = np.flatnonzero((start > begin + 1e-9) & (made.record.arrival <= begin - 1e-9))
        if len(waiting):  # the first in line does not fit beside them
            held += 1
            assert final[inside].sum() + final[waiting[0]] > 60
    assert held > 50


@BOTH
@pytest.mark.parametrize(("prompt", "waits"), [(16, False), (17, True)])
def test_a_watermark_stays_free(prompt, waits, compiled):
    """A holds 197 of 200 blocks, 1 % of which stay free: there is one for B."""
    asked = ask([0.0, 1e-6], [197 * 16 - 3, prompt], [3, 1])
    limits = engine("prefill-first", blocks=200)
    made = run(alone(flat(0.01), limits), asked, compiled=compiled)
    assert made.record.start[1] == pytest.approx(0.03 if waits else 0.01)


@BOTH
def test_a_prompt_joins_only_if_all_of_it_fits(compiled):
    """A grows to 6 of 10 blocks; B's first chunk would fit beside it, all of B does not."""
    asked = ask([0.0, 1e-6], [64, 96], [33, 2])
    made = run(alone(flat(0.01), engine(budget=64, blocks=10)), asked, compiled=compiled)
    assert made.record.start[1] == pytest.approx(made.record.finish[0])
    assert made.record.preemptions == 0


@BOTH
def test_places_are_limited(compiled):
    asked = ask(np.zeros(5), 10, [3, 9, 2, 4, 1])
    made = run(alone(flat(1.0), engine(max_num_seqs=2)), asked, compiled=compiled)
    # A 0-3, B 0-9; C in A's place 3-5, D in C's 5-9, E after both
    assert made.record.start.tolist() == [0, 0, 3, 5, 9]
    assert made.record.finish.tolist() == [3, 9, 5, 9, 10]
    assert made.record.running_time == pytest.approx(3 + 9 + 2 + 4 + 1)


# --- what else a step does ------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("policy", ["vllm-v1", "layered"])
def test_finetuning_fills_the_budget(policy, compiled):
    """62 tokens beside a prompt of 450, else 100; each as two rows."""
    table = flat(0.01, row=1e-5)
    limits = engine(policy, finetune=100)
    made = run(alone(table, limits), ask([0.0], 450, 4), compiled=compiled)
    steps = [table.time([], [(450, 0)]) + 2 * 62e-5, *[table.time([1]) + 2 * 100e-5] * 3]
    np.testing.assert_allclose(made.record.first, steps[:1], rtol=1e-12)
    np.testing.assert_allclose(made.record.finish, [sum(steps)], rtol=1e-12)
    assert made.record.counts["finetune_tokens"] == 62 + 3 * 100
    rows = np.flatnonzero(made.record.row_steps[0]).tolist()
    assert rows == [1 + 200, 450 + 124]


@BOTH
def test_finetuning_beside_the_last_layers_is_not_shared_out(compiled):
    """A prompt of 600 passes in shares of 512 and 88 / 600; the second step has room for 100."""
    table = flat(0.01, row=1e-5)
    limits = engine("layered", finetune=100)
    made = run(alone(table, limits), ask([0.0], 600, 1), compiled=compiled)
    whole, tuning = table.time([], [(600, 0)]), 0.01 + 2 * 100e-5
    share = 88 / 600 * (whole + 2 * 100e-5 - tuning)
    assert made.record.first[0] == pytest.approx(512 / 600 * whole + tuning + share, rel=1e-12)


@BOTH
def test_no_step_is_shorter_than_the_hosts_work(compiled):
    table = flat(0.01)
    made = run(alone(table, engine(host_time=0.004)), ask(np.zeros(4), 10, [5, 4, 3, 2]),
               compiled=compiled)  # fmt: skip
    busy = [0.016, 0.016, 0.012, 0.01, 0.01]  # 4, 4, 3, 2, 1 sequences
    np.testing.assert_allclose(made.record.finish, np.cumsum(busy)[[4, 3, 2, 1]], rtol=1e-12)


@BOTH
@pytest.mark.parametrize("policy", ["vllm-v1", "prefill-first", "sglang", "orca", "layered"])
def test_work_does_not_depend_on_the_order(policy, compiled):
    """Where time is linear in tokens, an engine that is never idle takes as long as its work."""
    rng = np.random.default_rng(4)
    table = flat(0.0, row=1e-4, context=1e-7, pair=1e-7)
    prompt, output = rng.integers(1, 300, 40), rng.integers(1, 60, 40)
    made = run(alone(table, engine(policy)), ask(np.zeros(40), prompt, output), compiled=compiled)
    work = sum(
        table.time([], [(int(p), 0)]) + sum(table.time([int(p) + i]) for i in range(1, o))
        for p, o in zip(prompt, output, strict=True)
    )
    assert made.record.makespan == pytest.approx(work, rel=1e-9)
    assert made.record.busy == pytest.approx(work, rel=1e-9)


@BOTH
def test_blocks_in_use_are_integrated_over_time(compiled):
    """30 tokens in two blocks, then one token a second: 2, 16, 16 and 5 steps with 2 to 5 blocks.

    A second request of one block is there for ten of the seconds.
    """
    asked = ask([0.0, 3.5], [30, 7], [40, 10])
    made = run(alone(flat(1.0), engine()), asked, compiled=compiled)
    held = 2 + 2 * 2 + 16 * 3 + 16 * 4 + 5 * 5 + 10
    # the core takes a stretch's blocks evenly over it: at most half a block off per request
    slack = (40 + 10) / 2 if compiled else 1e-9
    assert made.record.block_time == pytest.approx(held, abs=slack)
    assert made.record.running_time == pytest.approx(40 + 10)
    assert made.record.peak_blocks == 5
    assert made.kv_utilisation == pytest.approx(held / 1000 / 40, abs=slack / 1000 / 40)


@BOTH
def test_steps_are_counted_by_rows_and_sequences(compiled):
    asked = ask([0.0, 1e-6], [30, 20], [4, 2])
    made = run(alone(flat(0.01), engine()), asked, log=100, compiled=compiled)
    # prompt of 30; A and the prompt of 20; both; A
    rows, seqs = np.flatnonzero(made.record.row_steps[0]), np.flatnonzero(
        made.record.sequence_steps[0])  # fmt: skip
    assert rows.tolist() == [1, 2, 21, 30]
    assert made.record.sequence_steps[0][seqs].tolist() == [2, 2]
    assert made.record.launches.tolist() == [[3, 2]]
    log = made.record.log[: made.record.logged]
    assert log[:, 3].sum() == 4
    assert [a <= b for a, b in itertools.pairwise(log[:, 1])]
    assert (log[:, 4] * log[:, 3]).sum() == made.record.decode_tokens
    assert log[:, 5].sum() == made.record.prompt_tokens
