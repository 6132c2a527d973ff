"""Measured GEMMs as a model: rates recovered, hot operands, facts; and real tables if present."""

import os
from pathlib import Path

import numpy as np
import pytest

import hwdb
from perfmodel.calibrate.fit import fit, numeric_jacobian
from perfmodel.calibrate.gemm import (
    GemmModel,
    device_of,
    form_of,
    gemm_model,
    generation_of,
    menu_of,
)
from perfmodel.calibrate.table import Table, read_table, usable
from perfmodel.calibrate.validate import cross_validate, errors
from perfmodel.core.errors import DataError, UsageError
from perfmodel.time.kernels.gemm import GemmRates, hot_share
from perfmodel.time.kernels.tiles import MENUS

ROOT = Path(__file__).parents[3]
GROUNDTRUTH = Path(os.environ.get("PERFMODEL_GROUNDTRUTH", ROOT.parent / "shared/groundtruth"))
H100 = hwdb.gpu("h100-sxm")


def table(shapes: np.ndarray, latency_us: np.ndarray) -> Table:
    m, n, k = shapes.astype(float)
    columns = {"m": m, "n": n, "k": k, "latency_us": latency_us}
    return Table("made up", columns, np.arange(len(m)) + 2)


def synthetic(dtype: str, backend: str, rates: dict[str, float], noise: float) -> GemmModel:
    rng = np.random.default_rng(1)
    n = 600
    shapes = np.stack([2 ** rng.integers(0, 15, n), *2 ** rng.integers(6, 15, (2, n))])
    menu, device = menu_of(backend, dtype, "hopper"), device_of(H100, form_of(dtype))
    blank = gemm_model(table(shapes, np.ones(n)), device, dtype, backend, menu)
    logs = np.log([rates.get(p.name, p.start) for p in blank.parameters])
    measured = blank.predict(logs) * np.exp(rng.normal(0, noise, n)) * 1e6
    return gemm_model(table(shapes, measured), device, dtype, backend, menu)


@pytest.mark.parametrize(("dtype", "backend"), [("bf16", "vllm"), ("fp8", "vllm")])
def test_known_rates_come_back_within_their_errors(dtype: str, backend: str) -> None:
    true = {"compute_efficiency": 0.62, "memory_efficiency": 0.91, "overhead": 3e-6,
            "wave_time": 1e-6, "feed_rate": 2e11, "step_latency": 8e-10,
            "quant_row": 4e-7}  # fmt: skip
    model = synthetic(dtype, backend, true, 0.02)
    found = fit(model)
    assert found.spread == pytest.approx(0.02, rel=0.15)
    for parameter in model.parameters:
        away = np.log(found.values[parameter.name] / true.get(parameter.name, parameter.start))
        assert abs(away) < 4 * found.errors[parameter.name], parameter.name
    for name in ("compute_efficiency", "memory_efficiency"):
        assert found.values[name] == pytest.approx(true[name], rel=0.02)


def test_jacobian_of_the_choice_is_that_of_the_whole() -> None:
    model = synthetic("fp8", "trtllm", {}, 0.02)
    logs = np.log([p.start * 1.1 for p in model.parameters])
    whole = numeric_jacobian(model.residuals, logs, 1e-7)
    np.testing.assert_allclose(model.jacobian(logs), whole, atol=2e-5)


def test_rates_follow_format_and_menu() -> None:
    def names(dtype: str, menu: str) -> set[str]:
        device = device_of(H100, form_of(dtype))
        one = table(np.ones((3, 1)), np.ones(1))
        return {p.name for p in gemm_model(one, device, dtype, "vllm", MENUS[menu]).parameters}

    base = names("bf16", "persistent")
    assert names("bf16", "library") - base == {"split_time"}
    assert names("fp8", "persistent") - base == {"quant_efficiency", "quant_row"}
    assert names("int4_wo", "persistent") - base == {"unpack_rate"}
    assert base | names("fp8", "library") | {"unpack_rate"} == set(GemmRates.__slots__)


