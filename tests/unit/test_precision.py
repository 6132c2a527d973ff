"""Number formats and schemes: bytes by hand, which datapath multiplies, what a GPU cannot do."""

import re

import pytest

import hwdb
from perfmodel.core.errors import InfeasibleError, UsageError
from perfmodel.core.precision import FORMATS, LINEAR_CLASSES, SCHEMES, format_named, scheme
from perfmodel.time.machine import Machine, machine

BYTES = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1 + 4 / 16384,  # an fp32 scale per 128 x 128 block
    "mxfp8": 1 + 1 / 32,  # an 8-bit exponent per 32 elements
    "mxfp6": 6 / 8 + 1 / 32,
    "mxfp4": 4 / 8 + 1 / 32,
    "nvfp4": 4 / 8 + 1 / 16,  # an fp8 scale per 16
    "int8": 1.0,
    "int4": 0.5,
    "int4_g128": 0.5 + (2 + 0.5) / 128,  # fp16 scale, 4-bit zero point
    "int4_g32": 0.5 + 2 / 32,  # bf16 scale
}
# scheme -> datapath of (attention, dense FFN, experts, head)
MATH = {
    "bf16": ("bf16", "bf16", "bf16", "bf16"),
    "fp16": ("fp16", "fp16", "fp16", "fp16"),
    "fp32": ("fp32", "fp32", "fp32", "fp32"),
    "fp8": ("fp8", "fp8", "fp8", "bf16"),
    "fp8_block": ("fp8", "fp8", "fp8", "bf16"),
    "fp8_wo": ("bf16", "bf16", "bf16", "bf16"),
    "mxfp8": ("fp8", "fp8", "fp8", "bf16"),
    "int8": ("int8", "int8", "int8", "bf16"),
    "int8_wo": ("bf16", "bf16", "bf16", "bf16"),
    "int4": ("int4", "int4", "int4", "bf16"),
    "awq": ("fp16", "fp16", "fp16", "fp16"),
    "gptq": ("fp16", "fp16", "fp16", "fp16"),
    "w4a8": ("int8", "int8", "int8", "fp16"),
    "nvfp4": ("fp4", "fp4", "fp4", "bf16"),
    "mxfp4": ("bf16", "bf16", "bf16", "bf16"),
    "w4a8_mxfp4_mxfp8": ("bf16", "bf16", "fp8", "bf16"),
    "fp8_mxfp4_experts": ("fp8", "fp8", "fp8", "bf16"),
    "int4_experts": ("bf16", "bf16", "bf16", "bf16"),
    "nvfp4_experts": ("bf16", "fp4", "fp4", "bf16"),
}
# scheme -> stored format of (attention, dense FFN, experts)
STORED = {
    "fp8_wo": ("fp8", "fp8", "fp8"),
    "awq": ("int4_g128", "int4_g128", "int4_g128"),
    "w4a8": ("int4_g128", "int4_g128", "int4_g128"),
    "mxfp4": ("bf16", "bf16", "mxfp4"),
    "w4a8_mxfp4_mxfp8": ("bf16", "bf16", "mxfp4"),
    "fp8_mxfp4_experts": ("fp8_block", "fp8_block", "mxfp4"),
    "int4_experts": ("bf16", "bf16", "int4_g32"),
    "nvfp4_experts": ("bf16", "nvfp4", "nvfp4"),
    "fp8_block": ("fp8_block", "fp8_block", "fp8_block"),
}


def on(gpu: str) -> Machine:
    record = hwdb.gpu(gpu)
    return machine(record, hwdb.node(record.node), hwdb.calibration("uncalibrated"))


def test_every_format_and_scheme_is_listed_here() -> None:
    assert set(FORMATS) == set(BYTES)
    assert set(SCHEMES) == set(MATH)


@pytest.mark.parametrize("name", BYTES)
def test_bytes_per_element(name: str) -> None:
    assert FORMATS[name].bytes == pytest.approx(BYTES[name], rel=1e-15)


@pytest.mark.parametrize("name", MATH)
def test_datapath(name: str) -> None:
    made = SCHEMES[name]
    assert tuple(map(made.math, ("attention", "ffn", "experts", "head"))) == MATH[name]


@pytest.mark.parametrize("name", STORED)
def test_stored_format(name: str) -> None:
    made = SCHEMES[name]
    stored = tuple(made.weight(cls).name for cls in ("attention", "ffn", "experts"))
    assert stored == STORED[name]


@pytest.mark.parametrize("name", SCHEMES)
def test_what_is_never_quantised(name: str) -> None:
    made = SCHEMES[name]
    for cls in ("embedding", "head", "router", "norm"):
        assert made.weight(cls) == made.base
        assert made.activation(cls) == made.base
    assert made.kv == made.base
    assert set(made.weights) <= set(LINEAR_CLASSES)


def test_flags_choose_the_scheme() -> None:
    assert scheme(None, "auto", "fp8_block").name == "fp8_block"
    assert scheme(None, "bfloat16", "fp8_block").name == "bf16"
    assert scheme(None, "half", "bf16").name == "fp16"
    mixed = scheme("fp8", "float16", "bf16")
    assert (mixed.math("ffn"), mixed.math("head"), mixed.kv.name) == ("fp8", "fp16", "fp16")


def test_cache_format() -> None:
    made = SCHEMES["bf16"]
    assert made.with_kv("auto") is made
    for name in ("fp8", "fp8_e4m3", "fp8_e5m2"):
        assert made.with_kv(name).kv.bytes == 1.0
    assert made.with_kv("int8").base == made.base


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="nearest: fp8"):
        scheme("fp8x", "auto", "bf16")
    with pytest.raises(UsageError, match="nearest: bfloat16"):
        scheme(None, "bflot16", "bf16")
    with pytest.raises(UsageError, match="nearest: mxfp"):
        format_named("mxfp")
    with pytest.raises(UsageError, match="number format"):
        SCHEMES["bf16"].with_kv("half-float")


@pytest.mark.parametrize(
    ("gpu", "name"), [("a100-sxm-80gb", "fp8"), ("h100-sxm", "nvfp4"), ("h100-sxm", "int4")]
)
def test_a_missing_datapath_names_one_that_works(gpu: str, name: str) -> None:
    where = on(gpu)
    with pytest.raises(InfeasibleError, match=f"{gpu} has no .* matrix units") as caught:
        where.check(SCHEMES[name], LINEAR_CLASSES)
    assert caught.value.reason == "datapath"
    found = re.search(r"--quantization (\S+)", caught.value.nearest)
    assert found, caught.value.nearest
    assert caught.value.nearest.count("weights only") == 1
    where.check(SCHEMES[found[1]], LINEAR_CLASSES)


def test_a_datapath_that_exists_passes() -> None:
    on("h100-sxm").check(SCHEMES["fp8"], LINEAR_CLASSES)
    on("b200").check(SCHEMES["nvfp4"], LINEAR_CLASSES)
    on("a100-sxm-80gb").check(SCHEMES["int8"], LINEAR_CLASSES)


def test_peaks_are_the_dense_ones() -> None:
    assert on("h100-sxm").peak("bf16") == pytest.approx(989e12, rel=1e-3)
    assert on("h100-sxm").peak("fp8") == pytest.approx(1979e12, rel=1e-3)
    assert on("h100-sxm").peak("fp32", vector=True) == pytest.approx(67e12, rel=1e-2)
    # fp32 matrices run as tf32
    assert on("h100-sxm").peak("fp32") == on("h100-sxm").peak("tf32")
