"""Simulations many times over: seeds until the means are known, the largest rate within limits.

`Runs` is how often and where; the work itself is `perfmodel.scenario.simulation.results` of an
`Experiment`, which any process can carry out.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwdb.units import UnitError, parse
from perfmodel.core.errors import UsageError, near
from perfmodel.plan.backends import Pool, Progress, open_pool
from perfmodel.plan.capacity import Capacity, Check, Probe, find_capacity
from perfmodel.plan.ensemble import Ensemble, replicate
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.serving import Serving
from perfmodel.scenario.simulation import Experiment, results, slos
from perfmodel.scenario.traffic import DEFAULT_COUNT, Traffic
from perfmodel.serving.simulate.record import METRICS, Slo
from perfmodel.serving.simulate.statistics import STATISTICS

# Columns whose means over seeds must be known well enough.
CONVERGE: Final = ("mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "output_throughput")
# Seconds of arrivals that a rate is judged by: in a shorter run no queue has time to grow.
LEAST_SPAN: Final = 60.0
_MOST_REQUESTS: Final = 200_000  # where that would take more, they are enough
_RATES: Final = (1e-4, 1e6)  # requests per second to search between


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """How often to simulate, and where.

    Parameters
    ----------
    seeds : int
        Most seeds; from 5 on, stops when the means are known well enough.
    tolerance : float
        What that is: half of the confidence interval over the mean [1].
    confidence : float
        Coverage of the intervals [1].
    find_capacity : bool
        Find the largest request rate that meets the limits.
    slo : tuple of str
        Limits of a statistic: ``ttft=p99:500ms``, ``tpot=mean:30ms``; a bare number is in ms.
    attainment : float
        Share of the requests that must meet the ``goodput`` limits [1].
    backend : str
        auto, serial, loky, ray or dask.
    workers : int, optional
        Worker processes to start.
    address : str, optional
        A running Ray or Dask cluster.
    """

    seeds: int = 1
    tolerance: float = 0.05
    confidence: float = 0.95
    find_capacity: bool = False
    slo: tuple[str, ...] = ()
    attainment: float = 0.99
    backend: str = "auto"
    workers: int | None = None
    address: str | None = None

    def check(self) -> None:
        """Refuse numbers that cannot be.

        Raises
        ------
        UsageError
        """
        if self.seeds < 1:
            raise UsageError(f"--seeds {self.seeds} must be at least 1")
        if not 0 < self.attainment <= 1:
            raise UsageError(f"--attainment {self.attainment} must be above 0 and at most 1")
        for text in self.slo:
            parse_slo(text)

    def open(self) -> Pool:
        """Workers; this process alone where there is nothing to share out."""
        backend = "serial" if self.seeds == 1 and self.backend == "auto" else self.backend
        return open_pool(backend, workers=self.workers, address=self.address)


def parse_slo(text: str) -> tuple[str, float]:
    """Column of the results, and its largest value [ms].

    Raises
    ------
    UsageError
        Not METRIC=STATISTIC:TIME, an unknown metric or statistic, no time above zero.

    Examples
    --------
    >>> parse_slo("ttft=p99:0.5s"), parse_slo("tpot=mean:30")
    (('p99_ttft_ms', 500.0), ('mean_tpot_ms', 30.0))
    """
    match = re.fullmatch(r"\s*(\w+)\s*=\s*(\w+)\s*:\s*(.+?)\s*", text)
    if match is None:
        raise UsageError(f"--slo {text!r} is not METRIC=STATISTIC:TIME, like ttft=p99:500ms")
    metric, statistic, time = match.groups()
    metrics = (*METRICS, "itl")
    metric = {"ttfvt": "visible", "e2e": "e2el", "queue": "queue_time"}.get(metric, metric)
    statistic = {"p50": "median"}.get(statistic, statistic)
    for what, given, known in (("metric", metric, metrics), ("statistic", statistic, STATISTICS)):
        if given not in known:
            raise UsageError(
                f"--slo {text!r}: no {what} {given!r}{near(given, known)}; one of "
                f"{', '.join(known)}"
            )
    try:
        limit = float(time)
    except ValueError:
        try:
            limit = 1e3 * parse(re.sub(r"(?<=[\d.])(?=[a-z])", " ", time), "s")
        except UnitError as error:
            raise UsageError(f"--slo {text!r}: {error}") from None
    if not 0 < limit < math.inf:
        raise UsageError(f"--slo {text!r}: the limit must be above zero and finite")
    return f"{statistic}_{metric}_ms", limit


def repeat(
    experiment: Experiment, runs: Runs, pool: Pool, progress: Progress | None = None
) -> Ensemble:
    """The same experiment over seeds, from the experiment's own on.

    Raises
    ------
    UsageError
        Fewer than two seeds, or numbers that cannot be; else as the experiment.
    """
    runs.check()
    return replicate(
        results, experiment.of_seed, metrics=CONVERGE, seed=experiment.traffic.seed,
        least=min(5, runs.seeds), most=runs.seeds, confidence=runs.confidence,
        tolerance=runs.tolerance, pool=pool, progress=progress,
    )  # fmt: skip


def variants(experiment: Experiment, **axes: Sequence[Any]) -> list[Experiment]:
    """All combinations of some fields' values, the last axis fastest.

    `perfmodel.plan.ensemble.sweep` runs them, on any pool, and goes on after a crash.

    Parameters
    ----------
    experiment : Experiment
        What is the same in all.
    **axes : sequence
        Values of a field of `Experiment`, `Scenario`, `Traffic` or `Serving`.

    Raises
    ------
    UsageError
        No such field.

    Examples
    --------
    >>> from perfmodel.scenario.scenario import Scenario
    >>> base = Experiment(scenario=Scenario(model="gpt2", gpu="l4", request_rate=1.0))
    >>> made = variants(base, request_rate=[1.0, 2.0], scheduler=["vllm-v1", "orca"])
    >>> [(each.scenario.request_rate, each.serving.scheduler) for each in made][1:3]
    [(1.0, 'orca'), (2.0, 'vllm-v1')]
    """
    parts = {"traffic": Traffic, "serving": Serving, "scenario": Scenario}
    known = (*Experiment.__dataclass_fields__, *(n for k in parts.values() for n in
             k.__dataclass_fields__))  # fmt: skip
    made = [experiment]
    for name, values in axes.items():
        if name not in known:
            raise UsageError(f"an experiment has no {name!r}{near(name, known)}")
        part = next((p for p, kind in parts.items() if name in kind.__dataclass_fields__), None)
        made = [_with(each, part, name, value) for each in made for value in values]
    return made


def _with(experiment: Experiment, part: str | None, name: str, value: Any) -> Experiment:
    if part is None:
        return dataclasses.replace(experiment, **{name: value})
    inner = dataclasses.replace(getattr(experiment, part), **{name: value})
    return dataclasses.replace(experiment, **{part: inner})


def checks(row: dict[str, Any], runs: Runs, limited: bool) -> tuple[Check, ...]:
    """Whether a row of results meets the limits; ``limited``: requests have limits of their own."""
    found = [Check(name, row.get(name), limit) for name, limit in map(parse_slo, runs.slo)]
    if limited:
        found.append(Check("attainment", row.get("attainment"), runs.attainment, at_least=True))
    return tuple(found)


def capacity(
    experiment: Experiment, runs: Runs, pool: Pool, progress: Progress | None = None
) -> Capacity:
    """The largest request rate that meets the limits; each rate is judged by all seeds' means.

    Raises
    ------
    UsageError
        No limits, a trace with its own times; else as the experiment.
    """
    runs.check()
    limited = any(limits != Slo() for limits in slos(experiment))
    if not (runs.slo or limited):
        raise UsageError("--find-capacity needs limits: --slo ttft=p99:500ms, or --goodput")
    made = 0

    def probe(rate: float) -> Probe:
        nonlocal made
        made += 1
        if progress is not None:
            progress(made, 0)
        tasks = [at_rate(experiment, rate).of_seed(experiment.traffic.seed + i)
                 for i in range(runs.seeds)]  # fmt: skip
        row = _mean(pool.map(results, tasks))
        return Probe(rate, checks(row, runs, limited), row)

    low, high = _RATES
    return find_capacity(probe, low=low, high=high, guess=_guess(experiment), tolerance=0.02)


def at_rate(experiment: Experiment, rate: float) -> Experiment:
    """The experiment as an open loop of a rate, long enough to judge it."""
    enough = min(math.ceil(rate * LEAST_SPAN), _MOST_REQUESTS)
    count = max(experiment.traffic.num_requests or DEFAULT_COUNT, enough)
    if experiment.traffic.trace is not None:
        return experiment.at_rate(rate)
    traffic = dataclasses.replace(experiment.traffic, num_requests=count)
    return dataclasses.replace(experiment.at_rate(rate), traffic=traffic)


def _guess(experiment: Experiment) -> float:
    """Throughput of a closed loop of many users: the rate at which all is busy."""
    users = 256 if experiment.scenario.max_concurrency is None else int(
        float(experiment.scenario.max_concurrency)
    )  # fmt: skip
    scenario = dataclasses.replace(experiment.scenario, request_rate=None, max_concurrency=users)
    few = dataclasses.replace(experiment.traffic, num_requests=4 * users)
    traffic = few if experiment.traffic.trace is None else experiment.traffic
    busy = dataclasses.replace(experiment, scenario=scenario, traffic=traffic)
    return min(max(float(results(busy)["request_throughput"]) / 2, _RATES[0]), _RATES[1])


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the numeric columns; a column that any row lacks is left out."""
    return {
        name: sum(row[name] for row in rows) / len(rows)
        for name, value in rows[0].items()
        if isinstance(value, (int, float)) and all(name in row for row in rows)
    }
