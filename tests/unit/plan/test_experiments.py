"""Simulations over seeds and rates: limits as written, capacity, the same answer everywhere."""

import dataclasses
import importlib.util
import math

import pytest

from perfmodel.core.errors import UsageError
from perfmodel.plan.backends import open_pool
from perfmodel.plan.ensemble import sweep
from perfmodel.plan.experiments import (
    LEAST_SPAN,
    Runs,
    at_rate,
    capacity,
    parse_slo,
    repeat,
    variants,
)
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.simulation import Experiment, results, run
from perfmodel.scenario.traffic import Traffic

BASE = Experiment(
    scenario=Scenario(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", request_rate=20.0),
    traffic=Traffic(isl="uniform(100, 900)", osl="uniform(1, 60)", num_requests=200),
)


@pytest.mark.parametrize(
    ("text", "column", "limit"),
    [
        ("ttft=p99:500ms", "p99_ttft_ms", 500),
        (" tpot = mean : 0.03 s", "mean_tpot_ms", 30),
        ("e2e=p50:20", "median_e2el_ms", 20),
        ("ttfvt=p90:1.5s", "p90_visible_ms", 1500),
        ("itl=p95:800us", "p95_itl_ms", 0.8),
        ("queue=median:1e3", "median_queue_time_ms", 1000),
    ],
)
def test_limits_as_they_are_written(text, column, limit):
    found, most = parse_slo(text)
    assert (found, most) == (column, pytest.approx(limit))
    assert found in run(BASE).results() or "visible" in found


def test_an_ensemble_is_its_seeds():
    made = repeat(BASE, Runs(seeds=5, tolerance=1e-9), open_pool("serial"))
    alone = [run(BASE.of_seed(seed)).results()["p99_ttft_ms"] for seed in range(5)]
    assert [row["p99_ttft_ms"] for row in made.rows] == alone
    assert made.metrics["p99_ttft_ms"].mean == pytest.approx(sum(alone) / 5)
    assert not made.converged
    first = repeat(BASE.of_seed(3), Runs(seeds=5), open_pool("serial"))
    assert first.seeds[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_every_backend_gives_the_same_rows(backend):
    library = {"loky": "joblib", "dask": "distributed"}.get(backend, backend)
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install 'perfmodel[distributed]'")
    runs = Runs(seeds=5, tolerance=1e-9)
    with open_pool(backend, workers=2) as pool:
        spread = repeat(BASE, runs, pool)
    assert spread.rows == repeat(BASE, runs, open_pool("serial")).rows


def test_variants_run_as_a_sweep_and_go_on_after_a_crash(tmp_path):
    tasks = variants(BASE, request_rate=[5.0, 50.0], isl=["100", "400"], scheduler=["orca"])
    assert [(t.scenario.request_rate, t.traffic.isl) for t in tasks] == [
        (5.0, "100"), (5.0, "400"), (50.0, "100"), (50.0, "400"),
    ]  # fmt: skip
    journal = tmp_path / "rows.jsonl"
    rows = sweep(results, tasks[:3], journal=journal)
    assert rows == [run(task).results() for task in tasks[:3]]
    with journal.open("r+b") as file:  # the last line is torn
        file.truncate(journal.stat().st_size - 10)
    again = sweep(results, tasks, journal=journal)
    assert again[:3] == rows
    assert again[3]["mean_ttft_ms"] > rows[1]["mean_ttft_ms"]
    with pytest.raises(UsageError, match="nearest: scheduler"):
        variants(BASE, schedular=["orca"])


def test_a_rate_is_judged_by_enough_arrivals():
    assert at_rate(BASE, 1.0).traffic.num_requests == 200
    assert at_rate(BASE, 50.0).traffic.num_requests == 50 * LEAST_SPAN
    assert at_rate(BASE, 50.0).scenario.request_rate == 50.0


def test_capacity_grows_with_replicas_and_with_the_limit():
    def found(gpus: int, limit: int) -> float:
        scenario = dataclasses.replace(BASE.scenario, num_gpus=gpus, request_rate=None)
        asked = dataclasses.replace(BASE, scenario=scenario)
        rate = capacity(asked, Runs(slo=(f"tpot=mean:{limit}",)), open_pool("serial")).rate
        assert rate is not None
        return rate

    one, two, loose = found(1, 12), found(2, 12), found(1, 20)
    assert one < loose
    assert two == pytest.approx(2 * one, rel=0.1)


def test_tenants_without_limits_ask_for_no_attainment():
    traffic = dataclasses.replace(BASE.traffic, tenants=("paid(share=1)", "free(share=3)"))
    asked = dataclasses.replace(BASE, traffic=traffic)
    runs = Runs(slo=("tpot=mean:12",))
    assert capacity(asked, runs, open_pool("serial")).rate is not None
    with pytest.raises(UsageError, match="needs limits"):
        capacity(asked, Runs(), open_pool("serial"))
    promised = dataclasses.replace(traffic, tenants=("paid(ttft=100)", "free(share=3)"))
    found = capacity(dataclasses.replace(BASE, traffic=promised), Runs(), open_pool("serial"))
    assert found.best is not None
    assert found.best.result["attainment"] >= 0.99


def test_goodput_limits_are_met_by_a_share_of_the_requests():
    asked = dataclasses.replace(BASE, slo={"ttft": 0.1})
    made = capacity(asked, Runs(attainment=0.9), open_pool("serial"))
    assert made.best is not None
    assert made.best.result["attainment"] >= 0.9
    assert made.beyond is not None
    assert made.beyond.result["attainment"] < 0.9


@pytest.mark.parametrize(
    ("runs", "word"),
    [
        (Runs(seeds=0), "--seeds 0"),
        (Runs(attainment=0.0), "--attainment 0.0"),
        (Runs(slo=("ttft<5",)), "is not METRIC=STATISTIC:TIME"),
        (Runs(slo=("ttft=p99:nan",)), "above zero and finite"),
        (Runs(slo=("ttft=p99:-5",)), "above zero"),
        (Runs(), "needs limits"),
    ],
    ids=str,
)
def test_bad_runs(runs, word):
    with pytest.raises(UsageError, match=word):
        capacity(BASE, runs, open_pool("serial"))


def test_limits_that_no_rate_can_miss():
    made = capacity(
        dataclasses.replace(BASE, traffic=Traffic(isl="10", osl="1", num_requests=5)),
        Runs(slo=("ttft=mean:1e9",)), open_pool("serial"),
    )  # fmt: skip
    assert made.beyond is None or math.isfinite(made.beyond.rate)
    assert made.best is not None
