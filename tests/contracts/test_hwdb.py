"""What every shipped hardware file promises, whatever it describes."""

import math
from functools import cache

import pytest

import hwdb
from hwdb import load
from hwdb.check import Report, check
from hwdb.records import KINDS

# Dense FP16 FLOP per multiprocessor and cycle of the dies with HBM, as NVIDIA's staff derive them
# from its whitepapers (https://forums.developer.nvidia.com/t/how-to-calculate-the-tensor-core-fp16-
# performance-of-h100/244727). With-sparsity figures would come out at twice these.
TENSOR_CORES = {"volta": 1024, "ampere": 2048, "hopper": 4096}

# How a value's path begins where it is named to the user, as in ``--set gpu.power.idle=50W``.
SINGULAR = {
    "gpus": "gpu",
    "cpus": "cpu",
    "nodes": "node",
    "fabrics": "fabric",
    "storage": "storage",
    "prices": "price",
    "calibrations": "calibration",
}

EVERY = [(kind, name) for kind in KINDS for name in load.ls(kind)]


@cache
def report() -> Report:
    return check()


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_record_loads_and_can_be_found_by_every_name(kind, name):
    record = hwdb.get(kind, name)
    assert record.id == name
    assert record.name
    for alias in record.aliases:
        assert hwdb.get(kind, alias) is record


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_lint_finds_no_error(kind, name):
    found = [str(row) for row in report().errors if row.where.startswith(f"{kind}/{name}:")]
    assert not found, "\n".join(found)


def test_lint_finds_no_error_outside_records():
    assert not [row for row in report().errors if row.rule == "loads"]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_values_are_finite_and_cited_or_say_why_not(kind, name):
    record = hwdb.get(kind, name)
    cited = list(load.cited(record))
    assert cited
    for path, value in cited:
        assert value.where == f"{name}: {SINGULAR[kind]}.{path}"
        if value.known:
            assert math.isfinite(value.value), path
            assert value.source in record.sources, path
        else:
            assert len(value.unknown) > 10, path
            with pytest.raises(hwdb.UnknownValue, match=path):
                _ = value.value


@pytest.mark.parametrize("name", load.ls("gpus"))
def test_accelerator_can_be_put_on_a_roofline(name):
    gpu = hwdb.gpu(name)
    assert gpu.memory.bandwidth.known
    assert gpu.memory.capacity.known
    assert any(rate.known for rate in (*gpu.peak.values(), *gpu.vector.values()))


@pytest.mark.parametrize("name", load.ls("gpus"))
def test_accelerator_power_is_known_or_estimated(name):
    assert hwdb.gpu(name).power.tdp.known, "give a sourced figure or an estimate with low and high"


def test_tensor_core_peaks_are_dense():
    checked = {}
    for gpu in map(hwdb.gpu, load.ls("gpus")):
        units, clock = gpu.compute.units, gpu.compute.boost_clock
        known = units and clock and units.known and clock.known
        if known and gpu.architecture in TENSOR_CORES and gpu.memory.type.startswith("HBM"):
            rate = gpu.peak["fp16"].value / (units.value * clock.value)
            checked[gpu.id] = rate / TENSOR_CORES[gpu.architecture]
    assert {"v100-sxm2", "a100-sxm-80gb", "h100-sxm", "h200-sxm"} <= set(checked)
    # Sheets quote peaks at a boost clock up to a seventh below the highest one.
    assert not {name: share for name, share in checked.items() if not 0.85 < share < 1.05}


def test_report_counts_every_record():
    assert sum(report().records.values()) == len(EVERY)
