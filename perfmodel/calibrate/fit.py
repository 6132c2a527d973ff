"""Fit the rates of a latency formula to measured times: robust least squares on log residuals.

Every rate is positive and of unknown scale, so its logarithm is what is fitted: bounds, beliefs and
covariances are of logarithms, and a deviation of 0.1 is ten per cent. A `Model` knows its rows; the
fit knows nothing about kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import DataError

Array = NDArray[np.float64]

# Log residual beyond which a row counts as an outlier: about what two runs of one kernel differ by.
SCALE = 0.05
# Median absolute deviation of a normal distribution, over its standard deviation.
_MAD = 0.6745
# Square of the width of a uniform distribution over its variance.
_UNIFORM = 12.0


@dataclass(frozen=True, slots=True)
class Parameter:
    """A rate to fit: unit, first guess, and the bounds physics sets."""

    name: str
    unit: str
    start: float
    low: float
    high: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Belief:
    """What is thought of the rates before the rows are seen: mean and deviation of each log."""

    mean: Array
    deviation: Array


class Model(Protocol):
    """A latency formula over given rows, as a function of the logs of its rates."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The rates, in the order of ``logs``."""
        ...

    def residuals(self, logs: Array) -> Array:
        """log(predicted / measured) of every row."""
        ...

    def jacobian(self, logs: Array) -> Array:
        """Derivative of the residuals by ``logs`` [rows, rates]."""
        ...


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted model.

    Attributes
    ----------
    parameters : tuple of Parameter
        What was fitted.
    logs, covariance : array
        Logs of the rates, and their covariance.
    n, evaluations : int
        Rows, and how often the formula was computed.
    spread : float
        Standard deviation of the log residuals, from their median absolute deviation.
    tail : float
        90 % quantile of the absolute log residuals.
    """

    parameters: tuple[Parameter, ...]
    logs: Array
    covariance: Array
    n: int
    spread: float
    tail: float
    cost: float
    evaluations: int

    @property
    def values(self) -> dict[str, float]:
        """The rates in their own units."""
        return dict(zip((p.name for p in self.parameters), np.exp(self.logs).tolist(), strict=True))

    @property
    def errors(self) -> dict[str, float]:
        """Standard errors of the logs, which are relative errors of the rates."""
        errors = np.sqrt(np.diag(self.covariance)).tolist()
        return dict(zip((p.name for p in self.parameters), errors, strict=True))

    def at_bounds(self) -> tuple[str, ...]:
        """Rates that ended on a bound: the rows do not determine them."""
        return tuple(
            p.name
            for p, log in zip(self.parameters, self.logs, strict=True)
            if min(log - math.log(p.low), math.log(p.high) - log) < 1e-3
        )


def fit(
    model: Model,
    belief: Belief | None = None,
    starts: int = 1,
    first: Array | None = None,
    most_evaluations: int = 60,
) -> Fit:
    """Fit a model's rates to its rows.

    Parameters
    ----------
    model : Model
        Formula and rows.
    belief : Belief, optional
        Pulls the rates towards its means; none leaves them free within their bounds.
    starts : int
        Starting points: the first guess, then a Sobol sequence over the bounds.
    first : array, optional
        Logs to start from instead of the parameters' own first guesses.

    Raises
    ------
    DataError
        Fewer rows than rates, or a residual that is no number.
    """
    # Half a second to import: only a fit needs it.
    from scipy import optimize

    parameters = model.parameters
    low, high = (np.log([getattr(p, side) for p in parameters]) for side in ("low", "high"))
    guess = np.log([p.start for p in parameters]) if first is None else first
    if belief is not None and first is None:
        guess = belief.mean
    prior = _Prior(belief, len(parameters))
    rows = len(model.residuals(np.clip(guess, low, high)))
    if rows < len(parameters):
        raise DataError(f"{rows} rows cannot determine {len(parameters)} rates")
    inside = 1e-9 * (high - low)

    def scaled(logs: Array) -> Array:
        return prior.residuals(_finite(model.residuals(logs)), logs)

    def slope(logs: Array) -> Array:
        return prior.jacobian(model.jacobian(logs))

    def search(start: Array) -> Any:
        return cast(Any, optimize).least_squares(
            scaled,
            np.clip(start, low + inside, high - inside),
            jac=slope,
            bounds=(low, high),
            loss="soft_l1",
            max_nfev=most_evaluations,
        )

    searches = [search(start) for start in starting_points(guess, low, high, starts)]
    best = min(searches, key=lambda one: one.cost)
    logs: Array = best.x
    left = model.residuals(logs)
    spread = max(float(np.median(np.abs(left - np.median(left)))) / _MAD, 1e-12)
    covariance = _covariance(best.jac, rows, spread, high - low)
    tail = float(np.quantile(np.abs(left), 0.9))
    evaluations = sum(int(one.nfev) for one in searches)
    return Fit(parameters, logs, covariance, rows, spread, tail, float(best.cost), evaluations)


def starting_points(guess: Array, low: Array, high: Array, count: int) -> list[Array]:
    """The guess, then points of a Sobol sequence that fill the bounds evenly."""
    if count <= 1:
        return [guess]
    return [guess, *(low + sobol(len(guess), count - 1) * (high - low))]


def sobol(size: int, count: int) -> Array:
    """The first ``count`` points of a Sobol sequence, centred in their cells [count, size]."""
    from scipy.stats import qmc  # a second to import

    power = max(1, (count - 1).bit_length())
    points: Array = qmc.Sobol(size, scramble=False).random_base2(power)
    return points[:count] + 0.5 / 2**power


def numeric_jacobian(function: Callable[[Array], Array], logs: Array, step: float = 1e-6) -> Array:
    """Forward differences of a vector function of logs [rows, rates]."""
    base = function(logs)
    moved = [(function(logs + step * unit) - base) / step for unit in np.eye(len(logs))]
    return np.stack(moved, axis=1)


def _covariance(jacobian: Array, rows: int, spread: float, span: Array) -> Array:
    """Inverse curvature of the rows' scatter, the belief, and a uniform prior over the bounds.

    The Jacobian comes weighted by the loss, its data rows scaled by `SCALE`; what they really
    scatter by is ``spread``. The bounds keep a rate that no row sees from looking certain.
    """
    data, belief = jacobian[:rows] * (SCALE / spread), jacobian[rows:]
    inverse: Any = np.linalg.inv(data.T @ data + belief.T @ belief + np.diag(_UNIFORM / span**2))
    return inverse


class _Prior:
    """Rows that hold the rates to a belief, under those of the data."""

    def __init__(self, belief: Belief | None, size: int) -> None:
        self.belief = belief
        self.rows = np.zeros((0, size)) if belief is None else np.diag(1 / belief.deviation)

    def residuals(self, data: Array, logs: Array) -> Array:
        if self.belief is None:
            return data / SCALE
        return np.concatenate([data / SCALE, (logs - self.belief.mean) / self.belief.deviation])

    def jacobian(self, data: Array) -> Array:
        return np.concatenate([data / SCALE, self.rows])


def _finite(residuals: Array) -> Array:
    if not np.isfinite(residuals).all():
        bad = int(np.flatnonzero(~np.isfinite(residuals))[0])
        raise DataError(f"row {bad}: the formula gives no finite time for this shape")
    return residuals
