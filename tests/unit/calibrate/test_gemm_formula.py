"""The GEMM formula: tiles and waves by hand, limits, monotony, and SymPy = NumPy = float."""

import dataclasses

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.core.errors import UsageError
from perfmodel.time.kernels.gemm import (
    FORMATS,
    Device,
    GemmRates,
    gemm_time,
    hot_share,
    menu_times,
    quantise_time,
    split_cost,
    tile_time,
    waves,
)
from perfmodel.time.kernels.tiles import MENUS, Menu, Tile, candidates, menu

H100 = Device(132.0, 989e12, 3.35e12, 50e6)
BF16 = FORMATS["bf16"]
# Nothing but multiplying: what is left is waves times the time of a tile.
IDEAL = GemmRates(
    compute_efficiency=1.0, memory_efficiency=1.0, overhead=1e-30, wave_time=0.0, feed_rate=1e30,
    step_latency=0.0, droop=0.0, split_time=0.0, quant_efficiency=1e9, quant_row=0.0,
)  # fmt: skip
NO_MEMORY = Device(132.0, 989e12, 1e30, 50e6)
SQUARE = Menu("square", (Tile(128, 128),), (1,), "by hand")

sizes = st.integers(1, 20_000)
names = st.sampled_from(sorted(FORMATS))
libraries = st.sampled_from(sorted(MENUS))


@pytest.mark.parametrize(
    ("rows", "cols", "expected"),
    [
        (128, 128, 1),  # one tile on one SM
        (128, 128 * 132, 1),  # a full wave
        (129, 128 * 66, 1),  # rows are padded to two tiles: 132 in all
        (129, 128 * 132, 2),  # 264 tiles
        (128, 128 * 133, 2),  # one tile more than a wave
        (1024, 128 * 132, 8),
    ],
)
def test_waves_by_hand(rows: int, cols: int, expected: int) -> None:
    one = 2 * 128 * 128 * 4096 / (989e12 / 132)
    got = gemm_time(NO_MEMORY, BF16, IDEAL, SQUARE, float(rows), float(cols), 4096.0)
    assert got == pytest.approx(expected * one, rel=1e-9)


def test_a_partial_wave_costs_a_whole_one() -> None:
    assert waves(np.array([1.0, 132.0, 133.0, 264.0]), 132.0).tolist() == [1, 1, 2, 2]


def test_split_k_fills_idle_sms() -> None:
    both = dataclasses.replace(SQUARE, splits=(1, 4))
    whole, split = menu_times(NO_MEMORY, BF16, IDEAL, both, 128.0, 128.0, 8192.0)
    assert split == pytest.approx(whole / 4, rel=1e-9)
    # a split needs some depth to work on
    assert menu_times(NO_MEMORY, BF16, IDEAL, both, 128.0, 128.0, 128.0)[1] == np.inf


def test_large_gemm_reaches_its_share_of_the_peak() -> None:
    rates = dataclasses.replace(IDEAL, compute_efficiency=0.8)
    got = gemm_time(H100, BF16, rates, SQUARE, 16896.0, 16384.0, 16384.0)  # 132 x 128 tiles
    assert 2 * 16896.0 * 16384.0 * 16384.0 / got == pytest.approx(0.8 * 989e12, rel=1e-3)


def test_one_row_streams_the_weights() -> None:
    rates = dataclasses.replace(IDEAL, memory_efficiency=0.9)
    got = gemm_time(H100, BF16, rates, MENUS["library"], 1.0, 16384.0, 16384.0)
    assert got == pytest.approx(2 * 16384.0**2 / (0.9 * 3.35e12), rel=2e-3)


def test_sustained_load_lowers_the_clock() -> None:
    rates = dataclasses.replace(IDEAL, droop=0.5)
    short, long = (
        gemm_time(NO_MEMORY, BF16, rates, SQUARE, m, 128.0 * 132, 8192.0)
        / gemm_time(NO_MEMORY, BF16, IDEAL, SQUARE, m, 128.0 * 132, 8192.0)
        for m in (128.0, 128.0 * 10_000)
    )
    assert short == pytest.approx(1.0, abs=0.01)
    assert long == pytest.approx(1.5, abs=0.01)


