"""What a simulation found: per-request times, their statistics, and what the engine did.

Percentiles of TTFT, TPOT, end-to-end latency and queue time are exact where the requests are kept,
else read from a histogram with bins 0.5 % wide; those of ITL always come from such a histogram,
each token counting once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.serving.requests import Counts, Times

# Bins of a histogram of times: 1 us to 12 days, each 0.5 % wide.
LOWEST = 1e-6
WIDTH = math.log(1.005)
BINS = 5541

METRICS: Final = ("ttft", "tpot", "e2el", "queue_time")
ITL = len(METRICS)  # row of the ITL histogram, behind those of the metrics
PERCENTILES: Final = (90, 95, 99)


@dataclass(frozen=True, slots=True)
class Slo:
    """Upper limits of one request's latencies [s]."""

    ttft: float = math.inf
    tpot: float = math.inf
    e2el: float = math.inf


@dataclass(slots=True)
class Record:
    """What a run leaves behind; filled by the twin and by the core.

    Attributes
    ----------
    arrival, start, first, finish : array, shape (n,)
        Times of arrival, first scheduling, first token and last token [s] (empty: not kept).
    preempted : array, shape (n,)
        Times each request lost its cache.
    histogram : array of int64, shape (5, bins)
        TTFT, TPOT, E2EL, queue time and ITL.
    sums : array, shape (4,)
        Of TTFT, TPOT, E2EL, queue time [s].
    makespan, busy : float
        End of the last step; time spent in steps [s].
    block_time, running_time : float
        Integrals of blocks in use and of running requests over time [s].
    steps, prompt_tokens, decode_tokens, preemptions, good, peak_blocks : int
        Steps; tokens computed by prompts (recomputed ones included) and by decodes; preemptions;
        requests that met their SLO; most blocks in use at once.
    """

    arrival: Times
    start: Times
    first: Times
    finish: Times
    preempted: Counts
    histogram: Counts = field(default_factory=lambda: np.zeros((ITL + 1, BINS), np.int64))
    sums: Times = field(default_factory=lambda: np.zeros(ITL))
    makespan: float = 0.0
    busy: float = 0.0
    block_time: float = 0.0
    running_time: float = 0.0
    steps: int = 0
    prompt_tokens: int = 0
    decode_tokens: int = 0
    preemptions: int = 0
    good: int = 0
    peak_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Simulation:
    """Result of `perfmodel.serving.simulate.simulate`.

    ``blocks`` and ``block_size`` describe the cache, ``counts`` are (requests, prompt tokens,
    output tokens, requests with more than one output token); ``kept`` says whether per-request
    arrays are there; ``compiled`` which implementation ran.
    """

    record: Record
    output: Counts
    counts: tuple[int, int, int, int]
    blocks: int
    block_size: int
    kept: bool
    compiled: bool

    @property
    def ttft(self) -> Times:
        """Time to first token of each request, queueing included [s]."""
        return self.record.first - self.record.arrival

    @property
    def e2el(self) -> Times:
        """End-to-end latency of each request [s]."""
        return self.record.finish - self.record.arrival

    @property
    def queue_time(self) -> Times:
        """Wait of each request before its first step [s]."""
        return self.record.start - self.record.arrival

    @property
    def tpot(self) -> Times:
        """Time per output token after the first of each request [s]; nan where there is none."""
        spent = self.record.finish - self.record.first
        made = np.full(len(spent), np.nan)
        return np.divide(spent, self.output - 1, out=made, where=self.output > 1)

    @property
    def kv_utilisation(self) -> float:
        """Blocks in use over blocks, averaged over time [1]."""
        return self.record.block_time / self.blocks / self.record.makespan

    @property
    def running(self) -> float:
        """Running requests, averaged over time [1]."""
        return self.record.running_time / self.record.makespan

    def statistics(self, name: str) -> dict[str, float]:
        """Mean, median and percentiles of ``ttft``, ``tpot``, ``e2el``, ``queue_time``, ``itl``.

        Returns
        -------
        dict
            ``mean``, ``median``, ``p90``, ``p95``, ``p99`` [s]; nan where nothing was observed.
        """
        names = ["mean", "median", *(f"p{p}" for p in PERCENTILES)]
        wanted = np.array([50, *PERCENTILES]) / 100
        if name == "itl":
            middles, counts = self._bins(ITL)
            total = int(counts.sum())
            mean = float(middles @ counts) / total if total else math.nan
        elif self.kept:
            values: Times = getattr(self, name)
            values = values[~np.isnan(values)]
            found = [math.nan] * len(names)
            if len(values):
                found = [float(values.mean()), *map(float, np.quantile(values, wanted))]
            return dict(zip(names, found, strict=True))
        else:
            middles, counts = self._bins(METRICS.index(name))
            total = int(counts.sum())
            mean = float(self.record.sums[METRICS.index(name)]) / total if total else math.nan
        return dict(zip(names, [mean, *_quantiles(middles, counts, wanted)], strict=True))

    def results(self) -> dict[str, Any]:
        """Aggregates by vLLM's names, times in milliseconds."""
        requests, prompts, outputs, _ = self.counts
        record, span = self.record, self.record.makespan
        columns: dict[str, Any] = {
            "requests": requests,
            "duration_s": span,
            "request_throughput": requests / span,
            "output_throughput": outputs / span,
            "total_throughput": (prompts + outputs) / span,
            "goodput": record.good / span,
        }
        for name in (*METRICS, "itl"):
            for statistic, value in self.statistics(name).items():
                columns[f"{statistic}_{name}_ms"] = value * 1e3
        return columns | {
            "running": self.running,
            "busy": record.busy / span,
            "kv_utilisation": self.kv_utilisation,
            "peak_kv_utilisation": record.peak_blocks / self.blocks,
            "preemptions": record.preemptions,
            "steps": record.steps,
        }

    def _bins(self, row: int) -> tuple[Times, Counts]:
        return LOWEST * np.exp((np.arange(BINS) + 0.5) * WIDTH), self.record.histogram[row]


def bin_of(time: float) -> int:
    """Bin of a time in a histogram.

    >>> bin_of(1e-9), bin_of(1e-6 * 1.005**10.5), bin_of(1e99) == BINS - 1
    (0, 10, True)
    """
    if time <= LOWEST:
        return 0
    return min(int(math.log(time / LOWEST) / WIDTH), BINS - 1)


def edges() -> NDArray[np.float64]:
    """Edges of a histogram's bins [s], shape (bins + 1,); the outer ones are 0 and infinity."""
    made = LOWEST * np.exp(np.arange(BINS + 1) * WIDTH)
    made[0], made[-1] = 0.0, np.inf
    return made


def _quantiles(middles: Times, counts: Counts, wanted: NDArray[np.float64]) -> list[float]:
    reached: list[int] = np.cumsum(counts).tolist()
    if not reached[-1]:
        return [math.nan] * len(wanted)
    # a share of the last count is never beyond it
    places = [bisect_left(reached, share * reached[-1]) for share in wanted.tolist()]
    return middles[places].tolist()


def shown(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results for JSON: nan becomes None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in results.items()
    }