def test_the_benchmark_leaves_small_buffers_in_l2() -> None:
    shapes = np.array([[1, 1], [256, 16384], [256, 16384]])
    device = device_of(H100, form_of("bf16"))
    model = gemm_model(table(shapes, np.ones(2)), device, "bf16", "vllm", MENUS["library"])
    assert model.weight_hot == pytest.approx([1, 0], abs=1e-3)
    weight, act = 2 * 256.0 * 256, 2.0 * (256 + 256)
    assert model.weight_hot[0] == hot_share(6 * weight + act, device.cache)
    # one activation buffer against as many as weights: SGLang's are colder
    own = gemm_model(table(shapes, np.ones(2)), device, "bf16", "sglang", MENUS["library"])
    assert (own.act_hot < model.act_hot).all()


def test_facts_of_a_gpu() -> None:
    device = device_of(H100, form_of("fp8"))
    assert (device.sms, device.bandwidth, device.cache) == (132, 3.35e12, 50 * 2**20)
    assert device.clock == 1.98e9
    assert device_of(hwdb.gpu("a100-sxm-80gb"), form_of("bf16")).clock == 1.41e9
    assert generation_of(H100) == generation_of(hwdb.gpu("h200-sxm")) == "hopper"
    assert menu_of("vllm", "fp8", "hopper").name == "cutlass-sm90"
    assert menu_of("vllm", "bf16", "hopper").name == "library"
    with pytest.raises(UsageError, match="h100-sxm has no fp4 matrix units"):
        device_of(H100, form_of("nvfp4"))
    with pytest.raises(UsageError, match="no GEMM formula for 'fp8_blok'; nearest: fp8_block"):
        form_of("fp8_blok")
    columns = {"m": np.ones(1), "n": np.ones(1), "latency_us": np.ones(1)}
    short = Table("made up", columns, np.array([2]))
    with pytest.raises(DataError, match="no column 'k'"):
        gemm_model(short, device, "fp8", "vllm", MENUS["library"])


def test_held_rates_are_not_fitted() -> None:
    model = synthetic("bf16", "vllm", {}, 0.0)
    device = device_of(H100, form_of("bf16"))
    shapes = np.stack([model.rows, model.cols, model.inner])
    held = gemm_model(
        table(shapes, model.measured * 1e6), device, "bf16", "vllm", model.menu, (("droop", 0.0),)
    )
    assert "droop" not in {p.name for p in held.parameters}
    assert held.rates(np.log([p.start for p in held.parameters])).droop == 0


# Median error a 3-fold cross-validation of every fourth row may have (it has a sixth less).
MEASURED = {
    ("h100_sxm", "bf16", "trtllm"): 0.055,
    ("h200_sxm", "fp8", "vllm"): 0.08,
    ("b200_sxm", "nvfp4", "trtllm"): 0.055,
    ("rtx_pro_6000_server", "fp8", "vllm"): 0.055,
    ("a100_sxm", "int8_wo", "trtllm"): 0.10,
}


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, ...], Table]:
    path = GROUNDTRUTH / "kernels/gemm.csv.gz"
    if not path.exists():
        pytest.skip(f"no measured tables at {GROUNDTRUTH} (set PERFMODEL_GROUNDTRUTH)")
    rows, apart = usable(read_table(path))
    assert set(apart) == {"eager"}
    return rows.groups(("system", "dtype", "backend"))


@pytest.mark.parametrize("key", MEASURED, ids="-".join)
def test_measured_tables(measured: dict[tuple[str, ...], Table], key: tuple[str, ...]) -> None:
    system, dtype, backend = key
    part, gpu = measured[key], hwdb.gpu(system)
    part = part.where(np.arange(0, len(part), 4))
    menu = menu_of(backend, dtype, generation_of(gpu))
    model = gemm_model(part, device_of(gpu, form_of(dtype)), dtype, backend, menu)
    found = errors(*cross_validate(model, 3))
    assert found.median <= MEASURED[key]
    assert 0.8 <= found.coverage <= 0.97