def test_hot_operands_come_at_the_bandwidth_of_l2() -> None:
    rates = dataclasses.replace(IDEAL, cache_gain=3.0)
    shape = (1.0, 4096.0, 4096.0)
    cold = gemm_time(H100, BF16, rates, MENUS["library"], *shape)
    hot = gemm_time(H100, BF16, rates, MENUS["library"], *shape, weight_hot=1.0, act_hot=1.0)
    assert cold / hot == pytest.approx(3, rel=0.02)


def test_hot_share_falls_around_the_cache() -> None:
    shares = [hot_share(factor * 0.7 * 50e6, 50e6) for factor in (0.1, 1.0, 10.0)]
    assert shares == pytest.approx([1.0, 0.5, 0.0], abs=1e-3)


def test_latencies_are_cycles() -> None:
    """Half the clock: fixed costs double, what memory and the peak allow stays."""
    rates = GemmRates(compute_efficiency=1.0, memory_efficiency=1.0)
    half = dataclasses.replace(H100, clock=H100.clock / 2)
    small = [gemm_time(d, BF16, rates, SQUARE, 1.0, 1.0, 1.0) for d in (H100, half)]
    assert small[1] / small[0] == pytest.approx(2, rel=0.02)
    fast = dataclasses.replace(IDEAL, overhead=1e-9)
    large = [gemm_time(d, BF16, fast, SQUARE, 8192.0, 8192.0, 8192.0) for d in (H100, half)]
    assert large[1] == pytest.approx(large[0], rel=1e-5)


def test_quantising_by_hand() -> None:
    # 1000 rows of 4096 bf16 read, fp8 written, at half of 3 TB/s
    moved = quantise_time(3 * 4096e3, 1000.0, 100.0, 3e12, 0.5, 0.0)
    assert moved == pytest.approx(3 * 4096e3 / 1.5e12)
    # many short rows: ten on every SM
    assert quantise_time(1.0, 1000.0, 100.0, 3e12, 0.5, 1e-6) == pytest.approx(1e-5)


def test_split_parts_by_hand() -> None:
    assert split_cost(1e6, 4.0, 1e12, 2e-6, 0.5, 2.0) == pytest.approx(2e-6 + 32e-6)
    assert split_cost(1e6, 1.0, 1e12, 2e-6, 0.5, 2.0) == 0.0


def test_weights_only_formats_widen_on_the_lanes() -> None:
    rates = dataclasses.replace(IDEAL, unpack_rate=1e9)
    got = gemm_time(NO_MEMORY, FORMATS["int4_wo"], rates, SQUARE, 1.0, 128.0, 4096.0)
    assert got == pytest.approx(4096 * 128 / 1e9, rel=1e-3)


def test_dispatch_allows_one_tile_per_range_of_rows() -> None:
    by_hand = MENUS["cutlass-sm120"]
    times = menu_times(
        H100, FORMATS["fp8"], GemmRates(), by_hand, np.array([16.0, 17.0, 257.0]), 4096.0, 4096.0
    )
    assert np.isfinite(times).sum(axis=0).tolist() == [1, 1, 1]
    assert candidates(by_hand)[0, times.argmin(axis=0)].tolist() == [16, 32, 128]


@pytest.mark.parametrize("name", MENUS)
def test_menus_have_a_tile_for_every_row_count(name: str) -> None:
    table = candidates(menu(name))
    for rows in (1, 16, 17, 63, 64, 65, 128, 129, 256, 257, 1e6):
        assert ((table[3] < rows) & (rows <= table[4])).any()
    assert MENUS[name].source


@pytest.mark.parametrize("library", MENUS)
def test_no_rows_cost_a_launch_and_the_weights(library: str) -> None:
    got = gemm_time(H100, FORMATS["fp8"], GemmRates(), MENUS[library], 0.0, 4096.0, 4096.0)
    assert got == pytest.approx(4096**2 / (0.85 * 3.35e12) + 2e-6, rel=1e-9)


