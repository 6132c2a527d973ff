"""Results of runs: known answers by hand, sums over tenants, replicas and tasks, error bars."""

import dataclasses
import math

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate import POLICIES, Cluster, Engine, Replica, Slo, serve
from perfmodel.serving.simulate.fleet import (
    Change,
    HostStage,
    Link,
    Role,
    Routing,
    Scaler,
    State,
)
from perfmodel.serving.simulate.policy import Speculation
from perfmodel.serving.simulate.result import Simulation, shown
from perfmodel.serving.simulate.statistics import interval
from tests.unit.serving.simulation import poisson, requests, surface

BASE = Engine(POLICIES["vllm-v1"], 512, 8, 16, 1000)
PERCENTILES = ("median", "p90", "p95", "p99")


def run(asked: Requests, *engines: Engine, price: float = 0.0, **more) -> Simulation:
    keywords = {
        name: more.pop(name)
        for name in ("slos", "keep_requests", "max_concurrency", "log")
        if name in more
    }
    replicas = more.pop("replicas", [Replica(each, price=price) for each in engines or (BASE,)])
    return serve(Cluster((surface(),), tuple(replicas), **more), asked, compiled=False, **keywords)


def with_columns(asked: Requests, **columns) -> Requests:
    made = {name: np.asarray(column) for name, column in columns.items()}
    return dataclasses.replace(asked, **made)


# --- of each request ------------------------------------------------------------------------------


def test_latencies_of_one_request_by_hand():
    """Half a second of the host before and after; three tokens, the first one hidden."""
    table = surface()
    asked = with_columns(requests([1.0], 100, 3), hidden=[1])
    stages = (HostStage(1, 0.5), HostStage(1, 0.25, after=True))
    made = run(asked, stages=stages)
    steps = [table.time([], [(100, 0)]), table.time([101]), table.time([102])]
    close = {"rel": 1e-12}
    assert made.queue_time[0] == pytest.approx(0.5, **close)
    assert made.ttft[0] == pytest.approx(0.5 + steps[0], **close)
    assert made.visible[0] == pytest.approx(0.5 + steps[0] + steps[1], **close)
    assert made.tpot[0] == pytest.approx((steps[1] + steps[2]) / 2, **close)
    assert made.e2el[0] == pytest.approx(0.75 + sum(steps), **close)
    results = made.results()
    assert results["duration_s"] == pytest.approx(1.75 + sum(steps), **close)
    assert results["mean_visible_ms"] == pytest.approx(1e3 * made.visible[0], **close)
    assert results["busy"] == pytest.approx(sum(steps) / made.record.makespan, **close)


def test_good_requests_are_those_the_run_counted():
    rng = np.random.default_rng(1)
    asked = poisson(25.0, 800, rng.integers(10, 900, 800), rng.integers(1, 60, 800))
    asked = with_columns(asked, tenant=rng.integers(0, 2, 800))
    made = run(asked, slos=(Slo(ttft=0.05, tpot=0.012), Slo(e2el=0.3)))
    counted = np.bincount(asked.tenant, made.good, minlength=2)
    np.testing.assert_array_equal(counted, made.record.good)
    assert 0 < made.good.sum() < 800
    assert made.results()["attainment"] == made.good.mean()
    free = run(asked, slos=(Slo(), Slo()))
    assert free.good.all()
    assert "attainment" not in free.results()


# --- aggregates -----------------------------------------------------------------------------------


def test_aggregates_alone_agree_with_the_requests():
    rng = np.random.default_rng(2)
    asked = poisson(25.0, 1500, rng.integers(10, 900, 1500), rng.integers(1, 100, 1500))
    asked = with_columns(asked, tenant=rng.integers(0, 2, 1500))
    slos = (Slo(ttft=0.05), Slo(tpot=0.01))
    kept, lean = (run(asked, slos=slos, keep_requests=keep) for keep in (True, False))
    for whole, flat in (
        (kept.results(), lean.results()),
        *zip(kept.by_tenant(), lean.by_tenant(), strict=True),
    ):
        assert whole.keys() == flat.keys()
        for name, value in whole.items():
            if not name.startswith(PERCENTILES):
                assert flat[name] == pytest.approx(value, rel=1e-9), name
    for name in ("ttft", "tpot", "e2el"):
        values = getattr(kept, name)
        values = values[~np.isnan(values)]
        found = lean.statistics(name)
        for statistic, share in zip(PERCENTILES, (0.5, 0.9, 0.95, 0.99), strict=True):
            exact = np.quantile(values, share, method="inverted_cdf")
            assert found[statistic] == pytest.approx(exact, rel=0.0025)  # half a bin
    assert len(lean.ttft) == len(lean.tpot) == len(lean.good) == 0


