"""A run over time: requests, tokens and cache in bins, from each request's times and the steps.

Numbers of requests are step functions of time; their mean in a bin is an integral, exact whatever
the bins. Columns of the engines come from the log of steps (``serve(..., log=N)``), within which a
row is a stretch of steps of one composition, and end where the log does.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import UsageError
from perfmodel.serving.requests import Times
from perfmodel.serving.simulate.record import LOG
from perfmodel.serving.simulate.result import Simulation

MOST_BINS: Final = 1_000_000


def series(
    simulation: Simulation, *, bins: int = 100, width: float | None = None
) -> dict[str, Times]:
    """Columns over time, each of shape (bins,).

    Parameters
    ----------
    simulation : Simulation
        With the times of every request.
    bins : int
        Number of bins between 0 and the end of the run.
    width : float, optional
        Width of a bin instead; the last one may reach beyond the end [s].

    Returns
    -------
    dict
        ``begin_s``, ``end_s``: of the bin. ``arrivals``, ``finished``: requests. ``waiting``:
        requests before their first step, ``running``: between that and their last token
        (preempted ones included), means over the bin. ``output_throughput``: tokens per second,
        those after a request's first spread evenly. With a log, means over the bin: ``busy``
        replicas, ``decodes`` under way, ``kv_blocks`` in use (of a stretch: at its beginning), and
        ``prefill_throughput``, prompt tokens computed per second; nan in bins that the log does
        not cover to their end.

    Raises
    ------
    UsageError
        The requests are not kept, or bins that cannot be.
    """
    edges = _edges(simulation, bins, width)
    record, span = simulation.record, np.diff(edges)
    columns = {"begin_s": edges[:-1], "end_s": edges[1:]}
    for name, times in (("arrivals", record.arrival), ("finished", record.finish)):
        columns[name] = _events(times, edges)
    columns["waiting"] = integral(edges, record.arrival, record.start) / span
    columns["running"] = integral(edges, record.start, record.last) / span
    columns["output_throughput"] = _tokens(simulation, edges) / span
    if record.logged:
        columns |= _engines(simulation, edges)
    return columns


def integral(
    edges: Times, begin: Times, end: Times, weight: NDArray[np.float64] | float = 1.0
) -> Times:
    """Integral, over each bin, of the sum of weights of the intervals that are open.

    Parameters
    ----------
    edges : array, shape (bins + 1,)
        Not decreasing [s].
    begin, end : array, shape (n,)
        Intervals [s].
    weight : array, shape (n,), or float

    Examples
    --------
    >>> integral(np.array([0.0, 1.0, 3.0]), np.array([0.5]), np.array([2.0])).tolist()
    [0.5, 1.0]
    """
    weight = np.broadcast_to(weight, begin.shape)
    made = np.diff(_since(edges, begin, weight) - _since(edges, end, weight))
    return np.maximum(made, 0.0)  # differences of large sums, to rounding


def _since(edges: Times, moments: Times, weight: NDArray[np.float64]) -> Times:
    """Sum of ``weight x time since moment`` over the moments that are past, at each edge."""
    order = np.argsort(moments, kind="stable")
    moments, weight = moments[order], weight[order]
    past = np.searchsorted(moments, edges)
    weights = np.concatenate(([0.0], np.cumsum(weight)))[past]
    return weights * edges - np.concatenate(([0.0], np.cumsum(weight * moments)))[past]


def _edges(simulation: Simulation, bins: int, width: float | None) -> Times:
    if not simulation.kept:
        raise UsageError("a time series needs the times of every request: keep_requests=True")
    span = simulation.record.makespan
    if width is None:
        if not 1 <= bins <= MOST_BINS:
            raise UsageError(f"{bins} bins; 1 to {MOST_BINS:,}")
        return np.linspace(0.0, span, bins + 1)
    if not span / MOST_BINS <= width < np.inf:
        raise UsageError(f"bins {width} s wide; at least {span / MOST_BINS:.3g} s")
    edges = width * np.arange(math.ceil(span / width) + 1.0)
    edges[-1] = max(edges[-1], span)
    return edges


def _events(times: Times, edges: Times) -> Times:
    """How many are in each bin, its end included, and its begin in the first."""
    reached = np.searchsorted(np.sort(times), edges, side="right")
    return np.diff(reached[1:], prepend=0).astype(np.float64)


def _tokens(simulation: Simulation, edges: Times) -> Times:
    """Output tokens of each bin."""
    record, output = simulation.record, simulation.requests.output
    several = output > 1
    begin, end = record.first[several], record.last[several]
    rate = (output[several] - 1) / (end - begin)
    return _events(record.first, edges) + integral(edges, begin, end, rate)


def _engines(simulation: Simulation, edges: Times) -> dict[str, Times]:
    """Columns from the log of steps."""
    log = simulation.record.log[: simulation.record.logged]
    row = dict(zip(LOG, log.T, strict=True))
    begin, end, span = row["begin"], row["end"], np.diff(edges)
    prefill = row["steps"] * row["prompt_tokens"] / (end - begin)
    columns = {
        "busy": integral(edges, begin, end) / span,
        "decodes": integral(edges, begin, end, row["decodes"]) / span,
        "kv_blocks": integral(edges, begin, end, row["blocks"]) / span,
        "prefill_throughput": integral(edges, begin, end, prefill) / span,
    }
    if row["steps"].sum() < simulation.record.steps.sum():
        # A replica's steps are logged in order: what follows its last one is not known.
        last = np.full(len(simulation.cluster.replicas), -np.inf)
        np.maximum.at(last, row["replica"].astype(np.int64), end)
        beyond = edges[1:] > last[last > -np.inf].min()
        for values in columns.values():
            values[beyond] = np.nan
    return columns
