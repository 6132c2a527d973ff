"""Many runs of one function: over seeds until the means are known well enough, or over tasks.

`replicate` repeats a random experiment and puts Student-t confidence intervals on its metrics;
`sweep` runs a list of configurations and can go on where it was killed. Neither knows what is run:
a task is any value, the work a function from a task to a row. How it runs is the pool's matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from perfmodel.core.errors import UsageError, near
from perfmodel.plan.backends import Outcome, Pool, Progress, open_pool
from perfmodel.plan.journal import Journal, Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Interval:
    """Confidence interval of a mean.

    Attributes
    ----------
    mean : float or None
        Mean of the seeds that have the metric; None where none has it.
    half_width : float or None
        Half the width of the interval; None below two values.
    n : int
        Seeds that have the metric, which may be fewer than were run.
    converged : bool
        Whether the half-width is within the tolerance.
    """

    mean: float | None
    half_width: float | None
    n: int
    converged: bool


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Rows of independent seeds, and what they say together.

    Attributes
    ----------
    seeds, rows : tuple
        Seeds in order and the row of each.
    metrics : dict
        Name to `Interval`, of the metrics that were to converge.
    confidence : float
        Coverage of the intervals, e.g. 0.95.
    tolerance : float
        Half-width that was asked for, as a fraction of the mean.
    """

    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    metrics: dict[str, Interval]
    confidence: float
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether every metric that was to converge has."""
        return all(metric.converged for metric in self.metrics.values())

    def interval(self, name: str) -> Interval:
        """Interval of any numeric column of the rows."""
        return interval(
            _column(self.rows, name), confidence=self.confidence, tolerance=self.tolerance
        )


def interval(
    values: Iterable[float | None], *, confidence: float = 0.95, tolerance: float = 0.05
) -> Interval:
    """Student-t confidence interval of the mean of independent values.

    Half-width ``t[n-1, (1 + confidence)/2] s / sqrt(n)`` with the sample standard deviation s:
    exact for normal values, asymptotically right for others. None and nan are missing and lower n;
    an infinite value makes mean and half-width infinite.

    Parameters
    ----------
    values : iterable of float or None
        One per seed.
    confidence : float
        Coverage, between 0 and 1.
    tolerance : float
        Largest half-width that counts as converged, as a fraction of the mean.

    References
    ----------
    Student, The probable error of a mean, Biometrika 6 (1908) 1-25; A. M. Law, Simulation Modeling
    and Analysis, 5th ed. (2015), eq. 4.12 and section 9.4.

    Examples
    --------
    >>> interval([9.0, 10.0, 11.0, None])  # 4.303 x 1 / sqrt(3)
    Interval(mean=10.0, half_width=2.4841377117503303, n=3, converged=False)
    """
    known = [float(value) for value in values if value is not None and not math.isnan(value)]
    n = len(known)
    if n == 0:
        return Interval(None, None, 0, False)
    mean = math.fsum(known) / n if all(map(math.isfinite, known)) else sum(known)
    if n == 1:
        return Interval(mean, None, 1, False)
    if not math.isfinite(mean):
        return Interval(mean, math.inf, n, False)
    spread = math.hypot(*(value - mean for value in known)) / math.sqrt(n - 1)
    half_width = _quantile(n - 1, confidence) * spread / math.sqrt(n)
    return Interval(mean, half_width, n, half_width <= tolerance * abs(mean))


def replicate(
    function: Callable[[T], Row],
    task_of_seed: Callable[[int], T],
    *,
    metrics: Sequence[str],
    seed: int = 0,
    least: int = 3,
    most: int = 30,
    confidence: float = 0.95,
    tolerance: float = 0.05,
    pool: Pool | None = None,
    progress: Progress | None = None,
) -> Ensemble:
    """Run seed, seed + 1, … until the mean of every metric is known well enough.

    Stops at the first number of seeds, from ``least``, at which the confidence interval of each
    metric reaches no further than ``tolerance`` times the mean to either side, at the latest at
    ``most``. Seeds are judged in order, one by one, so that neither the pool nor its size changes
    the answer: those that were run beyond the stop are dropped.

    Parameters
    ----------
    function : callable
        From a task to a row: a dict of numbers, strings and None.
    task_of_seed : callable
        From a seed to the task.
    metrics : sequence of str
        Columns that must converge. One that no seed so far has (no request finished, say) does not
        hold up the others, and is reported as not converged with n = 0.
    seed : int
        First seed.
    least, most : int
        Seeds to run at least and at most.
    confidence : float
        Coverage of the intervals.
    tolerance : float
        Half-width to reach, as a fraction of the mean.
    pool : Pool, optional
        Where to run; default: here, one after the other.
    progress : callable, optional
        Called as ``progress(done, most)``.

    Raises
    ------
    UsageError
        A limit out of range, or a metric that no row has or that is text.

    Notes
    -----
    Stopping when an interval looks narrow finds narrow intervals a little too often. Of 95 %
    intervals of normal values (coefficients of variation 5 to 20 %, tolerances 2 to 10 %), 90 to
    95 % held the mean with ``least`` 3 and 93 to 95 % with 10. The rule in the references divides
    the tolerance by 1 + tolerance, which bounds the error relative to the true mean; here it is
    relative to the mean that is reported.

    References
    ----------
    A. M. Law, W. D. Kelton, Confidence intervals for steady-state simulations II: a survey of
    sequential procedures, Management Science 28 (1982) 550-562; A. M. Law, Simulation Modeling and
    Analysis, 5th ed. (2015), section 9.4.1, "obtaining a specified precision".

    Examples
    --------
    >>> made = replicate(lambda seed: {"x": 10 + (-1) ** seed}, lambda seed: seed, metrics=["x"],
    ...                  tolerance=0.1)
    >>> len(made.rows), made.metrics["x"].mean, round(made.metrics["x"].half_width, 3)
    (7, 10.142857142857142, 0.989)
    """
    _check(metrics, least, most, confidence, tolerance)
    rows: list[Row] = []
    found: dict[str, Interval] = {}
    with ExitStack() as stack:
        runner = pool or stack.enter_context(open_pool("serial"))
        made = _replications(runner, function, task_of_seed, seed, least, most)
        for row in stack.enter_context(closing(made)):
            rows.append(row)
            if progress is not None:
                progress(len(rows), most)
            if len(rows) < least:
                continue
            for name in metrics:
                column = _column(rows, name)
                found[name] = interval(column, confidence=confidence, tolerance=tolerance)
            if all(metric.converged or not metric.n for metric in found.values()):
                break
    seeds = tuple(range(seed, seed + len(rows)))
    return Ensemble(seeds, tuple(rows), found, confidence, tolerance)


def sweep(
    function: Callable[[T], Row],
    tasks: Sequence[T],
    *,
    pool: Pool | None = None,
    journal: Path | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Run a list of configurations; one row each, in their order.

    Parameters
    ----------
    function : callable
        From a task to a row: a dict of numbers, strings and None.
    tasks : sequence
        With a journal: dataclasses, dicts, sequences, arrays, numbers and strings, nested at will.
    pool : Pool, optional
        Where to run; default: here, one after the other.
    journal : Path, optional
        File that takes each row when it is there (see `Journal`). Tasks that it holds are not run
        again, so that the same call after a crash goes on where it stopped; equal tasks run once.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Raises
    ------
    UsageError
        With a journal: a task or function without a digest, a row that is not of plain values.
    perfmodel.core.errors.DataError
        A journal that cannot be read or written, or of another function or version.

    Examples
    --------
    >>> sweep(lambda rate: {"rate": rate, "gap": 1 / rate}, [1, 2, 4])[-1]
    {'rate': 4, 'gap': 0.25}
    """
    with ExitStack() as stack:
        runner = pool or stack.enter_context(open_pool("serial"))
        if journal is None:
            return runner.map(function, tasks, progress)
        book = stack.enter_context(Journal(journal, function))
        keys = [book.key(task) for task in tasks]
        todo = {key: task for key, task in zip(keys, tasks, strict=True) if key not in book.rows}
        names, left = list(todo), len(todo)
        outcomes = stack.enter_context(closing(runner.outcomes(function, list(todo.values()))))
        for index, outcome in outcomes:
            book.add(names[index], outcome.get())
            left -= 1
            if progress is not None:
                progress(len(tasks) - left, len(tasks))
        return [dict(book.rows[key]) for key in keys]


