"""What every metric promises: one file, one column, a definition, finite on a sane answer."""

import re
from pathlib import Path

import numpy as np
import pytest

import perfmodel.serving.metrics as folder
from perfmodel.core.errors import UsageError
from perfmodel.scenario.estimate import Estimate, estimate
from perfmodel.serving.metric import METRICS

EVERY = pytest.mark.parametrize("name", METRICS)
UNITS = {"s", "1/s", "1", "W", "J", "USD"}
SUFFIXES = {"": 1.0, "s": 1.0, "ms": 1e3, "w": 1.0, "j": 1.0}


@pytest.fixture(scope="module")
def answer() -> Estimate:
    return estimate(
        model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", isl=1000, osl=200, max_concurrency=32
    )


def test_one_file_each() -> None:
    (place,) = folder.__path__
    files = {path.stem for path in Path(place).glob("*.py") if not path.stem.startswith("_")}
    assert files == set(METRICS)


@EVERY
def test_is_described(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric.meaning
    assert metric.unit in UNITS
    assert metric.scale == SUFFIXES[metric.suffix]
    assert re.fullmatch(r"[a-z0-9_]+", metric.column)


def test_columns_and_aliases_are_unique() -> None:
    columns = [metric.column for metric in METRICS.values()]
    aliases = [alias for metric in METRICS.values() for alias in metric.aliases]
    assert len(set(columns)) == len(columns)
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(columns)


@EVERY
def test_is_finite_on_a_sane_answer(name: str, answer: Estimate) -> None:
    value = METRICS[name].value(answer)
    assert np.isfinite(value)
    assert value >= 0
    if METRICS[name].unit == "1" and name not in ("gpus", "running"):
        assert value <= 1
    assert answer.results()[METRICS[name].column] == value * METRICS[name].scale


@EVERY
def test_is_nan_where_nothing_fits(name: str) -> None:
    none = estimate(model="meta-llama/Llama-3.1-405B", gpu="h100-sxm")
    assert not none.verdict.feasible
    assert np.isnan(none.results()[METRICS[name].column])


def test_definitions_agree_with_each_other(answer: Estimate) -> None:
    value = {name: float(metric.value(answer)) for name, metric in METRICS.items()}
    # vLLM: tpot = (e2el - ttft) / (osl - 1)
    assert value["tpot"] == pytest.approx((value["e2el"] - value["ttft"]) / 199)
    assert value["interactivity"] == pytest.approx(1 / value["tpot"])
    assert value["output_throughput"] == pytest.approx(200 * value["request_throughput"])
    assert value["total_throughput"] == pytest.approx(1200 * value["request_throughput"])
    assert value["throughput_per_gpu"] == pytest.approx(value["output_throughput"])
    assert value["ttft"] == pytest.approx(value["queue_time"] + value["prefill_time"])
    assert value["energy_per_token"] == pytest.approx(value["power"] / value["output_throughput"])
    assert value["cost_per_mtok_total"] == pytest.approx(value["cost_per_mtok"] * 200 / 1200)
    price = answer.resolved.price.value
    assert price is not None
    assert value["cost_per_mtok"] == pytest.approx(price / value["output_throughput"] * 1e6)
    assert value["request_throughput"] * value["e2el"] == pytest.approx(32)


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="nearest: tpot"):
        METRICS["tpott"]
