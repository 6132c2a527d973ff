"""Length laws: how many tokens prompts and responses have.

Each law is a small frozen dataclass with ``sample(count, rng)`` (int64, at least 1 token) and its
exact ``mean``. Continuous laws are cut to their bounds and rounded up or down at random, so that
rounding leaves the mean as it is. `parse` reads the command line's spelling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perfmodel.core.errors import UsageError, near
from perfmodel.serving.requests import Counts
from perfmodel.serving.rows import MOST_TOKENS, check_file, csv_rows, tokens
from perfmodel.serving.spec import arguments, number, spec

_NORMAL = NormalDist()
FORMS = (
    "4000, uniform(800, 1000), uniform(0.8, 1.0)*8192, lognormal(median=600, sigma=1.2) "
    "(mean for median, p90 or p99 for sigma), pareto(alpha=1.5, low=50, high=32000), "
    "file.csv:column"
)


class LengthLaw(Protocol):
    """A distribution of token counts."""

    @property
    def mean(self) -> float:
        """Mean [tokens]."""
        ...

    def sample(self, count: int, rng: Generator) -> Counts:
        """``count`` independent lengths, shape (count,), each at least 1."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always ``tokens``."""

    tokens: int

    def __post_init__(self) -> None:
        _check_tokens("length", self.tokens)

    @property
    def mean(self) -> float:
        """Mean [tokens]."""
        return float(self.tokens)

    def sample(self, count: int, rng: Generator) -> Counts:
        """``count`` equal lengths; draws nothing from ``rng``."""
        return np.full(count, self.tokens, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every whole number from ``low`` to ``high``, both included, equally often."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _check_tokens("low", self.low)
        _check_tokens("high", self.high)
        if self.low > self.high:
            raise UsageError(f"uniform from {self.low} to {self.high}: low must not exceed high")

    @classmethod
    def of(cls, low: float, high: float, nominal: float) -> Uniform:
        """From shares of a nominal length.

        InferenceX draws from 0.8 to 1.0; vLLM's ``--random-range-ratio r`` is ``1 - r`` to
        ``1 + r``.

        >>> Uniform.of(0.8, 1.0, 1024)
        Uniform(low=819, high=1024)
        """
        if not 0 <= low <= high:
            raise UsageError(f"uniform from {low:g} to {high:g} of a length: 0 <= low <= high")
        # Nine digits: 1.1 x 10 is 11, not 11.000000000000002 rounded up.
        ends = (round(min(share * nominal, 2.0 * MOST_TOKENS), 9) for share in (low, high))
        return cls(max(math.floor(next(ends)), 1), math.ceil(next(ends)))

    @property
    def mean(self) -> float:
        """Mean [tokens]."""
        return (self.low + self.high) / 2

    def sample(self, count: int, rng: Generator) -> Counts:
        """``count`` lengths."""
        return rng.integers(self.low, self.high, count, dtype=np.int64, endpoint=True)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lognormal, cut to 1 … ``high`` tokens: what chat prompts and responses resemble.

    Parameters
    ----------
    median : float
        Before cutting [tokens].
    sigma : float
        Standard deviation of the logarithm.
    high : int
        Longest length, such as an engine's limit.
    """

    median: float
    sigma: float
    high: int = MOST_TOKENS

    def __post_init__(self) -> None:
        _check_tokens("high", self.high)
        if not 1e-3 <= self.median <= MOST_TOKENS:
            raise UsageError(f"a median of {self.median:g} tokens; from 0.001 to 1e8")
        if not 0 < self.sigma <= 10:
            raise UsageError(f"a lognormal sigma of {self.sigma:g}; more than 0, at most 10")

    @classmethod
    def of(
        cls, *, median: float | None = None, mean: float | None = None, sigma: float | None = None,
        p90: float | None = None, p99: float | None = None, high: int = MOST_TOKENS,
    ) -> LogNormal:  # fmt: skip
        """From any two of: median or mean, sigma or p90 or p99 (of the uncut law).

        Raises
        ------
        UsageError
            Not two, or two that no lognormal has (a p99 below the median).

        Examples
        --------
        >>> LogNormal.of(median=100, mean=100 * math.exp(0.5)).sigma
        1.0
        """
        given = {"median": median, "mean": mean, "sigma": sigma, "p90": p90, "p99": p99}
        known = {name: value for name, value in given.items() if value is not None}
        for name, value in known.items():
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"lognormal {name} is {value:g}; it must be positive and finite")
        spreads = sum(name in known for name in ("sigma", "p90", "p99"))
        if len(known) != 2 or spreads == 2:
            raise UsageError(
                "a lognormal takes two of: median or mean, and sigma or p90 or p99; given: "
                f"{', '.join(known) or 'none'}"
            )
        if sigma is None:
            upper = p90 or p99
            quantile = _NORMAL.inv_cdf(0.9 if p90 else 0.99)
            if upper is None:
                assert median
                assert mean
                square = 2 * math.log(mean / median)
                sigma = math.sqrt(square) if square > 0 else math.nan
            elif median:
                sigma = math.log(upper / median) / quantile
            else:
                assert mean
                # ln upper = ln mean - sigma²/2 + quantile sigma; the smaller root is the usual one.
                square = quantile**2 - 2 * math.log(upper / mean)
                sigma = quantile - math.sqrt(square) if square >= 0 else math.nan
            if not sigma > 0:
                said = ", ".join(f"{name}={value:g}" for name, value in known.items())
                raise UsageError(f"no lognormal has {said}")
        if median is None:
            assert mean
            median = mean * math.exp(-(sigma**2) / 2)
        return cls(median, sigma, high)

    @property
    def mean(self) -> float:
        """Mean after cutting [tokens]."""
        centre = math.log(self.median)
        low, high = ((math.log(cut) - centre) / self.sigma for cut in (1, self.high))
        whole = self.median * math.exp(self.sigma**2 / 2)
        inside = _NORMAL.cdf(high - self.sigma) - _NORMAL.cdf(low - self.sigma)
        return _NORMAL.cdf(low) + whole * inside + self.high * _NORMAL.cdf(-high)

    def sample(self, count: int, rng: Generator) -> Counts:
        """``count`` lengths."""
        values = self.median * np.exp(self.sigma * rng.standard_normal(count))
        return _whole(np.clip(values, 1, self.high), rng)


@dataclass(frozen=True, slots=True)
class Pareto:
    """Bounded Pareto: power-law tail ``length^-alpha`` from ``low`` to ``high`` tokens."""

    alpha: float
    low: int
    high: int

    def __post_init__(self) -> None:
        _check_tokens("low", self.low)
        _check_tokens("high", self.high)
        if not 1e-3 <= self.alpha <= 100:
            raise UsageError(f"a pareto alpha of {self.alpha:g}; from 0.001 to 100")
        if self.low >= self.high:
            raise UsageError(f"pareto from {self.low} to {self.high}: low must be less than high")

    @property
    def mean(self) -> float:
        """Mean [tokens]."""
        ratio = math.log(self.high / self.low)
        # Mean of low * exp(x), x exponential of rate alpha cut at `ratio`; expm1 is exact at
        # alpha = 1, where the textbook form is 0/0.
        slack = 1 - self.alpha
        gain = math.expm1(slack * ratio) / slack if slack else ratio
        return self.low * self.alpha * gain / -math.expm1(-self.alpha * ratio)

    def sample(self, count: int, rng: Generator) -> Counts:
        """``count`` lengths."""
        kept = -math.expm1(-self.alpha * math.log(self.high / self.low))
        values = self.low * np.exp(-np.log1p(-rng.random(count) * kept) / self.alpha)
        return _whole(np.clip(values, self.low, self.high), rng)


@dataclass(frozen=True, slots=True, eq=False)
class Empirical:
    """Lengths seen elsewhere, drawn with replacement.

    Parameters
    ----------
    values : array of int64, shape (n,)
    weights : array of float64, shape (n,), optional
        How often each value occurs, to any total; equally often if not given.
    """

    values: Counts
    weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if len(self.values) == 0:
            raise UsageError("an empirical length law needs at least one length")
        for value in (self.values.min(), self.values.max()):
            _check_tokens("an empirical length", int(value))
        weights = self.weights
        if weights is not None and not (
            len(weights) == len(self.values) and np.all(weights >= 0) and 0 < weights.sum() < 1e300
        ):
            raise UsageError("weights must be one per length, not negative, and not all 0")

    @classmethod
    def from_csv(cls, path: str | Path, column: str) -> Empirical:
        """From a column of a CSV file; lengths of 0 (failed requests) are left out.

        Raises
        ------
        DataError
            No such file or column, an entry that is no token count, no length above 0.
        """
        path = Path(path)
        check_file(path, None)
        found = (
            tokens(entry, f"{path}:{number}: column {column!r}")
            for number, (entry,) in csv_rows(path, (column,))
        )
        values = np.fromiter(found, dtype=np.int64)
        return cls(values[values > 0])

    @property
    def mean(self) -> float:
        """Mean [tokens]."""
        return float(np.average(self.values, weights=self.weights))

    def sample(self, count: int, rng: Generator) -> Counts:
        """``count`` lengths."""
        share = None if self.weights is None else self.weights / self.weights.sum()
        return rng.choice(self.values, count, p=share)


def parse(text: str) -> LengthLaw:
    """Length law as written on the command line; see `FORMS`.

    Raises
    ------
    UsageError
        Not one of the forms, or numbers a law cannot have.

    Examples
    --------
    >>> parse("uniform(0.8, 1.0)*8192")
    Uniform(low=6553, high=8192)
    >>> parse("lognormal(median=600, sigma=1.2)").mean > 600
    True
    """
    text = text.strip()
    constant = number(text)
    if constant is not None:
        return Fixed(_whole_number("length", constant))
    if "(" not in text:
        path, colon, column = text.rpartition(":")
        if colon and path and column:
            return Empirical.from_csv(path, column)
        raise UsageError(f"length {text!r} is none of: {FORMS}")
    call, star, nominal = (text, "", "") if text.endswith(")") else text.rpartition("*")
    name, given = spec(call if star else text)
    if name not in _LAWS:
        raise UsageError(f"no length law {name!r}{near(name, _LAWS)}; one of: {FORMS}")
    if not star:
        return _LAWS[name](**arguments(text, _LAWS[name], given))
    size = number(nominal)
    if name != "uniform" or size is None or not 1 <= size <= MOST_TOKENS:
        raise UsageError(f"length {text!r}: only uniform(low, high) takes * and a token count")
    return Uniform.of(**arguments(text, _uniform, given), nominal=size)


def _uniform(low: float, high: float) -> Uniform:
    if low <= high and not (low.is_integer() and high.is_integer()):
        raise UsageError(
            f"uniform from {low:g} to {high:g} tokens: whole numbers, or shares of a length as in "
            "uniform(0.8, 1.0)*8192"
        )
    return Uniform(_whole_number("low", low), _whole_number("high", high))


def _lognormal(
    *, median: float | None = None, mean: float | None = None, sigma: float | None = None,
    p90: float | None = None, p99: float | None = None, high: float = MOST_TOKENS,
) -> LogNormal:  # fmt: skip
    top = _whole_number("high", high)
    return LogNormal.of(median=median, mean=mean, sigma=sigma, p90=p90, p99=p99, high=top)


def _pareto(alpha: float, low: float, high: float) -> Pareto:
    return Pareto(alpha, _whole_number("low", low), _whole_number("high", high))


_LAWS: dict[str, Callable[..., LengthLaw]] = {
    "uniform": _uniform,
    "lognormal": _lognormal,
    "pareto": _pareto,
}


def _whole_number(name: str, value: float) -> int:
    if not float(value).is_integer():
        raise UsageError(f"{name} is {value:g}; a whole number of tokens")
    return int(value)


def _check_tokens(name: str, value: int) -> None:
    if not 1 <= value <= MOST_TOKENS:
        raise UsageError(f"{name} is {value} tokens; from 1 to 1e8")


def _whole(values: NDArray[np.float64], rng: Generator) -> Counts:
    """Round up or down at random, so that the mean stays."""
    return np.floor(values + rng.random(len(values))).astype(np.int64)
