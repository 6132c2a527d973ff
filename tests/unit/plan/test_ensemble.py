"""Intervals by hand and by coverage; the same seeds on any pool; sweeps that outlive a kill."""

import math
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.core.errors import UsageError
from perfmodel.plan.backends import open_pool
from perfmodel.plan.ensemble import interval, replicate, sweep
from tests.unit.plan import work

ROOT = Path(__file__).parents[3]


def itself(seed):
    return seed


# -- intervals ---------------------------------------------------------------------------------


def test_an_interval_by_hand():
    """t[2, 0.975] = 4.3027, t[4, 0.95] = 2.1318 (any table); s by hand."""
    found = interval([8, 10, 12])
    assert (found.mean, found.n) == (10, 3)
    assert found.half_width == pytest.approx(4.302653 * 2 / math.sqrt(3), rel=1e-6)
    found = interval([1, 2, 3, 4, 5], confidence=0.9)
    assert found.half_width == pytest.approx(2.131847 * math.sqrt(2.5 / 5), rel=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.floats(0.5, 0.999))
def test_an_interval_is_that_of_scipy(values, confidence):
    stats = pytest.importorskip("scipy.stats")
    found = interval(values, confidence=confidence)
    spread = statistics.stdev(values) / math.sqrt(len(values))
    rounding = 1e-9 * max(map(abs, values))
    assert found.mean == pytest.approx(statistics.fmean(values), abs=rounding)
    if spread > 0:
        low, high = stats.t.interval(confidence, len(values) - 1, found.mean, spread)
        assert found.half_width == pytest.approx((high - low) / 2, rel=1e-6, abs=rounding)
    else:
        assert found.half_width <= rounding


def test_intervals_cover_the_mean():
    """Of 400 ensembles of ten, 95 % within four standard deviations of that binomial."""
    draw = random.Random(7)
    hits = 0
    for _ in range(400):
        found = interval([draw.gauss(10, 3) for _ in range(10)])
        hits += abs(found.mean - 10) <= found.half_width
    assert abs(hits - 0.95 * 400) <= 4 * math.sqrt(400 * 0.95 * 0.05)


def test_missing_values_are_counted_out():
    assert interval([1, None, 3, math.nan]).n == 2
    assert interval([1, None, 3]).half_width == interval([1, 3]).half_width
    assert interval([None, 5.0]) == interval([5.0])
    assert (interval([5.0]).mean, interval([5.0]).half_width) == (5, None)
    assert interval([5.0]).converged is False
    assert (interval([None]).mean, interval([]).n) == (None, 0)


def test_infinite_values_are_not_dropped():
    found = interval([1.0, math.inf, 2.0])
    assert (found.mean, found.half_width, found.n, found.converged) == (
        math.inf,
        math.inf,
        3,
        False,
    )


def test_equal_values_converge_even_at_zero():
    assert interval([0, 0]).converged
    assert interval([5, 5, 5], tolerance=1e-9).converged


# -- replications ------------------------------------------------------------------------------


def first_stop(metric, seed, least, most, tolerance):
    """Seeds to run, by the definition."""
    for n in range(least, most + 1):
        values = [work.noisy(seed + i)[metric] for i in range(n)]
        if interval(values, tolerance=tolerance).converged:
            return n
    return most


@pytest.mark.parametrize("seed", [0, 100, 7777])
@pytest.mark.parametrize("tolerance", [0.03, 0.05, 0.1])
@pytest.mark.parametrize("workers", [1, 2, 3, 7, 50])
def test_the_seeds_do_not_depend_on_the_pool(seed, tolerance, workers):
    keywords = {"metrics": ["x"], "seed": seed, "tolerance": tolerance}
    alone = replicate(work.noisy, itself, **keywords)
    assert len(alone.seeds) == first_stop("x", seed, 3, 30, tolerance)
    assert alone.seeds == tuple(range(seed, seed + len(alone.rows)))
    assert alone.rows == tuple(work.noisy(each) for each in alone.seeds)
    pool = work.Shuffled(workers, seed)
    assert replicate(work.noisy, itself, pool=pool, **keywords) == alone
    assert len(pool.started) < len(alone.seeds) + workers + (3 - 1)  # no more than a round too much


def test_processes_give_the_same_ensemble():
    pytest.importorskip("joblib")
    with open_pool("loky", workers=2) as pool:
        found = replicate(work.noisy, itself, metrics=["x"], tolerance=0.06, pool=pool)
    assert found == replicate(work.noisy, itself, metrics=["x"], tolerance=0.06)
    assert found.converged
    assert found.metrics["x"] == found.interval("x")
    assert found.metrics["x"].half_width <= 0.06 * found.metrics["x"].mean


def test_it_stops_at_most_and_says_that_it_has_not_converged():
    found = replicate(work.noisy, itself, metrics=["x"], tolerance=1e-6, most=11)
    assert len(found.rows) == 11
    assert not found.converged
    assert found.metrics["x"].n == 11


