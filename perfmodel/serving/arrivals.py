"""Arrival processes: when requests come, as functions ``(count, rate, rng) -> times``.

All start at time 0 in their steady state, so that the mean rate holds from the first request on; a
seed gives the same bits again. What differs is how bunched the requests are, stated for each as the
squared coefficient of variation (cv²) of the gaps between them: 0 is a metronome, 1 is Poisson.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

from perfmodel.core.errors import UsageError
from perfmodel.serving.requests import Times

Process: TypeAlias = Callable[[int, float, Generator], Times]

DAY = 86400.0
_MOST_PERIODS = 1e7
# Rates, times and shapes outside these bounds mean a slip of the unit; inside, nothing overflows.
_LOW, _HIGH = 1e-9, 1e9


def poisson(count: int, rate: float, rng: Generator) -> Times:
    """Poisson process: independent users; cv² = 1.

    Parameters
    ----------
    count : int
        Requests, at least 0.
    rate : float
        Mean rate [1/s].
    rng : numpy.random.Generator

    Returns
    -------
    array of float64, shape (count,)
        Arrival times, not decreasing [s].

    Raises
    ------
    UsageError
        Negative count; a rate outside 1e-9 to 1e9.
    """
    _check(count, rate)
    return np.cumsum(rng.exponential(1 / rate, count))


def gamma(count: int, rate: float, rng: Generator, burstiness: float = 1.0) -> Times:
    """Independent Gamma-distributed gaps, as in ``vllm bench serve --burstiness``.

    cv² = 1 / burstiness: below 1 burstier than Poisson, above 1 more regular.

    Examples
    --------
    >>> times = gamma(100_000, 2.0, np.random.default_rng(0), burstiness=0.25)
    >>> round(float(np.var(np.diff(times)) / np.mean(np.diff(times)) ** 2))
    4
    """
    _check(count, rate)
    _check_positive("burstiness", burstiness)
    return np.cumsum(rng.gamma(burstiness, 1 / (rate * burstiness), count))


def deterministic(count: int, rate: float, rng: Generator) -> Times:
    """One request every ``1 / rate`` seconds; cv² = 0. Draws nothing from ``rng``.

    Examples
    --------
    >>> deterministic(3, 4.0, np.random.default_rng(0)).tolist()
    [0.25, 0.5, 0.75]
    """
    _check(count, rate)
    return np.arange(1, count + 1) / rate


def at_once(count: int, rate: float, rng: Generator) -> Times:
    """All requests at time 0: an offline batch, or vLLM's infinite rate. ``rate`` is not used."""
    _check(count, 1.0)
    return np.zeros(count)


def on_off(
    count: int, rate: float, rng: Generator, on: float = 10.0, off: float = 10.0, quiet: float = 0.0
) -> Times:
    """Poisson process whose rate switches between a busy and a quiet level at random times.

    The two-state Markov-modulated Poisson process. See `on_off_cv2` for its cv², which grows with
    the number of requests in a busy period; unlike `gamma`, the bursts also last.

    Parameters
    ----------
    on, off : float
        Mean length of a busy and of a quiet period, each exponential [s].
    quiet : float
        Rate in a quiet period over that in a busy one, 0 to 1.

    Raises
    ------
    UsageError
        As `poisson`; periods that are not positive or hold no requests, ``quiet`` outside 0 to 1.
    """
    busy = _busy_rate(rate, on, off, quiet)
    _check(count, rate)
    # The process is a unit Poisson process whose clock runs at the current rate: draw it on that
    # clock, and read wall time off the piecewise linear clock.
    due = np.cumsum(rng.standard_exponential(count))
    first_busy = bool(rng.random() < on / (on + off))
    wall, clock = np.zeros(1), np.zeros(1)
    if count / (rate * (on + off)) > _MOST_PERIODS:
        raise UsageError(
            f"on and off periods of {on:g} s and {off:g} s are too short for a rate of "
            f"{rate:g} per second: bursts of less than one request are a poisson process"
        )
    while count and clock[-1] < due[-1]:
        # An even number of periods at a time keeps the alternation across blocks.
        cycles = int((due[-1] - clock[-1]) / (rate * (on + off)) * 1.1) + 16
        spans = rng.standard_exponential((cycles, 2))
        spans *= (on, off) if first_busy else (off, on)
        speeds = (busy, busy * quiet) if first_busy else (busy * quiet, busy)
        wall = np.append(wall, wall[-1] + np.cumsum(spans))
        clock = np.append(clock, clock[-1] + np.cumsum(spans * speeds))
    return np.interp(due, clock, wall)