def test_tenants_add_up():
    rng = np.random.default_rng(3)
    asked = poisson(20.0, 300, rng.integers(10, 400, 300), 20)
    asked = with_columns(asked, tenant=rng.integers(0, 3, 300))
    made = run(asked, slos=(Slo(ttft=0.02),) * 3)
    results, rows = made.results(), made.by_tenant()
    for name in ("requests", "request_throughput", "output_throughput", "goodput"):
        assert sum(row[name] for row in rows) == pytest.approx(results[name], rel=1e-12)
    shares = [row["requests"] / 300 for row in rows]
    for name in ("mean_ttft_ms", "mean_itl_ms"):
        mean = sum(share * row[name] for share, row in zip(shares, rows, strict=True))
        # the middle of a bin stands for a gap between tokens
        assert mean == pytest.approx(results[name], rel=1e-9 if "ttft" in name else 1e-2)
    mine = made.e2el[asked.tenant == 1]
    assert made.statistics("e2el", 1)["p90"] == np.quantile(mine, 0.9)


def test_replicas_add_up_and_their_rent():
    asked = requests(np.arange(6) * 1e-6, [400, 10] * 3, 5)
    made = run(asked, BASE, BASE, routing=Routing.ROUND_ROBIN, price=0.5)
    results, rows = made.results(), made.by_replica()
    assert [row["prompt_tokens"] for row in rows] == [1200, 30]
    assert [row["decode_tokens"] for row in rows] == [12, 12]
    assert sum(row["steps"] for row in rows) == results["steps"]
    assert np.mean([row["busy"] for row in rows]) == pytest.approx(results["busy"])
    assert sum(row["running"] for row in rows) == pytest.approx(results["running"])
    busy = made.record.busy
    assert results["replica_imbalance"] == pytest.approx(busy.max() / busy.mean())
    assert results["replica_seconds"] == pytest.approx(2 * results["duration_s"])
    assert results["cost_usd"] == pytest.approx(0.5 * results["replica_seconds"])
    assert results["cost_per_mtok"] == pytest.approx(results["cost_usd"] / 30 * 1e6)


def test_a_replica_that_is_off_has_no_shares():
    made = run(
        requests([0.0, 1.0], 100, 5), replicas=[Replica(BASE), Replica(BASE, state=State.OFF)]
    )
    results, rows = made.results(), made.by_replica()
    assert rows[1]["on_s"] == rows[1]["busy"] == rows[1]["kv_utilisation"] == 0.0
    alone = run(requests([0.0, 1.0], 100, 5)).results()
    for name in ("busy", "kv_utilisation"):  # of what is on
        assert results[name] == pytest.approx(alone[name], rel=1e-12)
    assert results["replica_imbalance"] == 1.0


# --- columns of what is on ------------------------------------------------------------------------

PLAIN = {
    "requests", "duration_s", "request_throughput", "output_throughput", "total_throughput",
    "goodput", "running", "busy", "kv_utilisation", "peak_kv_utilisation", "preemptions", "steps",
    *(f"{statistic}_{name}_ms" for name in ("ttft", "tpot", "e2el", "queue_time", "itl")
      for statistic in ("mean", *PERCENTILES)),
}  # fmt: skip


def added(made: Simulation) -> dict:
    results = made.results()
    assert results.keys() >= PLAIN
    return {name: value for name, value in results.items() if name not in PLAIN}


def test_a_plain_run_has_no_further_columns():
    assert added(run(requests([0.0], 100, 5))) == {}


def test_hit_rate_by_hand():
    """The second prompt finds two of its three blocks; its last token must be computed."""
    asked = dataclasses.replace(
        requests([0.0, 1.0], [48, 48], 2), hash_block=16,
        hash_ids=(np.array([0, 3, 6]), np.array([1, 2, 3, 1, 2, 3])),
    )  # fmt: skip
    made = run(asked, dataclasses.replace(BASE, prefix_cache=True))
    assert made.record.hits.tolist() == [0, 32]
    assert added(made) == {"prefix_cache_hit_rate": 32 / 96, "evicted_blocks": 0}


def test_speculation_by_hand():
    """All drafts are right: 3 tokens a step, 13 of them after the first, at last 1 and no draft."""
    drafts = Speculation(1.0, np.full(9, 2), np.zeros(9))
    made = run(requests([0.0], 100, 14), dataclasses.replace(BASE, speculation=drafts))
    assert made.record.steps[0] == 1 + 5
    assert added(made) == {"acceptance_rate": 1.0, "acceptance_length": 13 / 5}


def test_fine_tuning_adapters_and_swaps():
    engine = dataclasses.replace(BASE, finetune=32, adapters=1, adapter_time=0.1)
    asked = with_columns(requests([0.0, 5.0, 10.0], 100, 2), adapter=[0, 1, 1])
    made = run(asked, engine)
    steps, span = made.record.steps[0], made.record.makespan
    assert added(made) == {"adapter_loads": 2, "finetune_throughput": steps * 32 / span}
    tight = dataclasses.replace(BASE, block_size=8, blocks=4, swap_time=1e-3)
    made = run(requests([0.0, 0.0], 15, 10), tight)
    # B's two blocks leave when A needs a third one, and come back with B
    assert made.record.preempted.tolist() == [0, 1]
    assert added(made) == {"swapped_blocks": 4}