def test_every_metric_must_converge():
    loose = replicate(work.noisy, itself, metrics=["x"], tolerance=0.1)
    both = replicate(work.noisy, itself, metrics=["x", "late"], tolerance=0.1)
    assert len(both.rows) > len(loose.rows)
    assert both.metrics["late"].n == sum(seed % 2 for seed in both.seeds)
    assert both.converged


def test_a_metric_that_no_seed_has_holds_nothing_up():
    made = replicate(lambda seed: {"x": 1.0, "y": None}, itself, metrics=["x", "y"])
    assert len(made.rows) == 3
    assert (made.metrics["y"].n, made.metrics["y"].mean, made.converged) == (0, None, False)


@pytest.mark.parametrize("workers", [1, 8])
def test_seeds_beyond_the_stop_may_fail_unseen_and_others_may_not(workers):
    def fails(at):
        def function(seed):
            if seed == at:
                raise ZeroDivisionError
            return {"x": 1.0}

        return function

    pool = work.Shuffled(workers)
    assert len(replicate(fails(3), itself, metrics=["x"], pool=pool).rows) == 3
    with pytest.raises(ZeroDivisionError):
        replicate(fails(2), itself, metrics=["x"], pool=work.Shuffled(workers))


def test_progress_counts_seeds():
    seen = []
    replicate(work.noisy, itself, metrics=["x"], tolerance=1e-6, most=4,
              progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"metrics": ["lat"]}, "no column 'lat' in the rows; nearest: late"),
        ({"metrics": ["text"]}, r"column 'text' is text \('a'\)"),
        ({"metrics": []}, "at least one column"),
        ({"metrics": "x"}, "must be a list"),
        ({"least": 1}, "least 1 must be at least 2"),
        ({"least": 5, "most": 4}, "most 4 must be at least 5"),
        ({"confidence": 1}, "confidence 1 must be between"),
        ({"confidence": 95}, "confidence 95 must be between"),
        ({"tolerance": 0}, "tolerance 0 must be above zero"),
        ({"tolerance": math.nan}, "tolerance nan must be above zero"),
    ],
)
def test_bad_questions_are_refused(question, says):
    with pytest.raises(UsageError, match=says):
        replicate(work.noisy, itself, **({"metrics": ["x"]} | question))


# -- sweeps ------------------------------------------------------------------------------------


def test_rows_come_in_the_order_of_the_tasks():
    tasks = [5, 3, 3, 9, 1]
    assert sweep(work.row, tasks, pool=work.Shuffled(3)) == [work.row(x) for x in tasks]
    assert sweep(work.row, []) == []


def of_rate(task):
    return work.row(task["rate"])


def test_a_journal_spares_what_is_done(tmp_path):
    journal = tmp_path / "sweep.jsonl"
    tasks = [{"rate": rate} for rate in range(6)]
    seen = []

    def count(done, total):
        seen.append((done, total))

    sweep(of_rate, tasks[:4], journal=journal, pool=work.Shuffled(2), progress=count)
    again = work.Shuffled(2)
    rows = sweep(of_rate, tasks, journal=journal, pool=again, progress=count)
    assert rows == [of_rate(task) for task in tasks]
    assert sorted(task["rate"] for task, _ in again.started) == [4, 5]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4), (5, 6), (6, 6)]
    assert sweep(of_rate, tasks[::-1] * 2, journal=journal) == rows[::-1] * 2


KILLED = """
import sys
from pathlib import Path
from perfmodel.plan.backends import open_pool
from perfmodel.plan.ensemble import sweep
from tests.unit.plan import work
if __name__ == "__main__":
    folder = sys.argv[1]
    with open_pool("loky", workers=2) as pool:
        sweep(work.mark, [(folder, x) for x in range(20)], journal=Path(sys.argv[2]), pool=pool)
"""


def test_a_killed_sweep_goes_on(tmp_path):
    pytest.importorskip("joblib")
    folder, journal = tmp_path / "calls", tmp_path / "sweep.jsonl"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(journal)], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as caller:  # fmt: skip
        while not journal.exists() or journal.read_bytes().count(b"\n") < 1 + 10:
            assert caller.poll() is None
            time.sleep(0.01)
        caller.kill()
        caller.communicate(timeout=60)  # an end comes when the last worker is gone as well
    kept = journal.read_bytes()
    (folder / "go").touch()
    tasks = [(str(folder), x) for x in range(20)]
    assert sweep(work.mark, tasks, journal=journal) == [work.row(x) for x in range(20)]
    calls = [len(list(folder.glob(f"{x}.*"))) for x in range(20)]
    assert calls[:10] == [1] * 10
    assert sum(calls) <= 20 + 2  # again only what the two workers had begun
    assert journal.read_bytes().startswith(kept)