def on_off_cv2(rate: float, on: float = 10.0, off: float = 10.0, quiet: float = 0.0) -> float:
    """Squared coefficient of variation of the gaps of `on_off` [1].

    From Fischer and Meier-Hellstern, The Markov-modulated Poisson process cookbook, Performance
    Evaluation 18 (1993): the two-state interarrival distribution.

    Examples
    --------
    >>> on_off_cv2(rate=5.0, on=10.0, off=10.0)  # 10 requests/s half of the time
    51.0
    >>> on_off_cv2(rate=5.0, quiet=1.0)
    1.0
    """
    busy = _busy_rate(rate, on, off, quiet)
    slow = busy * quiet
    leave_on, leave_off = 1 / on, 1 / off
    spread = 2 * leave_on * leave_off * (busy - slow) ** 2
    return 1 + spread / (
        (leave_on + leave_off) ** 2 * (busy * slow + busy * leave_off + slow * leave_on)
    )


def diurnal(
    count: int, rate: float, rng: Generator, period: float = DAY, swing: float = 0.5
) -> Times:
    """Poisson process whose rate is ``rate * (1 + swing * sin(2 pi t / period))``.

    The mean rate holds over whole periods. Gaps are locally Poisson; over a period with many
    requests cv² = 2 / sqrt(1 - swing²) - 1. Drawn by thinning (Lewis and Shedler, Naval Research
    Logistics 26, 1979).

    Parameters
    ----------
    period : float
        [s].
    swing : float
        Peak rate over mean rate, less one; 0 to 1.

    Raises
    ------
    UsageError
        As `poisson`; a period that is not positive, a swing outside 0 to 1.
    """
    _check(count, rate)
    _check_positive("period", period)
    _check_share("swing", swing)
    peak = rate * (1 + swing)
    kept, have, now = [np.zeros(0)], 0, 0.0
    while have < count:
        candidates = now + np.cumsum(
            rng.exponential(1 / peak, int(1.05 * (1 + swing) * (count - have)) + 16)
        )
        now = float(candidates[-1])
        level = 1 + swing * np.sin(2 * math.pi / period * candidates)
        accepted = candidates[rng.random(len(candidates)) * (1 + swing) < level]
        kept.append(accepted)
        have += len(accepted)
    return np.concatenate(kept)[:count]


PROCESSES: dict[str, Callable[..., Times]] = {
    process.__name__: process
    for process in (poisson, gamma, deterministic, on_off, diurnal, at_once)
}


def _busy_rate(rate: float, on: float, off: float, quiet: float) -> float:
    """Rate in a busy period that makes the mean rate ``rate`` [1/s]."""
    _check(0, rate)
    _check_positive("on", on)
    _check_positive("off", off)
    _check_share("quiet", quiet)
    return rate * (on + off) / (on + quiet * off)


def _check(count: int, rate: float) -> None:
    if count < 0:
        raise UsageError(f"{count} requests were asked for; 0 or more")
    _check_positive("the request rate per second", rate)


def _check_positive(name: str, value: float) -> None:
    if not _LOW <= value <= _HIGH:
        raise UsageError(f"{name} is {value:g}; it must be positive, {_LOW:g} to {_HIGH:g}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{name} is {value:g}; it must lie between 0 and 1")