def test_transfers_retries_and_scaling():
    asked = requests(np.arange(20) * 0.01, 200, 20)
    prefill, decode = Replica(BASE, role=Role.PREFILL), Replica(BASE, role=Role.DECODE)
    made = run(asked, replicas=[prefill, decode], link=Link(1e-3, 1e-6))
    assert added(made)["transfers"] == 20
    failing = Change(0.1, 0, State.FAILED)
    made = run(asked, BASE, BASE, changes=(failing,))
    assert added(made)["retries"] == made.record.counts["retries"] > 0
    made = run(
        asked, replicas=[Replica(BASE), Replica(BASE, state=State.OFF)],
        scaler=Scaler(0.05, 0.5, 2.0),
    )  # fmt: skip
    assert added(made)["scaled_up"] >= 1
    assert set(added(made)) == {
        "scaled_up", "scaled_down", "replica_seconds", "replica_imbalance"
    }  # fmt: skip


# --- tasks ----------------------------------------------------------------------------------------


def test_a_task_lasts_from_its_first_arrival_to_its_last_finish():
    """Task 0 is two requests with a tool between them, task 7 is one."""
    asked = with_columns(
        requests([0.0, 0.0, 2.0], 100, 2), task=[0, 0, 7], delay=[0.0, 0.5, 0.0]
    )  # fmt: skip
    asked = dataclasses.replace(asked, after=(np.array([0, 0, 1, 1]), np.array([0])))
    made = run(asked)
    table = surface()
    once = table.time([], [(100, 0)]) + table.time([101])
    rows = made.by_task()
    assert [(row["task"], row["requests"], row["arrival_s"]) for row in rows] == [
        (0, 2, 0.0), (7, 1, 2.0)
    ]  # fmt: skip
    spent = [row["e2el_ms"] / 1e3 for row in rows]
    np.testing.assert_allclose(spent, [2 * once + 0.5, once], rtol=1e-9)
    assert made.results()["mean_task_e2el_ms"] == pytest.approx(1e3 * np.mean(spent))
    flat = run(asked, keep_requests=False)
    assert "mean_task_e2el_ms" not in flat.results()
    with pytest.raises(UsageError, match="keep_requests=True"):
        flat.by_task()


# --- error bars -----------------------------------------------------------------------------------


def test_the_interval_holds_the_mean_of_correlated_observations():
    """An AR(1) process of correlation 0.8: 95 % nominal, 90 % or more of 200 runs."""
    held = known = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=4100)
        values = np.zeros(4100)
        for lag in range(60):  # 0.8^60 = 1.5e-6
            values[lag:] += 0.8**lag * noise[: 4100 - lag]
        low, high = interval(values[100:])
        known += low == low
        held += low <= 0 <= high
    assert known >= 195
    assert held / known >= 0.9


def test_where_there_is_no_interval():
    assert np.isnan(interval(np.arange(1000.0))).all()  # grows all the time
    assert np.isnan(interval(np.array([]))).all()
    assert np.isnan(interval(np.array([1.0, 2.0] * 3))).all()  # too few
    assert interval(np.full(100, 0.3)) == pytest.approx((0.3, 0.3), rel=1e-12)


def test_intervals_surround_the_means():
    made = run(poisson(5.0, 1000, 200, 10))
    results, bars = made.results(), made.intervals()
    assert set(bars) == {
        f"mean_{name}_ms_{end}"
        for name in ("ttft", "tpot", "e2el", "queue_time")
        for end in ("low", "high")
    }
    for name in ("ttft", "tpot", "e2el"):
        low, high = bars[f"mean_{name}_ms_low"], bars[f"mean_{name}_ms_high"]
        assert 0 < low < results[f"mean_{name}_ms"] < high < 2 * low


# --- bad questions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("tfft",), "nearest: ttft"), (("ttft", 1), "tenant 1 is not one of 0 to 0"),
     (("task_e2el",), "not parts of tasks"), (("task_e2el", 0), "several tenants")],
)  # fmt: skip
def test_statistics_that_are_not_there(arguments, word):
    with pytest.raises(UsageError, match=word):
        run(requests([0.0], 100, 2)).statistics(*arguments)


def test_nothing_observed_is_null_in_json():
    results = run(requests([0.0], 100, 1)).results()
    assert math.isnan(results["mean_tpot_ms"])
    assert math.isnan(results["p99_itl_ms"])
    assert shown(results)["mean_tpot_ms"] is None
    assert shown(results)["mean_ttft_ms"] == results["mean_ttft_ms"]