def test_an_unknown_menu_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="no tile menu 'libary'; nearest: library"):
        menu("libary")


@given(names, libraries, sizes, sizes, sizes)
def test_never_faster_than_the_datasheet(
    name: str, library: str, rows: int, cols: int, inner: int
) -> None:
    form, rates = FORMATS[name], GemmRates(compute_efficiency=1.0, memory_efficiency=1.0)
    got = gemm_time(H100, form, rates, MENUS[library], float(rows), float(cols), float(inner))
    least = inner * cols * form.weight_width + rows * (
        inner * form.input_width + cols * form.output_width
    )
    assert got >= max(2.0 * rows * cols * inner / H100.peak, least / 3.35e12)


@given(names, sizes, sizes, sizes, st.sampled_from(["cols", "inner"]))
def test_more_work_takes_no_less_time(
    name: str, rows: int, cols: int, inner: int, which: str
) -> None:
    form = FORMATS[name]
    shape = {"rows": float(rows), "cols": float(cols), "inner": float(inner)}
    more = shape | {which: shape[which] * 2}
    args = (H100, form, GemmRates(), MENUS["persistent"])
    assert gemm_time(*args, **more) >= gemm_time(*args, **shape) * (1 - 1e-12)


@given(sizes, sizes, sizes)
def test_every_rate_only_helps(rows: int, cols: int, inner: int) -> None:
    shape = (float(rows), float(cols), float(inner))
    form, base = FORMATS["fp8"], GemmRates()
    before = gemm_time(H100, form, base, MENUS["library"], *shape)
    faster = {
        "compute_efficiency": 1.0, "memory_efficiency": 1.0, "feed_rate": 1e12, "overhead": 1e-6,
        "wave_time": 0.0, "step_latency": 0.0, "droop": 0.0, "quant_efficiency": 1.0,
    }  # fmt: skip
    for name, value in faster.items():
        better = dataclasses.replace(base, **{name: value})
        assert gemm_time(H100, form, better, MENUS["library"], *shape) <= before * (1 + 1e-12)


@given(names, libraries, st.lists(st.tuples(sizes, sizes, sizes), min_size=2, max_size=5))
def test_array_call_equals_scalar_calls(
    name: str, library: str, shapes: list[tuple[int, int, int]]
) -> None:
    args = (H100, FORMATS[name], GemmRates(), MENUS[library])
    together = gemm_time(*args, *np.array(shapes, dtype=float).T)
    alone = [gemm_time(*args, *map(float, shape)) for shape in shapes]
    np.testing.assert_allclose(together, alone, rtol=1e-14)


@pytest.mark.parametrize("name", ["fp8", "int4_wo"])
def test_sympy_says_the_same(name: str) -> None:
    small = Menu("small", (Tile(128, 128), Tile(16, 64, 0, 64)), (1, 4), "for SymPy")
    symbols = sympy.symbols("rows cols inner", positive=True)
    args = (H100, FORMATS[name], GemmRates(), small)
    expression = gemm_time(*args, *symbols)
    for shape in ((1.0, 4096.0, 4096.0), (64.0, 512.0, 16384.0), (3000.0, 300.0, 100.0)):
        exact = float(expression.subs(dict(zip(symbols, shape, strict=True))))
        assert gemm_time(*args, *shape) == pytest.approx(exact, rel=1e-12)


def test_one_tile_as_an_expression_lambdifies() -> None:
    names_ = ("rows", "cols", "inner")
    symbols = sympy.symbols(names_, positive=True)
    expression = tile_time(H100, FORMATS["nvfp4"], GemmRates(), *symbols, 128.0, 64.0, 2.0)
    twin = sympy.lambdify(symbols, expression, "numpy")
    shapes = np.array([[1.0, 128, 64], [4096, 8192, 1024], [77, 999, 333]]).T
    got = tile_time(H100, FORMATS["nvfp4"], GemmRates(), *shapes, 128.0, 64.0, 2.0)
    np.testing.assert_allclose(got, twin(*shapes), rtol=1e-12)
