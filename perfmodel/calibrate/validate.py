"""How far predictions are from rows that were not fitted: cross-validation and its error figures.

Folds are of whole groups of rows (a layer's shape, a deployment), never of single rows: neighbours
in a grid would tell each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibrate.fit import Array, Belief, Fit, Model, fit
from perfmodel.calibrate.intervals import half_width
from perfmodel.calibrate.pool import hierarchical
from perfmodel.core.errors import DataError

FOLDS = 5


class Divisible(Model, Protocol):
    """A model that can be cut into parts by rows."""

    @property
    def groups(self) -> NDArray[Any]:
        """Rows of equal value stay together."""
        ...

    def subset(self, keep: NDArray[np.bool_]) -> Divisible:
        """The model over some of its rows."""
        ...


@dataclass(frozen=True, slots=True)
class Errors:
    """Error figures of predictions: absolute percentage errors, signed bias, coverage.

    ``bias`` is the median of predicted over measured, less one. ``coverage`` is the share of rows
    inside their 90 % interval (nan where none were given).
    """

    n: int
    median: float
    mean: float
    p90: float
    bias: float
    coverage: float

    def __str__(self) -> str:
        cover = "" if np.isnan(self.coverage) else f"  cover {self.coverage:5.1%}"
        return (
            f"n {self.n:5d}  median {self.median:5.1%}  MAPE {self.mean:5.1%}  "
            f"P90 {self.p90:5.1%}  bias {self.bias:+5.1%}{cover}"
        )


def errors(residuals: Array, widths: Array | None = None) -> Errors:
    """Figures of log(predicted / measured), with half-widths of the intervals if there are any.

    Examples
    --------
    >>> errors(np.log([1.1, 0.8, 1.0]))  # doctest: +ELLIPSIS
    Errors(n=3, median=0.1..., mean=0.1..., p90=0.18..., bias=0.0, coverage=nan)
    """
    if not residuals.size:
        raise DataError("no rows to compare")
    ratio = np.exp(residuals)
    away = np.abs(ratio - 1)
    inside = float("nan") if widths is None else float(np.mean(np.abs(residuals) <= widths))
    return Errors(
        len(residuals),
        float(np.median(away)),
        float(away.mean()),
        float(np.quantile(away, 0.9)),
        float(np.median(ratio)) - 1,
        inside,
    )


def folds(groups: NDArray[Any], count: int = FOLDS) -> NDArray[np.int64]:
    """The fold of every row; groups are dealt out in a shuffled order that is always the same."""
    _, index = np.unique(groups, axis=0, return_inverse=True)
    index = index.reshape(-1)
    kinds = int(index.max()) + 1
    if kinds < count:
        raise DataError(f"{kinds} groups of rows cannot make {count} folds")
    order = np.random.default_rng(0).permutation(kinds)
    return order[index] % count


def cross_validate(
    model: Divisible, count: int = FOLDS, refit: Callable[[Divisible], Fit] = fit
) -> tuple[Array, Array]:
    """Residuals of every row as predicted without its fold, and half-widths of their intervals."""
    fold = folds(model.groups, count)
    left, widths = np.empty(len(fold)), np.empty(len(fold))
    for number in range(count):
        held = fold == number
        found, rest = refit(model.subset(~held)), model.subset(held)
        left[held] = rest.residuals(found.logs)
        widths[held] = half_width(rest.jacobian(found.logs), found.covariance, found.tail)
    return left, widths


def leave_one_out(
    models: Mapping[str, Model], generation: Mapping[str, str]
) -> dict[str, tuple[Array, Array]]:
    """Residuals and half-widths of every GPU as predicted from the others alone."""
    found: dict[str, tuple[Array, Array]] = {}
    for gpu, model in models.items():
        others = {name: other for name, other in models.items() if name != gpu}
        pooled = hierarchical(others, generation)
        belief = within(pooled.inherited(generation[gpu]), model)
        tail = float(np.median([one.tail for one in pooled.fits.values()]))
        wide = half_width(model.jacobian(belief.mean), np.diag(belief.deviation**2), tail)
        found[gpu] = (model.residuals(belief.mean), wide)
    return found


def within(belief: Belief, model: Model) -> Belief:
    """A belief whose means obey the bounds of a model."""
    low = np.log([p.low for p in model.parameters])
    high = np.log([p.high for p in model.parameters])
    return Belief(np.clip(belief.mean, low, high), belief.deviation)
