"""The simulator against hand-made schedules and the steady-state closed forms."""

import math
import sys

import numpy as np
import pytest

from perfmodel.core.errors import InfeasibleError, UsageError
from perfmodel.serving import simulate as room
from perfmodel.serving.engine import Load, steady_state
from perfmodel.serving.simulate import (
    POLICIES,
    Engine,
    Slo,
    cache_blocks,
    replay,
    simulate,
)
from tests.unit.serving.simulation import poisson, requests, surface, system

BOTH = pytest.mark.parametrize(
    "compiled",
    [False, pytest.param(True, marks=pytest.mark.skipif(not room.has_core(), reason="no numba"))],
)


def engine(policy="vllm-v1", budget=512, seqs=8, size=16, blocks=1000) -> Engine:
    return Engine(POLICIES[policy], budget, seqs, size, blocks)


# --- schedules by hand ----------------------------------------------------------------------------


@BOTH
def test_two_requests_step_by_step(compiled):
    """A's prompt, cut by the budget; B joins while A decodes; both decode; A alone."""
    table = surface()
    asked = requests([0.0, 1e-6], [600, 100], [5, 2])
    made = replay(table, engine(), asked, compiled=compiled)
    steps = [
        table.time([], [(512, 0)]),
        table.time([], [(88, 512), (100, 0)]),
        table.time([601, 101]),
        *(table.time([601 + i]) for i in (1, 2, 3)),
    ]
    ends = np.cumsum(steps)
    np.testing.assert_allclose(made.record.first, [ends[1], ends[1]], rtol=1e-12)
    np.testing.assert_allclose(made.record.finish, [ends[5], ends[2]], rtol=1e-12)
    np.testing.assert_allclose(made.queue_time, [0.0, ends[0] - 1e-6], rtol=1e-12)
    np.testing.assert_allclose(made.tpot, [(ends[5] - ends[1]) / 4, steps[2]], rtol=1e-12)
    assert made.record.steps == 6


@BOTH
def test_prefill_first_stalls_decodes(compiled):
    table = surface()
    asked = requests([0.0, 1e-6], [100, 200], [3, 2])
    made = replay(table, engine("prefill-first"), asked, compiled=compiled)
    ends = np.cumsum([
        table.time([], [(100, 0)]), table.time([], [(200, 0)]), table.time([101, 201]),
        table.time([102]),
    ])  # fmt: skip
    np.testing.assert_allclose(made.record.first, ends[:2], rtol=1e-12)
    np.testing.assert_allclose(made.record.finish, [ends[3], ends[2]], rtol=1e-12)
    # A's first token waits through B's prompt
    assert made.statistics("itl")["p99"] == pytest.approx(ends[2] - ends[0], rel=0.01)


@BOTH
def test_static_batches_do_not_refill(compiled):
    asked = requests([0.0, 0.0, 0.0], 64, [50, 10, 10])
    made = replay(surface(), engine("static", seqs=2), asked, compiled=compiled)
    assert made.record.start[2] == made.record.finish[0]
    refilled = replay(surface(), engine("prefill-first", seqs=2), asked, compiled=compiled)
    assert refilled.record.start[2] == refilled.record.finish[1]


@BOTH
def test_the_youngest_is_preempted_and_computes_its_tokens_again(compiled):
    table = surface()
    # 4 blocks of 8: two prompts of 15 fill them; the 17th token of A takes B's
    asked = requests([0.0, 0.0], 15, 10)
    made = replay(table, engine(size=8, blocks=4), asked, compiled=compiled)
    assert made.record.preempted.tolist() == [0, 1]
    ends = np.cumsum([
        table.time([], [(15, 0), (15, 0)]), table.time([16, 16]),
        *(table.time([17 + i]) for i in range(8)),
        table.time([], [(17, 0)]),
        *(table.time([18 + i]) for i in range(7)),
    ])  # fmt: skip
    np.testing.assert_allclose(made.record.finish, [ends[9], ends[17]], rtol=1e-12)
    assert made.record.prompt_tokens == 15 + 15 + 17


# --- theory ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not room.has_core(), reason="numba is not installed")
@pytest.mark.parametrize(
    ("prompt", "output", "load"),
    [(1000, 200, {"concurrency": 4.0}), (1000, 200, {"concurrency": 32.0}),
     (2000, 500, {"concurrency": 128.0}), (1000, 200, {"request_rate": 2.0}),
     (1000, 200, {"request_rate": 10.0}), (4000, 400, {"request_rate": 2.0})],
)  # fmt: skip
def test_away_from_saturation_the_closed_forms_hold(prompt, output, load):
    """TPOT within 4 %, request rate within 5 %, TTFT within 15 % of `steady_state`.

    Output lengths are uniform about their mean: with equal ones a closed loop stays in lock-step,
    which no steady state describes.
    """
    served, count = system(), 20_000
    drawn = np.random.default_rng(0).integers(1, 2 * output, count)
    users, rate = load.get("concurrency"), load.get("request_rate")
    asked = poisson(rate or 1.0, count, prompt, drawn)
    made = simulate(served, asked, max_concurrency=users and int(users))
    closed = steady_state(served, Load(float(prompt), 0.0, float(output), **load))
    results = made.results()
    per_token = (made.record.finish - made.record.first).sum() / (asked.output - 1).sum()
    assert per_token == pytest.approx(float(closed.tpot), rel=0.04)
    assert results["mean_ttft_ms"] / 1e3 == pytest.approx(float(closed.ttft), rel=0.15)
    assert results["request_throughput"] == pytest.approx(float(closed.request_rate), rel=0.05)


