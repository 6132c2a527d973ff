"""Means, percentiles, and how far a mean of one run may be off."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.serving.requests import Counts, Times
from perfmodel.serving.simulate.record import BINS, LOWEST, WIDTH

PERCENTILES: Final = (90, 95, 99)
STATISTICS: Final = ("mean", "median", *(f"p{percentile}" for percentile in PERCENTILES))
_SHARES: Final = (0.5, *(percentile / 100 for percentile in PERCENTILES))

# Batches to begin with and to end with; fewer than this say nothing about their own spread.
_MOST_BATCHES: Final = 512
_LEAST_BATCHES: Final = 8
# One-sided 10 % point of the normal distribution: the size of the test for correlated batches.
_CORRELATED: Final = 1.2816


def of_values(values: Times) -> dict[str, float]:
    """`STATISTICS` of observations without nan; nan where there is none."""
    found = [math.nan] * len(STATISTICS)
    if len(values):
        found = [float(values.mean()), *_quantiles(values)]
    return dict(zip(STATISTICS, found, strict=True))


def _quantiles(values: Times) -> list[float]:
    """Values at `_SHARES`, interpolated; each is sought only among those above the one before.

    NumPy's quantile asks for all ranks at once, which takes several times as long.
    """
    above, below, found = values.copy(), 0, list[float]()
    for share in _SHARES:
        rank = share * (len(values) - 1)
        at = int(rank) - below
        above.partition(at)
        above, below = above[at:], int(rank)
        low, high = float(above[0]), float(above[1:].min(initial=math.inf))
        found.append(low + (high - low) * (rank - below) if rank > below else low)
    return found


def of_bins(counts: Counts, total: float | None = None) -> dict[str, float]:
    """`STATISTICS` of a histogram of times [s]; nan where it is empty.

    Parameters
    ----------
    counts : array of int64, shape (bins,)
    total : float, optional
        Sum of the observations, for the mean; default: from the bins' middles.
    """
    reached: list[int] = np.cumsum(counts).tolist()
    if not reached[-1]:
        return dict.fromkeys(STATISTICS, math.nan)
    middles = LOWEST * np.exp((np.arange(BINS) + 0.5) * WIDTH)
    # a share of the last count is never beyond it
    places = [bisect_left(reached, share * reached[-1]) for share in _SHARES]
    mean = (float(middles @ counts) if total is None else total) / reached[-1]
    return dict(zip(STATISTICS, [mean, *middles[places].tolist()], strict=True))


def interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the mean of successive, correlated observations.

    Means of batches, which are doubled in size until neighbours are uncorrelated by von Neumann's
    test (Fishman and Yarberry, INFORMS Journal on Computing 9(3), 1997, section 2), then Student's
    t. What changes over the whole run, such as a queue that keeps growing, has no such interval.

    Parameters
    ----------
    values : array, shape (n,)
        In order of time, without nan.
    level : float
        Chance that the interval holds the mean [1].

    Returns
    -------
    tuple of float
        Low and high end; nan where the run is too short to tell.

    Examples
    --------
    >>> interval(np.arange(1000.0))
    (nan, nan)
    """
    from scipy import special  # 0.1 s to import

    size = max(1, -(-len(values) // _MOST_BATCHES))
    while (batches := len(values) // size) >= _LEAST_BATCHES:
        # what does not fill a batch is left out at the beginning
        means = values[len(values) % size :].reshape(batches, size).mean(axis=1)
        if _independent(means):
            student = float(special.stdtrit(batches - 1, 0.5 + level / 2))
            half = student * float(means.std(ddof=1)) / math.sqrt(batches)
            return float(means.mean()) - half, float(means.mean()) + half
        size *= 2
    return math.nan, math.nan


def _independent(means: NDArray[np.float64]) -> bool:
    count, centred = len(means), means - means.mean()
    spread = float(centred @ centred)
    if spread <= (1e-12 * float(np.abs(means).max())) ** 2 * count:  # all equal, to rounding
        return True
    steps = np.diff(means)
    ratio = 1.0 - float(steps @ steps) / (2.0 * spread)
    return ratio <= _CORRELATED * math.sqrt((count - 2) / (count * count - 1))
