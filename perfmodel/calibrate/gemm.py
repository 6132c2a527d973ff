"""Measured dense GEMMs as a model to fit: which rates matter, what the benchmark left in L2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwdb.records import Gpu
from perfmodel.calibrate.fit import Array, Parameter, numeric_jacobian
from perfmodel.calibrate.table import LATENCY, Table
from perfmodel.core.errors import UsageError, near
from perfmodel.time.kernels.gemm import (
    CLOCK,
    FORMATS,
    Device,
    Format,
    GemmRates,
    hot_share,
    menu_times,
    tile_time,
)
from perfmodel.time.kernels.tiles import MENUS, Menu, candidates

_US = 1e-6

_SHARED: Final = (
    Parameter("compute_efficiency", "1", 0.75, 0.2, 1.0, "achieved share of the dense peak"),
    Parameter("memory_efficiency", "1", 0.85, 0.4, 1.0, "achieved share of the memory bandwidth"),
    Parameter("overhead", "s", 2e-6, 0.3e-6, 2e-5, "launch and drain of the call's kernels"),
    Parameter("wave_time", "s", 0.6e-6, 2e-8, 5e-6, "exposed prologue and epilogue of a tile"),
    Parameter("feed_rate", "B/s", 1e11, 1e10, 1e12, "operand bytes an SM can take in"),
    Parameter("step_latency", "s", 5e-10, 1e-11, 1e-8, "least time per element of depth"),
    Parameter("cache_gain", "1", 2.0, 1.2, 3.0, "bandwidth of L2 over that of memory"),
    Parameter("droop", "1", 0.1, 0.01, 2.0, "loss of clock under sustained matrix load"),
)
_SPLIT: Final = Parameter("split_time", "s", 2e-6, 1e-7, 1e-5, "fixed cost of adding split-K parts")
_QUANT: Final = (
    Parameter("quant_efficiency", "1", 0.5, 0.05, 3.0, "bandwidth share of the quantising pass"),
    Parameter("quant_row", "s", 5e-8, 1e-9, 5e-6, "an SM's time for one quantised row"),
)
_UNPACK: Final = Parameter("unpack_rate", "1/s", 5e10, 1e9, 1e12, "weights an SM widens per second")

# Copies of the operands a benchmark cycles through: (weights, activations). See the measured
# tables' README, caveat 1; SGLang's sets come with activations of their own, the others share one.
_COPIES: Final = {"sglang": (6, 6), "trtllm": (5, 1), "vllm": (6, 1)}
_ONE_COPY: Final = {("vllm", "fp8_block"), ("vllm", "nvfp4")}


def menu_of(backend: str, dtype: str, generation: str) -> Menu:
    """Tile menu of an engine's kernel for a data type.

    cuBLAS multiplies bf16 everywhere and TensorRT-LLM's per-tensor fp8 and int8; vLLM dispatches
    fp8 by hand; block-scaled and fp4 kernels come from tuned libraries without split-K.
    """
    if dtype in ("bf16", "fp16") or (backend == "trtllm" and dtype not in ("fp8_block", "nvfp4")):
        return MENUS["library"]
    if backend == "sglang" and dtype == "fp8" and generation == "hopper":
        return MENUS["cutlass-sm90"]
    if backend == "vllm" and dtype == "fp8":
        by_hand = {"hopper": "cutlass-sm90", "blackwell": "cutlass-sm100"}
        return MENUS[by_hand.get(generation, "cutlass-sm120")]
    return MENUS["persistent"]


def generation_of(gpu: Gpu) -> str:
    """Generation whose kernels a GPU runs: its architecture, GDDR parts apart from HBM parts.

    Examples
    --------
    >>> import hwdb
    >>> generation_of(hwdb.gpu("b300-sxm")), generation_of(hwdb.gpu("rtx-pro-6000"))
    ('blackwell', 'blackwell-gddr')
    """
    family = gpu.architecture.removesuffix("-ultra")
    return f"{family}-gddr" if gpu.memory.type.startswith("GDDR") else family


def device_of(gpu: Gpu, form: Format, cache: float | None = None) -> Device:
    """What a GEMM of a format feels of a GPU.

    ``cache`` stands in for an unknown L2 [B]; an unknown clock is taken to be the reference.

    Raises
    ------
    perfmodel.core.errors.UsageError
        The GPU lacks the datapath.
    hwdb.citation.UnknownValue
        SMs or L2 are not known.
    """
    if form.math not in gpu.peak:
        raise UsageError(f"{gpu.id} has no {form.math} matrix units (it has {', '.join(gpu.peak)})")
    units, l2 = gpu.compute.units, gpu.memory.l2
    if units is None:
        raise UsageError(f"{gpu.id}: the number of its SMs is not known")
    if l2 is None or (cache is not None and not l2.known):
        if cache is None:
            raise UsageError(f"{gpu.id}: the size of its L2 is not known")
        size = cache
    else:
        size = l2.value
    boost = gpu.compute.boost_clock
    clock = boost.value if boost is not None and boost.known else CLOCK
    peak = next(rate for math, rate in gpu.peak.items() if math == form.math)
    return Device(units.value, peak.value, gpu.memory.bandwidth.value, size, clock)


@dataclass(frozen=True, slots=True)
class GemmModel:
    """Measured GEMMs of one GPU, data type and engine: a `perfmodel.calibrate.fit.Model`.

    ``without`` names rates that are held at a value instead of fitted.
    """

    device: Device
    form: Format
    menu: Menu
    rows: Array
    cols: Array
    inner: Array
    weight_hot: Array
    act_hot: Array
    measured: Array
    without: tuple[tuple[str, float], ...] = ()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Rates that this format and menu can show."""
        fitted = list(_SHARED)
        if max(self.menu.splits) > 1:
            fitted.append(_SPLIT)
        if self.form.quantised:
            fitted.extend(_QUANT)
        if self.form.unpacked:
            fitted.append(_UNPACK)
        fixed = dict(self.without)
        return tuple(p for p in fitted if p.name not in fixed)

    @property
    def groups(self) -> NDArray[Any]:
        """Layer shapes: rows of one weight matrix stay together."""
        return np.stack([self.cols, self.inner], axis=1)

    def subset(self, keep: NDArray[np.bool_]) -> GemmModel:
        """The model over some of its rows."""
        parts = (self.rows, self.cols, self.inner, self.weight_hot, self.act_hot, self.measured)
        kept = (part[keep] for part in parts)
        return GemmModel(self.device, self.form, self.menu, *kept, without=self.without)

    def rates(self, logs: Array) -> GemmRates:
        """The formula's rates from the logs of the fitted ones."""
        fitted = zip((p.name for p in self.parameters), np.exp(logs).tolist(), strict=True)
        return GemmRates(**(dict(fitted) | dict(self.without)))

    def predict(self, logs: Array) -> Array:
        """Predicted times [s]."""
        return self._times(logs).min(axis=0)

    def residuals(self, logs: Array) -> Array:
        """log(predicted / measured)."""
        return np.log(self.predict(logs) / self.measured)

    def jacobian(self, logs: Array) -> Array:
        """Derivative of the residuals: of the chosen candidates alone (envelope theorem)."""
        chosen = candidates(self.menu)[:3, self._times(logs).argmin(axis=0)]
        tile_rows, tile_cols, splits = chosen

        def log_time(point: Array) -> Array:
            return np.log(
                tile_time(
                    self.device, self.form, self.rates(point), self.rows, self.cols, self.inner,
                    tile_rows, tile_cols, splits, self.weight_hot, self.act_hot,
                )
            )  # fmt: skip

        return numeric_jacobian(log_time, logs)

    def _times(self, logs: Array) -> Array:
        return menu_times(
            self.device, self.form, self.rates(logs), self.menu,
            self.rows, self.cols, self.inner, self.weight_hot, self.act_hot,
        )  # fmt: skip


