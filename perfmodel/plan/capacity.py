"""`find_capacity`: the largest arrival rate at which every limit is met.

Latencies grow with the rate, so the limits are met up to some rate and not beyond: bracket it by
doubling or halving, then bisect its logarithm. What is probed, and how, is the caller's matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perfmodel.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Check:
    """One limit at one rate.

    Attributes
    ----------
    name : str
        Statistic and metric, e.g. ``p99_ttft_ms``.
    value : float or None
        What was found; None or nan where there is no such value, which meets no limit.
    limit : float
        Largest value allowed, or the smallest where ``at_least``.
    at_least : bool
        For attainments and throughputs.
    """

    name: str
    value: float | None
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value is on the right side of the limit, or on it."""
        if self.value is None or math.isnan(self.value):
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def excess(self) -> float:
        """Distance beyond the limit as a fraction of it, negative inside; inf without a value.

        >>> Check("p99_ttft_ms", 600.0, 500.0).excess
        0.2
        """
        if self.value is None or math.isnan(self.value):
            return math.inf
        beyond = self.limit - self.value if self.at_least else self.value - self.limit
        return beyond / abs(self.limit) if self.limit else math.copysign(math.inf, beyond)

    def __str__(self) -> str:
        wanted = f"{'at least' if self.at_least else 'at most'} {self.limit:.6g}"
        found = "unknown" if self.value is None else f"{self.value:.6g}"
        return f"{self.name} is {found}, wanted {wanted}"


@dataclass(frozen=True, slots=True)
class Probe:
    """All limits at one rate.

    Attributes
    ----------
    rate : float
        Arrival rate [1/s].
    checks : tuple of Check
    result : Any
        What the caller wants to keep of the run, e.g. an `Ensemble`.
    """

    rate: float
    checks: tuple[Check, ...]
    result: Any = None

    @property
    def met(self) -> bool:
        """Whether every limit is met."""
        return all(check.met for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """Limits that are not met, the worst first."""
        failed = (check for check in self.checks if not check.met)
        return tuple(sorted(failed, key=lambda check: -check.excess))


@dataclass(frozen=True, slots=True)
class Capacity:
    """Answer of `find_capacity`.

    Attributes
    ----------
    best : Probe or None
        The probe at the largest rate that met the limits; None where none did.
    beyond : Probe or None
        The probe at the smallest rate above it that did not; None where all did.
    probes : tuple of Probe
        All probes, in the order in which they were made.
    converged : bool
        Whether ``best`` and ``beyond`` are within the tolerance, or an end of the range answers.
    """

    best: Probe | None
    beyond: Probe | None
    probes: tuple[Probe, ...]
    converged: bool

    @property
    def rate(self) -> float | None:
        """Largest rate that met the limits [1/s]."""
        return self.best.rate if self.best else None

    @property
    def curve(self) -> tuple[Probe, ...]:
        """All probes by rate."""
        return tuple(sorted(self.probes, key=lambda probe: probe.rate))

    def __str__(self) -> str:
        """One line: the answer and the limit that binds."""
        failed = "; ".join(map(str, self.beyond.failed)) if self.beyond else ""
        if self.best is None:
            rate = f"{self.beyond.rate:.6g}" if self.beyond else "0"
            said = f"no rate meets the limits: even at {rate} requests/s {failed}"
        elif self.beyond is None:
            said = f"all rates up to {self.best.rate:.6g} requests/s meet the limits"
        else:
            said = f"{self.best.rate:.6g} requests/s; at {self.beyond.rate:.6g} {failed}"
        return said if self.converged else f"{said} (stopped after {len(self.probes)} probes)"


def find_capacity(
    probe: Callable[[float], Probe],
    *,
    low: float,
    high: float,
    guess: float | None = None,
    tolerance: float = 0.01,
    most: int = 64,
) -> Capacity:
    """Find the largest rate whose probe meets all limits.

    The rate that is returned was itself probed and met them; the next larger one probed did not,
    and lies within the tolerance. Where noise makes the outcome flip more than once, that still
    holds, and one of the flips is found.

    Parameters
    ----------
    probe : callable
        From a rate [1/s] to a `Probe`.
    low, high : float
        Rates to search between [1/s]; also the smallest and the largest that are probed.
    guess : float, optional
        Rate to probe first, e.g. from a closed form; default: the geometric mean of low and high.
    tolerance : float
        Largest gap between a rate that met the limits and one that did not, as a fraction.
    most : int
        Probes at most: what is known then is the answer, marked as not converged.

    Raises
    ------
    UsageError
        Rates, tolerance or count out of range, or a probe without limits.

    Examples
    --------
    >>> def probe(rate):  # M/M/1 at 10 requests/s: sojourn 1 / (10 - rate)
    ...     sojourn = 1 / (10 - rate) if rate < 10 else float("inf")
    ...     return Probe(rate, (Check("mean_e2el_s", sojourn, 0.5),))
    >>> found = find_capacity(probe, low=0.1, high=100, tolerance=0.001)
    >>> 7.99 < found.rate <= 8
    True
    """
    if not 0 < low < high < math.inf:
        raise UsageError(f"rates from {low} to {high}: must be finite, above zero and ascending")
    if not 0 < tolerance < math.inf:
        raise UsageError(f"tolerance {tolerance} must be above zero")
    if most < 1:
        raise UsageError(f"most {most} must be at least 1")
    rate = math.sqrt(low * high) if guess is None else min(max(guess, low), high)
    if math.isnan(rate):
        raise UsageError(f"guess {guess} must be a rate")
    probes: list[Probe] = []
    best: Probe | None = None
    beyond: Probe | None = None
    while len(probes) < most:
        made = probe(rate)
        if not made.checks:
            raise UsageError("a capacity needs at least one limit")
        probes.append(made)
        if made.met:
            best = made
        else:
            beyond = made
        following = _next(best, beyond, low, high, tolerance)
        if following is None:
            return Capacity(best, beyond, tuple(probes), True)
        rate = following
    return Capacity(best, beyond, tuple(probes), False)


def _next(
    best: Probe | None, beyond: Probe | None, low: float, high: float, tolerance: float
) -> float | None:
    """Rate to probe next; None where the answer is known."""
    if best is None and beyond is not None:
        return None if beyond.rate <= low else max(beyond.rate / 2, low)
    if best is not None and beyond is None:
        return None if best.rate >= high else min(best.rate * 2, high)
    if best is None or beyond is None or beyond.rate <= best.rate * (1 + tolerance):
        return None
    middle = math.sqrt(best.rate * beyond.rate)
    return middle if best.rate < middle < beyond.rate else None
