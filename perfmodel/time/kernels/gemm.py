"""Latency of one dense GEMM, ``out[rows, cols] = act[rows, inner] x weight[inner, cols]``.

The output is cut into tiles, one per SM at a time; a wave is one tile on every SM. Three things
overlap inside the kernel: multiplying (`multiply_time`), feeding operands into each SM
(`feed_time`) and moving operands through memory (`operand_time`); the slowest of them, smoothly,
plus fixed costs is the kernel's time. Of a `Menu` of tiles the library picks the fastest.

All quantities are SI; ``rates`` are what calibration fits. Operands that the last kernel left in L2
are ``hot``: a benchmark that reuses buffers has hot weights, a model that streams its layers has
not. What a GEMM computes is `perfmodel.operators.gemm`'s matter.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula
from perfmodel.time.kernels.tiles import Menu, candidates

# Share of L2 that keeps what it was given: the rest goes to streams and hash conflicts.
CACHE_SHARE: Final = 0.7
# Accumulators an SM holds at once, which bounds how many tiles it works on [elements].
ACCUMULATORS: Final = 16384.0
# Depth in which the datapath consumes the inner dimension, and least depth of a split [elements].
DEPTH: Final = 32.0
LEAST_DEPTH: Final = 64.0
# Clock at which latencies are stated [Hz]; a slower part takes as many cycles, so longer.
CLOCK: Final = 1.98e9
# How long matrix load must last until power limits the clock [s].
DROOP_TIME: Final = 5e-3


@dataclass(frozen=True, slots=True)
class Device:
    """Facts a GEMM feels: SMs [1], dense peak [FLOP/s], memory bandwidth [B/s], L2 [B], clock [Hz].

    The clock is the highest the vendor prints, as the rates are stated at such a one.
    """

    sms: Numeric
    peak: Numeric
    bandwidth: Numeric
    cache: Numeric
    clock: Numeric = CLOCK


@dataclass(frozen=True, slots=True)
class Format:
    """Bytes an element as multiplied (scales included), and the datapath.

    ``quantised``: activations arrive in bf16 and a pass of its own converts them. ``unpacked``:
    weights are widened to the activations' type on the ordinary lanes.
    """

    input_width: float
    weight_width: float
    math: str
    quantised: bool = False
    unpacked: bool = False
    output_width: float = 2.0


FORMATS: Final[dict[str, Format]] = {
    "bf16": Format(2, 2, "bf16"),
    "fp16": Format(2, 2, "fp16"),
    "fp8": Format(1, 1, "fp8", quantised=True),
    "fp8_block": Format(1 + 4 / 128, 1, "fp8", quantised=True),
    "nvfp4": Format(0.5625, 0.5625, "fp4", quantised=True),
    "int8_sq": Format(1, 1, "int8", quantised=True),
    "int8_wo": Format(2, 1, "bf16", unpacked=True),
    "int4_wo": Format(2, 0.5625, "bf16", unpacked=True),
}


@dataclass(frozen=True, slots=True)
class GemmRates:
    """What kernels achieve of a device: the parameters that calibration fits.

    Latencies and the rates of one SM are those of a device that runs at `CLOCK`.

    Attributes
    ----------
    compute_efficiency, memory_efficiency : numeric
        Achieved share of the dense peak and of the memory bandwidth [1].
    overhead : numeric
        Launch and drain of all the kernels of one call [s].
    wave_time : numeric
        Prologue and epilogue of a tile that nothing hides [s].
    feed_rate : numeric
        Operand bytes an SM can take in [B/s].
    step_latency : numeric
        Time per element of depth that even an empty pipeline needs [s].
    cache_gain : numeric
        Bandwidth of L2 over that of memory [1].
    split_time : numeric
        Fixed cost of adding up split-K parts [s].
    droop : numeric
        How much longer multiplying takes once the clock has dropped under sustained load [1].
    quant_efficiency, quant_row : numeric
        Share of bandwidth of the quantising pass [1], and an SM's time for one row [s].
    unpack_rate : numeric
        Weights an SM widens per second [1/s].
    """

    compute_efficiency: Numeric = 0.75
    memory_efficiency: Numeric = 0.85
    overhead: Numeric = 2e-6
    wave_time: Numeric = 0.6e-6
    feed_rate: Numeric = 100e9
    step_latency: Numeric = 0.5e-9
    cache_gain: Numeric = 2.0
    split_time: Numeric = 2e-6
    droop: Numeric = 0.1
    quant_efficiency: Numeric = 0.5
    quant_row: Numeric = 0.05e-6
    unpack_rate: Numeric = 50e9


@formula("hot_share", "a cache keeps what was used since; the step is smoothed (4th power)")
def hot_share(between: Numeric, cache: Numeric) -> Numeric:
    """Share of a buffer still in L2 after ``between`` bytes went by, itself included [1].

    Examples
    --------
    >>> hot_share(0.7 * 50e6, 50e6)
    0.5
    """
    full = between / (CACHE_SHARE * cache)
    return 1 / (1 + (full * full) * (full * full))


@formula("kernel_time", "roofline with a smooth maximum (3-norm)")
def overlapped(compute_time: Numeric, feed_time: Numeric, memory_time: Numeric) -> Numeric:
    """Time of three sides that overlap [s]: the longest, rounded where they meet (3-norm).

    Examples
    --------
    >>> round(overlapped(3.0, 4.0, 5.0), 6)
    6.0
    """
    return (compute_time**3 + feed_time**3 + memory_time**3) ** (1 / 3)


@formula("rounds", "wave quantisation: NVIDIA, Matrix Multiplication Background, section 3")
def waves(tiles: Numeric, slots: Numeric) -> Numeric:
    """Rounds in which ``slots`` work off ``tiles``; a partly filled round takes a whole one [1].

    Examples
    --------
    >>> waves(132.0, 132.0), waves(133.0, 132.0)
    (1.0, 2.0)
    """
    return xp.ceil_div(tiles, slots)


@formula("memory_time", "two levels of memory in series")
def operand_time(
    weight_bytes: Numeric, activation_bytes: Numeric, bandwidth: Numeric,
    weight_hot: Numeric, act_hot: Numeric, memory_efficiency: Numeric, cache_gain: Numeric,
) -> Numeric:  # fmt: skip
    """Time memory and L2 need to move weights and activations, in and out, once [s]."""
    cold = weight_bytes * (1 - weight_hot) + activation_bytes * (1 - act_hot)
    hot = weight_bytes * weight_hot + activation_bytes * act_hot
    return (cold + hot / cache_gain) / (bandwidth * memory_efficiency)


@formula("compute_time", "one tile per SM and wave")
def multiply_time(
    rounds: Numeric, depth: Numeric, tile_rows: Numeric, tile_cols: Numeric,
    sms: Numeric, peak: Numeric, compute_efficiency: Numeric,
) -> Numeric:  # fmt: skip
    """Time the matrix units need for ``rounds`` whole tiles of ``depth`` on every SM [s]."""
    return rounds * depth * tile_rows * (2 * tile_cols) * sms / (peak * compute_efficiency)


@formula("feed_time", "operands of a tile enter an SM once per step of depth")
def feed_time(
    rounds: Numeric, stalls: Numeric, depth: Numeric, tile_rows: Numeric, tile_cols: Numeric,
    input_width: Numeric, weight_width: Numeric, feed_rate: Numeric, step_latency: Numeric,
) -> Numeric:  # fmt: skip
    """Time to bring operands into an SM [s]: bytes at its rate, and a latency per step.

    ``stalls`` counts rounds in which co-resident tiles hide each other's latency.
    """
    per_step = (tile_rows * input_width + tile_cols * weight_width) / feed_rate
    return depth * (rounds * per_step + stalls * step_latency)


@formula("slowing", "power limit reached under sustained load")
def drooped(compute_time: Numeric, droop: Numeric, droop_time: Numeric) -> Numeric:
    """Factor by which multiplying slows once the clock has dropped under its own load [1]."""
    return 1 + droop * compute_time / (compute_time + droop_time)


def split_cost(
    out: Numeric, splits: Numeric, bandwidth: Numeric,
    split_time: Numeric, memory_efficiency: Numeric, cache_gain: Numeric,
) -> Numeric:  # fmt: skip
    """Time to write and add the fp32 parts of a split-K GEMM through L2 [s]; ``out`` elements."""
    parts = 8 * out * splits / (bandwidth * memory_efficiency * cache_gain)
    return xp.where(splits > 1, split_time + parts, 0.0)


@formula("pass_time", "stream of the activations, or one CTA per row")
def quantise_time(
    traffic: Numeric, rows: Numeric, sms: Numeric, bandwidth: Numeric,
    quant_efficiency: Numeric, quant_row: Numeric,
) -> Numeric:  # fmt: skip
    """Time of the pass that turns bf16 activations into a narrow type [s], its launch left out.

    ``traffic`` is read and written; a row has a CTA of its own, which takes ``quant_row``.
    """
    moved = traffic / (bandwidth * quant_efficiency)
    return overlapped(moved, rows / sms * quant_row, 0 * moved)


def tile_time(
    device: Device, form: Format, rates: GemmRates, rows: Numeric, cols: Numeric, inner: Numeric,
    tile_rows: Numeric, tile_cols: Numeric, splits: Numeric,
    weight_hot: Numeric = 0.0, act_hot: Numeric = 0.0,
) -> Numeric:  # fmt: skip
    """Time of a GEMM with a given tile and split [s]; see `gemm_time`."""
    act, weight = rows * inner * form.input_width, inner * cols * form.weight_width
    out = rows * cols
    down, across = xp.ceil_div(rows, tile_rows), xp.ceil_div(cols, tile_cols)
    tiles = down * across * splits
    depth = DEPTH * xp.ceil_div(inner, splits * DEPTH)
    pace = CLOCK / device.clock
    resident = xp.minimum(xp.maximum(ACCUMULATORS / (tile_rows * tile_cols), 1.0), 8.0)
    rounds = waves(tiles, device.sms)
    stalls = waves(tiles, device.sms * resident)

    multiply = multiply_time(
        rounds, depth, tile_rows, tile_cols, device.sms, device.peak, rates.compute_efficiency
    )
    useful = 2 * out * inner / (device.peak * rates.compute_efficiency)
    multiply = multiply * drooped(useful, rates.droop, DROOP_TIME)
    feed = feed_time(
        rounds, stalls, depth, tile_rows, tile_cols,
        form.input_width, form.weight_width, rates.feed_rate / pace, rates.step_latency * pace,
    )  # fmt: skip
    if form.unpacked:
        feed = feed + rounds * depth * tile_cols / rates.unpack_rate * pace
    moved = operand_time(
        weight, act + out * form.output_width, device.bandwidth,
        weight_hot, act_hot, rates.memory_efficiency, rates.cache_gain,
    )  # fmt: skip
    spent = overlapped(multiply, feed, moved) + (stalls * rates.wave_time + rates.overhead) * pace
    spent = spent + split_cost(
        out, splits, device.bandwidth, rates.split_time, rates.memory_efficiency, rates.cache_gain
    )
    if form.quantised:
        traffic = rows * inner * (form.output_width + form.input_width)
        spent = spent + quantise_time(
            traffic, rows, device.sms, device.bandwidth,
            rates.quant_efficiency, rates.quant_row * pace,
        )  # fmt: skip
    return spent


def menu_times(
    device: Device, form: Format, rates: GemmRates, menu: Menu,
    rows: Numeric, cols: Numeric, inner: Numeric,
    weight_hot: Numeric = 0.0, act_hot: Numeric = 0.0,
) -> Any:  # fmt: skip
    """Time with each candidate of a menu, along a new first axis [s]; inf where it may not be."""
    shape = np.broadcast_shapes(*(np.shape(size) for size in (rows, cols, inner)))
    table = candidates(menu).reshape(5, -1, *(1 for _ in shape))
    tile_rows, tile_cols, splits, above, upto = table
    times = tile_time(
        device, form, rates, rows, cols, inner, tile_rows, tile_cols, splits, weight_hot, act_hot
    )
    # no rows is a legal shape: an idle rank in a batch of configurations
    legal = (
        ((rows > above) | (above == 0))
        & (rows <= upto)
        & ((splits == 1) | (inner >= splits * LEAST_DEPTH))
    )
    return np.where(legal, times, np.inf)


def gemm_time(
    device: Device, form: Format, rates: GemmRates, menu: Menu,
    rows: Numeric, cols: Numeric, inner: Numeric,
    weight_hot: Numeric = 0.0, act_hot: Numeric = 0.0,
) -> Numeric:  # fmt: skip
    """Time of a GEMM with the fastest tile its library has [s].

    Parameters
    ----------
    device, form, rates, menu
        Facts, data types, fitted rates, and the tiles there are.
    rows, cols, inner : numeric
        Tokens, output width, input width [1].
    weight_hot, act_hot : numeric
        Share of the weights, and of activations in and out, that L2 serves [1].

    Returns
    -------
    numeric
        Latency, launch included [s].

    Examples
    --------
    >>> from perfmodel.time.kernels.tiles import MENUS
    >>> h100 = Device(132.0, 989e12, 3.35e12, 50e6)
    >>> t = gemm_time(h100, FORMATS["bf16"], GemmRates(), MENUS["library"], 1.0, 8192.0, 8192.0)
    >>> round(t * 1e6)
    51
    """
    sizes = (rows, cols, inner, weight_hot, act_hot)
    if _symbolic(*sizes):
        return functools.reduce(
            xp.minimum,
            (_symbolic_time(device, form, rates, *sizes, *c) for c in candidates(menu).T),
        )
    best = menu_times(device, form, rates, menu, *sizes).min(axis=0)
    return best if np.ndim(best) else float(best)


def _symbolic(*values: Any) -> bool:
    sympy = sys.modules.get("sympy")
    return sympy is not None and any(isinstance(value, sympy.Basic) for value in values)


def _symbolic_time(
    device: Device, form: Format, rates: GemmRates, rows: Any, cols: Any, inner: Any,
    weight_hot: Any, act_hot: Any, tile_rows: float, tile_cols: float, split: float,
    above: float, upto: float,
) -> Any:  # fmt: skip
    never = float("inf")
    spent = tile_time(
        device, form, rates, rows, cols, inner, tile_rows, tile_cols, split, weight_hot, act_hot
    )
    spent = xp.where(rows > above, xp.where(rows <= upto, spent, never), never)
    return xp.where(inner >= split * LEAST_DEPTH, spent, never) if split > 1 else spent