def gemm_model(
    table: Table,
    device: Device,
    dtype: str,
    backend: str,
    menu: Menu,
    without: tuple[tuple[str, float], ...] = (),
) -> GemmModel:
    """Rows of one system, data type and engine, with what the benchmark's loop left in L2.

    Parameters
    ----------
    table : Table
        Columns ``m``, ``n``, ``k`` and ``latency_us``.

    Raises
    ------
    perfmodel.core.errors.UsageError
        A data type that no formula knows.
    perfmodel.core.errors.DataError
        A column is missing or holds no numbers.
    """
    form = form_of(dtype)
    rows, cols, inner = (table.numbers(name) for name in "mnk")
    act, weight = rows * inner * form.input_width, cols * inner * form.weight_width
    passing = act + rows * cols * form.output_width
    weights, acts = _COPIES.get(backend, (1, 1))
    if (backend, dtype) in _ONE_COPY:
        weights = 1
    cache = float(device.cache)
    return GemmModel(
        device,
        form,
        menu,
        rows,
        cols,
        inner,
        np.asarray(hot_share(weights * weight + acts * passing, cache)),
        np.asarray(hot_share(acts * (passing + weight), cache)),
        table.numbers(LATENCY) * _US,
        without,
    )


def form_of(dtype: str) -> Format:
    """Format of a data type by its name in the tables.

    Raises
    ------
    perfmodel.core.errors.UsageError
        No formula knows it.
    """
    if dtype not in FORMATS:
        raise UsageError(f"no GEMM formula for {dtype!r}{near(dtype, FORMATS)}")
    return FORMATS[dtype]