@BOTH
def test_littles_law(compiled):
    asked = poisson(20.0, 4000, 300, 60)
    made = simulate(system(), asked, compiled=compiled)
    rate = len(asked) / made.record.makespan
    times = np.concatenate([made.record.arrival, made.record.finish])
    order = np.argsort(times, kind="stable")
    inside = np.cumsum(np.repeat([1, -1], len(asked))[order])
    average = (inside[:-1] * np.diff(times[order])).sum() / made.record.makespan
    assert average == pytest.approx(rate * made.e2el.mean(), rel=1e-9)
    assert made.running == pytest.approx(rate * (made.e2el - made.queue_time).mean(), rel=1e-9)


# --- results --------------------------------------------------------------------------------------


@BOTH
def test_aggregates_alone_agree_with_the_requests(compiled):
    rng = np.random.default_rng(2)
    asked = poisson(25.0, 5000, rng.integers(10, 900, 5000), rng.integers(1, 200, 5000))
    slo = Slo(ttft=0.2, tpot=0.015)
    whole, flat = (
        simulate(system(), asked, keep_requests=keep, slo=slo, compiled=compiled)
        for keep in (True, False)
    )
    assert len(flat.record.finish) == 0
    kept, lean = whole.results(), flat.results()
    for name, value in kept.items():
        exact = not any(f"{p}_" in name for p in ("median", "p90", "p95", "p99"))
        # bins are 0.5 % wide; a queue time of zero counts as the lowest, 1 us
        assert lean[name] == pytest.approx(value, rel=1e-9 if exact else 0.006, abs=2e-3), name
    good = (whole.ttft <= slo.ttft) & (np.nan_to_num(whole.tpot) <= slo.tpot)
    assert whole.record.good == good.sum()
    assert 0 < good.sum() < len(asked)


@BOTH
def test_equal_runs_are_equal(compiled):
    asked = poisson(30.0, 500, 400, 50)
    runs = [simulate(system(), asked, compiled=compiled) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].record.finish, runs[1].record.finish)


def test_one_token_has_no_tpot():
    made = simulate(system(), requests([0.0, 1.0], 10, 1), compiled=False)
    assert np.isnan(made.tpot).all()
    results = made.results()
    assert math.isnan(results["mean_tpot_ms"])
    assert math.isnan(results["p99_itl_ms"])
    assert results["mean_ttft_ms"] == pytest.approx(results["mean_e2el_ms"])


def test_blocks_are_those_of_the_memory_model():
    served = system()
    asked = requests([0.0], 1024, 256)
    per_token = 2 * 8 * 128 * 2 * 32  # keys and values, 8 heads of 128, bf16, 32 layers
    assert cache_blocks(served, asked, 16) == int(served.footprint.pool / (16 * per_token))


@pytest.mark.skipif(not room.has_core(), reason="numba is not installed")
def test_the_disk_cache_follows_what_is_compiled(tmp_path):
    from perfmodel.serving.simulate.core import compile, loop

    files = [tmp_path / name for name in ("one.py", "two.py")]
    for file in files:
        file.write_text("X = 1")
    before = compile.digest(files)
    assert compile.digest(files) == before
    files[1].write_text("X = 2")
    assert compile.digest(files) != before
    if compile.FOLDER:
        assert str(loop.serve.stats.cache_path).startswith(compile.FOLDER)


@pytest.mark.skipif(not room.has_core(), reason="numba is not installed")
def test_the_core_grows_with_the_requests_in_flight(monkeypatch):
    """A thousand at once, with room for four at first: the same to the last bit."""
    from perfmodel.serving.simulate.core import setup

    asked = requests(np.zeros(1000), 50, np.arange(1, 1001) % 40 + 1)
    roomy = replay(surface(), engine(seqs=16), asked, compiled=True)
    monkeypatch.setattr(setup, "_SLOTS", 4)
    grown = replay(surface(), engine(seqs=16), asked, compiled=True)
    np.testing.assert_array_equal(grown.record.finish, roomy.record.finish)
    np.testing.assert_array_equal(grown.record.first, roomy.record.first)


# --- bad input ------------------------------------------------------------------------------------


@BOTH
def test_a_request_longer_than_the_cache_is_refused_with_numbers(compiled):
    asked = requests([0.0, 0.0], [10, 100], [5, 29])
    assert replay(surface(), engine(blocks=8), asked, compiled=compiled).record.steps  # just fits
    with pytest.raises(InfeasibleError, match=r"request 1 \(100 \+ 29 tokens\) needs 8 .* has 7"):
        replay(surface(), engine(blocks=7), asked, compiled=compiled)


def test_beyond_the_context_is_refused():
    with pytest.raises(InfeasibleError, match="longest sequence of 131072"):
        simulate(system(), requests([0.0], 131_000, 500))


@pytest.mark.parametrize(
    ("keywords", "word"),
    [({"scheduler": "vllm-v2"}, "nearest: vllm-v1"), ({"block_size": 0}, "at least 1"),
     ({"max_concurrency": 0}, "at least 1")],
)  # fmt: skip
def test_bad_limits(keywords, word):
    with pytest.raises(UsageError, match=word):
        simulate(system(), requests([0.0], 10, 10), **keywords)


def test_without_numba_the_twin_answers(monkeypatch):
    monkeypatch.setattr(sys.modules[simulate.__module__], "has_core", lambda: False)
    asked = requests([0.0, 0.1], 10, 10)
    assert not simulate(system(), asked).compiled
    with pytest.raises(UsageError, match=r"perfmodel\[simulate\]"):
        simulate(system(), asked, compiled=True)
