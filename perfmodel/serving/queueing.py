"""Queueing theory: waits, their percentiles, and closed loops, for one queue before equal servers.

A *server* is whatever serves one request at a time: an engine that runs prompt after prompt, a
place of its running batch, a replica behind a router that holds one queue for all. Requests are
served first come, first served. Waits are infinite where the utilisation reaches one.

The formulas are steps of one chain (`server_utilisation`, `erlang_c`, `allen_cunneen`,
`wait_percentile`); the other functions follow it for the queues that have names. Rates and times
may be numbers, arrays or SymPy symbols; servers and users are whole, and numbers or arrays.

What is not here: engine steps and the chunk budget (`perfmodel.serving.steady`), schedulers,
priorities and everything that changes over time (`perfmodel.serving.simulate`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.errors import UsageError
from perfmodel.core.formula import formula
from perfmodel.serving import steady

KLEINROCK = "Kleinrock, Queueing Systems, vol. 1, 1975"
ALLEN = "Allen, Probability, Statistics, and Queueing Theory, 2nd ed., 1990, ch. 5"


@formula("utilisation", f"{KLEINROCK}, section 2.1")
def server_utilisation(request_rate: Numeric, service_time: Numeric, servers: Numeric) -> Numeric:
    """Share of time a server is busy [1]; at or above one the queue has no steady state.

    Examples
    --------
    >>> server_utilisation(3.0, 0.5, 2)
    0.75
    """
    return request_rate * service_time / servers


@formula("wait_probability", f"{KLEINROCK}, section 3.5: Erlang's delay formula")
def erlang_c(blocking: Numeric, utilisation: Numeric) -> Numeric:
    """Share of requests that wait, by Erlang's loss probability at the same load [1].

    Examples
    --------
    >>> erlang_c(0.25, 0.5)
    0.4
    """
    load = xp.minimum(utilisation, 1.0)
    return blocking / (1 - load + load * blocking)


@formula("queue_time", f"{ALLEN}: approximation of Allen and Cunneen")
def allen_cunneen(
    wait_probability: Numeric, utilisation: Numeric, servers: Numeric, service_time: Numeric,
    arrival_cv2: Numeric, service_cv2: Numeric,
) -> Numeric:  # fmt: skip
    """Mean wait in a G/G/c queue [s], approximately: by two moments of gaps and service times.

    Exact for M/M/c and M/G/1; with one server and other arrivals it is Kingman's heavy-traffic
    formula (Math. Proc. Camb. Phil. Soc. 57, 1961). Elsewhere best at high utilisation and squared
    coefficients of variation up to about one.

    Examples
    --------
    >>> allen_cunneen(0.5, 0.5, 1, 0.2, 1.0, 0.0)  # M/D/1
    0.1
    """
    free = xp.maximum(1 - utilisation, 0.0)
    variability = (arrival_cv2 + service_cv2) / 2
    wait = wait_probability * service_time * variability / (servers * xp.maximum(free, 1e-12))
    return wait + service_time * xp.where(free > 0, 0.0, float("inf"))


@formula("queue_time", f"{KLEINROCK}, section 3.5; Gross and Harris, Queueing Theory, ch. 2")
def wait_percentile(
    wait_probability: Numeric, utilisation: Numeric, servers: Numeric, service_time: Numeric,
    tail: Numeric,
) -> Numeric:  # fmt: skip
    """Wait in an M/M/c queue that only the share ``tail`` of the requests exceeds [s].

    Those who wait do so for an exponential time of mean service / (servers * (1 - utilisation)).

    Examples
    --------
    >>> round(wait_percentile(0.5, 0.5, 1, 0.2, 0.01), 4)  # 0.4 ln(0.5 / 0.01)
    1.5648
    """
    free = xp.maximum(1 - utilisation, 0.0)
    wait_if_any = service_time / (servers * xp.maximum(free, 1e-12))
    wait = wait_if_any * xp.log1p(xp.maximum(wait_probability - tail, 0.0) / tail)
    return wait + service_time * xp.where(free > 0, 0.0, float("inf"))


def mg1_wait(request_rate: Numeric, service_time: Numeric, service_cv2: Numeric = 1.0) -> Numeric:
    """Mean wait in an M/G/1 queue [s]: the Pollaczek-Khinchine formula.

    Parameters
    ----------
    request_rate : float or array
        Poisson arrivals [1/s].
    service_time : float or array
        Mean [s].
    service_cv2 : float or array
        Squared coefficient of variation of the service times [1]: 0 is M/D/1, 1 is M/M/1.

    References
    ----------
    Kleinrock, Queueing Systems, vol. 1, 1975, section 5.6.

    Examples
    --------
    >>> mg1_wait(5.0, 0.1, service_cv2=0.0), mg1_wait(5.0, 0.1)
    (0.05, 0.1)
    """
    return steady.open_wait(request_rate, service_time) * (1 + service_cv2)


def erlang_b(servers: Numeric, offered_load: Numeric) -> Numeric:
    """Share of arrivals that find all servers busy if nobody may wait [1]: Erlang's loss formula.

    Parameters
    ----------
    servers : int or array
    offered_load : float or array
        Arrival rate times mean service time [1]; of service times only the mean matters.

    Raises
    ------
    UsageError
        ``servers`` is not a whole number of at least 1.

    References
    ----------
    Kleinrock, Queueing Systems, vol. 1, 1975, section 3.7.

    Examples
    --------
    >>> erlang_b(2, 1.0)  # (1 / 2) / (1 + 1 + 1 / 2)
    0.2
    """
    (blocking,) = _averages(
        "servers", servers, lambda busy: offered_load, lambda busy: busy,
        lambda busy: (xp.where(servers == busy, 1.0, 0.0),),
    )  # fmt: skip
    return blocking


def wait_probability(request_rate: Numeric, service_time: Numeric, servers: Numeric) -> Numeric:
    """Share of requests that wait in an M/M/c queue [1]: Erlang's delay formula (Erlang C).

    Parameters and errors as in `mmc_wait`.

    Examples
    --------
    >>> round(wait_probability(1.0, 1.0, 2), 12)
    0.333333333333
    """
    waits, _ = _waiting(request_rate, service_time, servers)
    return waits


def mmc_wait(request_rate: Numeric, service_time: Numeric, servers: Numeric) -> Numeric:
    """Mean wait in an M/M/c queue [s].

    Parameters
    ----------
    request_rate : float or array
        Poisson arrivals [1/s].
    service_time : float or array
        Mean of the exponential service times [s].
    servers : int or array

    Raises
    ------
    UsageError
        ``servers`` is not a whole number of at least 1.

    Examples
    --------
    >>> round(mmc_wait(1.0, 1.0, 2), 12)
    0.333333333333
    """
    return ggc_wait(request_rate, service_time, servers, 1.0, 1.0)


def ggc_wait(
    request_rate: Numeric, service_time: Numeric, servers: Numeric,
    arrival_cv2: Numeric = 1.0, service_cv2: Numeric = 1.0,
) -> Numeric:  # fmt: skip
    """Mean wait in a G/G/c queue [s]: an approximation, see `allen_cunneen`.

    Parameters
    ----------
    request_rate : float or array
        Arrivals [1/s].
    service_time : float or array
        Mean [s].
    servers : int or array
    arrival_cv2, service_cv2 : float or array
        Squared coefficients of variation of the gaps between arrivals and of service times [1].

    Raises
    ------
    UsageError
        ``servers`` is not a whole number of at least 1.

    Examples
    --------
    >>> round(ggc_wait(1.0, 1.0, 2, service_cv2=0.0), 12)  # half of the M/M/2 wait
    0.166666666667
    """
    waits, load = _waiting(request_rate, service_time, servers)
    return allen_cunneen(waits, load, servers, service_time, arrival_cv2, service_cv2)


def mmc_wait_percentile(
    request_rate: Numeric, service_time: Numeric, servers: Numeric, quantile: Numeric
) -> Numeric:
    """Percentile of the wait in an M/M/c queue [s]; zero where enough requests do not wait.

    Parameters
    ----------
    request_rate, service_time, servers
        As in `mmc_wait`.
    quantile : float or array
        Share of requests that wait no longer [1]: 0.99 for p99.

    Raises
    ------
    UsageError
        As `mmc_wait`; ``quantile`` is not in [0, 1).

    Examples
    --------
    >>> round(mmc_wait_percentile(1.0, 1.0, 2, 0.99), 4)  # ln(1/3 / 0.01)
    3.5066
    >>> mmc_wait_percentile(1.0, 1.0, 2, 0.5)
    0.0
    """
    waits, load = _waiting(request_rate, service_time, servers)
    return wait_percentile(waits, load, servers, service_time, _tail(quantile))


def mm1_sojourn_percentile(
    request_rate: Numeric, service_time: Numeric, quantile: Numeric
) -> Numeric:
    """Percentile of the time in an M/M/1 system, wait and service [s].

    That time is exponential, like the wait of an M/M/1 request that has to wait (Kleinrock,
    Queueing Systems, vol. 1, 1975, section 5.7).

    Parameters
    ----------
    request_rate, service_time
        As in `mg1_wait`.
    quantile : float or array
        Share of requests that are done no later [1]: 0.99 for p99.

    Raises
    ------
    UsageError
        ``quantile`` is not in [0, 1).

    Examples
    --------
    >>> round(mm1_sojourn_percentile(5.0, 0.1, 0.99), 4)  # ln(100) / (10 - 5)
    0.921
    """
    load = server_utilisation(request_rate, service_time, 1.0)
    return wait_percentile(1.0, load, 1.0, service_time, _tail(quantile))


def closed_response(
    users: Numeric, think_time: Numeric, service_time: Numeric, servers: Numeric = 1
) -> Numeric:
    """Mean wait and service in a closed loop [s]: M/M/c//N, the machine-repair model.

    Each user thinks, asks, and waits for the answer. The ``users`` then finish
    ``users / (think_time + response)`` requests per second (Little's law).

    Parameters
    ----------
    users : int or array
    think_time : float or array
        Mean between an answer and the next request [s]; of think times only the mean matters.
    service_time : float or array
        Mean of the exponential service times [s], positive.
    servers : int or array

    Raises
    ------
    UsageError
        ``users`` or ``servers`` is not a whole number of at least 1.

    References
    ----------
    Kleinrock, Queueing Systems, vol. 1, 1975, sections 3.8 and 3.10.

    Examples
    --------
    >>> round(closed_response(2, 1.0, 1.0), 12)  # 0, 1, 2 at the server in shares of 1 : 2 : 2
    1.5
    """
    _check_whole("servers", servers)
    present, busy = _averages(
        "users", users,
        lambda there: (users - there + 1) * service_time,
        lambda there: xp.minimum(there, servers) * think_time,
        lambda there: (there, xp.minimum(there, servers)),
    )  # fmt: skip
    return service_time * present / busy


def _waiting(
    request_rate: Numeric, service_time: Numeric, servers: Numeric
) -> tuple[Numeric, Numeric]:
    """Share of requests that wait in M/M/c, and utilisation."""
    blocking = erlang_b(servers, request_rate * service_time)
    load = server_utilisation(request_rate, service_time, servers)
    return erlang_c(blocking, load), load


def _averages(
    name: str,
    top: Numeric,
    up: Callable[[int], Numeric],
    down: Callable[[int], Numeric],
    values: Callable[[int], tuple[Numeric, ...]],
) -> list[Numeric]:
    """Averages of ``values(state)`` over a birth-death chain's states 0 to ``top``.

    ``up(state)`` is the rate into a state from the one below, ``down(state)`` the rate back, both
    in any unit of time. Adding a state at a time, its share follows from that of the last one:
    nothing overflows or cancels, however many there are (Erlang's recursion).
    """
    _check_whole(name, top)
    share: Numeric = 1.0
    means = list(values(0))
    for state in range(1, int(np.max(top)) + 1):
        there = state <= top
        gain = xp.where(there, up(state) * share, 0.0)
        share = gain / (gain + xp.where(there, down(state), 1.0))
        means = [
            mean + share * (value - mean) for mean, value in zip(means, values(state), strict=True)
        ]
    return means


def _check_whole(name: str, value: Numeric) -> None:
    numbers = np.asarray(value, dtype=np.float64)
    fine = (numbers >= 1) & (numbers == np.floor(numbers)) & np.isfinite(numbers)
    if not np.all(fine):
        raise UsageError(f"{name} {numbers[~fine][0]:g} must be a whole number of at least 1")


def _tail(quantile: Numeric) -> Numeric:
    numbers = np.asarray(quantile, dtype=np.float64)
    fine = (numbers >= 0) & (numbers < 1)
    if not np.all(fine):
        raise UsageError(
            f"quantile {numbers[~fine][0]:g} must be at least 0 and below 1: 0.99 for p99"
        )
    return 1 - quantile