def _replications(
    pool: Pool, function: Callable[[T], Row], task_of_seed: Callable[[int], T],
    seed: int, least: int, most: int,
) -> Generator[Row, None, None]:  # fmt: skip
    """Rows in the order of the seeds, run in whole rounds of the workers.

    What a round has too much costs no time. Its rows may be dropped, and its exceptions with them:
    one is raised when its seed's turn comes, as if seeds beyond the stop had not been run.
    """
    first = 0
    while first < most:
        rounds = max(1, -(-(least - first) // pool.workers))
        last = min(first + rounds * pool.workers, most)
        tasks = [task_of_seed(seed + index) for index in range(first, last)]
        waiting: dict[int, Outcome[Row]] = {}
        turn = 0
        with closing(pool.outcomes(function, tasks)) as outcomes:
            for index, outcome in outcomes:
                waiting[index] = outcome
                while turn in waiting:
                    yield waiting.pop(turn).get()
                    turn += 1
        first = last


def _column(rows: Sequence[Row], name: str) -> list[float | None]:
    """One column; a row that lacks it has None."""
    if not any(name in row for row in rows):
        known = {key for row in rows for key in row}
        raise UsageError(f"no column {name!r} in the rows{near(name, known)}")
    column: list[float | None] = []
    for row in rows:
        value = row.get(name)
        if isinstance(value, str):
            raise UsageError(f"column {name!r} is text ({value!r}), not a number")
        column.append(value)
    return column


def _check(
    metrics: Sequence[str], least: int, most: int, confidence: float, tolerance: float
) -> None:
    if isinstance(metrics, str) or not metrics:
        raise UsageError("metrics must be a list of at least one column name")
    if least < 2:
        raise UsageError(f"least {least} must be at least 2: one value has no spread")
    if most < least:
        raise UsageError(f"most {most} must be at least {least}, the seeds to run at least")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence} must be between 0 and 1")
    if not tolerance > 0:
        raise UsageError(f"tolerance {tolerance} must be above zero")


def _quantile(freedom: int, confidence: float) -> float:
    """Two-sided quantile of Student's t (scipy.special alone: scipy.stats takes a second)."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))
