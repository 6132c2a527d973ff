"""Time series: integrals against brute force, sums over bins against the run's totals."""

import itertools

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving.simulate import POLICIES, Cluster, Engine, Replica, serve
from perfmodel.serving.simulate.fleet import Routing
from perfmodel.serving.simulate.series import integral, series
from tests.unit.serving.simulation import poisson, requests, surface

ENGINE = Engine(POLICIES["vllm-v1"], 512, 8, 16, 1000)
PLAIN = ("begin_s", "end_s", "arrivals", "finished", "waiting", "running", "output_throughput")


def run(asked, replicas=1, log=0, **more):
    cluster = Cluster(
        (surface(),), (Replica(ENGINE),) * replicas, routing=Routing.ROUND_ROBIN
    )  # fmt: skip
    return serve(cluster, asked, log=log, compiled=False, **more)


def total(columns, name):
    return float(columns[name] @ (columns["end_s"] - columns["begin_s"]))


def test_integrals_are_those_of_a_fine_sum():
    rng = np.random.default_rng(0)
    begin = rng.uniform(0, 10, 40)
    end, weight = begin + rng.exponential(1.0, 40), rng.uniform(0, 3, 40)
    edges = np.sort(rng.uniform(0, 12, 9))
    expected = [
        sum(
            w * max(0.0, min(b, right) - max(a, left))
            for a, b, w in zip(begin, end, weight, strict=True)
        )
        for left, right in itertools.pairwise(edges)
    ]
    np.testing.assert_allclose(integral(edges, begin, end, weight), expected, atol=1e-12)


def test_one_request_by_hand():
    """Bins of 1 s: idle until 1.5 s, then one request of three tokens, one of them at once."""
    table = surface()
    made = run(requests([1.5], 100, 3), log=10)
    columns = series(made, width=1.0)
    steps = [table.time([], [(100, 0)]), table.time([101]), table.time([102])]
    spent = sum(steps)
    assert columns["begin_s"].tolist() == [0.0, 1.0]
    assert columns["arrivals"].tolist() == columns["finished"].tolist() == [0.0, 1.0]
    for name, value in (
        ("waiting", 0.0), ("running", spent), ("busy", spent), ("output_throughput", 3.0),
        ("decodes", steps[1] + steps[2]), ("prefill_throughput", 100.0), ("kv_blocks", 7 * spent),
    ):  # fmt: skip
        np.testing.assert_allclose(columns[name], [0.0, value], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bins", [1, 7, 500])
def test_sums_over_bins_are_totals(bins):
    rng = np.random.default_rng(1)
    asked = poisson(25.0, 300, rng.integers(10, 900, 300), rng.integers(1, 50, 300))
    made = run(asked, replicas=2, log=100_000)
    record, columns = made.record, series(made, bins=bins)
    assert all(column.shape == (bins,) for column in columns.values())
    assert columns["arrivals"].sum() == columns["finished"].sum() == 300
    for name, value in (
        ("waiting", made.queue_time.sum()),
        ("running", (record.last - record.start).sum()),
        ("output_throughput", asked.output.sum()),
        ("busy", record.busy.sum()),
        ("kv_blocks", record.block_time.sum()),
        ("prefill_throughput", record.prompt_tokens.sum()),
    ):
        assert total(columns, name) == pytest.approx(value, rel=1e-9), name
    assert min(column.min() for column in columns.values()) >= 0.0


def test_the_last_bin_may_reach_beyond_the_end():
    made = run(poisson(10.0, 50, 100, 10))
    columns = series(made, width=made.record.makespan / 3.5)
    assert len(columns["end_s"]) == 4
    assert columns["end_s"][-1] > made.record.makespan
    assert columns["finished"].sum() == 50
    assert tuple(columns) == PLAIN  # no log


def test_bins_beyond_a_full_log_are_not_known():
    asked = poisson(10.0, 50, 100, 10)
    whole, cut = run(asked, log=10_000), run(asked, log=100)
    exact, columns = series(whole, bins=40), series(cut, bins=40)
    known = exact["end_s"] <= cut.record.log[99, 2]
    assert 0 < known.sum() < 40
    for name in ("busy", "decodes", "kv_blocks", "prefill_throughput"):
        np.testing.assert_allclose(columns[name][known], exact[name][known], rtol=1e-9, atol=1e-12)
        assert np.isnan(columns[name][~known]).all()
    for name in PLAIN:
        np.testing.assert_array_equal(columns[name], exact[name])
    full = run(asked, log=whole.record.logged)  # filled to the last row, and complete
    assert not np.isnan(series(full, bins=40)["busy"]).any()


@pytest.mark.parametrize(
    ("keywords", "word"),
    [({"bins": 0}, "0 bins; 1 to 1,000,000"), ({"bins": 10**7}, "10000000 bins"),
     ({"width": 0.0}, "at least"), ({"width": float("nan")}, "at least"),
     ({"width": 1e-12}, "at least")],
)  # fmt: skip
def test_bins_that_cannot_be(keywords, word):
    with pytest.raises(UsageError, match=word):
        series(run(requests([0.0], 100, 5)), **keywords)


def test_without_the_requests_there_is_no_series():
    with pytest.raises(UsageError, match="keep_requests=True"):
        series(run(requests([0.0], 100, 5), keep_requests=False))
