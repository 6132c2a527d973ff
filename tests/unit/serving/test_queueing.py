"""Closed forms of queues against definitions, tables, limits, and each other."""

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
from scipy import integrate, stats

from perfmodel.core.errors import UsageError
from perfmodel.serving import queueing, steady

INFINITY = float("inf")


# --- Erlang ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [1, 2, 7, 40])
@pytest.mark.parametrize("load", [Fraction(1, 100), Fraction(3, 2), Fraction(30)])
def test_loss_is_the_last_term_of_erlangs_sum(servers, load):
    terms = [load**k / math.factorial(k) for k in range(servers + 1)]
    exact = float(terms[-1] / sum(terms))
    assert queueing.erlang_b(servers, float(load)) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize(
    ("lines", "erlangs"), [(10, 4.461), (15, 8.108), (50, 37.90), (100, 84.06)]
)
def test_loss_as_in_the_tables(lines, erlangs):
    """Loads that lose 1 % of the calls, to the digits that traffic tables print."""
    assert queueing.erlang_b(lines, erlangs) == pytest.approx(0.01, rel=2e-3)


@pytest.mark.parametrize(("servers", "load"), [(1000, 950.0), (20_000, 19_900.0), (3000, 1.0)])
def test_loss_of_many_servers_neither_overflows_nor_cancels(servers, load):
    law = stats.poisson(load)
    expected = law.pmf(servers) / law.cdf(servers)
    assert queueing.erlang_b(servers, load) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_delay_probability_at_the_ends():
    for load in (0.0, 0.3, 0.999):
        assert queueing.wait_probability(load, 1.0, 1) == pytest.approx(load)
    # 2 a / (2 + a) / 2 with a = 1; then the textbook sum for five servers
    assert queueing.wait_probability(1.0, 1.0, 2) == pytest.approx(1 / 3)
    last = Fraction(4**5, math.factorial(5)) / (1 - Fraction(4, 5))
    whole = sum(Fraction(4**k, math.factorial(k)) for k in range(5)) + last
    assert queueing.wait_probability(4.0, 1.0, 5) == pytest.approx(float(last / whole))
    assert queueing.wait_probability(5.0, 1.0, 5) == queueing.wait_probability(50.0, 1.0, 5) == 1
    assert queueing.wait_probability(800.0, 1.0, 1000) < 1e-8


# --- waits ----------------------------------------------------------------------------------------


def test_pollaczek_khinchine():
    assert queueing.mg1_wait(5.0, 0.1, 0.0) == pytest.approx(0.05)
    assert queueing.mg1_wait(5.0, 0.1) == pytest.approx(0.1 * 0.5 / (1 - 0.5))
    # services of 1 and 3 in equal shares: rate E[S^2] / 2 / (1 - load)
    assert queueing.mg1_wait(0.4, 2.0, 0.25) == pytest.approx(0.4 * 5 / 2 / (1 - 0.8))
    assert queueing.mg1_wait(10.0, 0.1, 0.0) == queueing.mg1_wait(20.0, 0.1) == INFINITY


def test_one_formula_covers_its_cases():
    for cv2 in (0.0, 0.5, 1.0, 7.0):
        exact = queueing.mg1_wait(7.0, 0.1, cv2)
        assert queueing.ggc_wait(7.0, 0.1, 1, service_cv2=cv2) == pytest.approx(exact)
    assert queueing.mmc_wait(7.0, 0.1, 1) == pytest.approx(queueing.mg1_wait(7.0, 0.1))
    # Kingman: load / (1 - load) (C_a^2 + C_s^2) / 2 services
    kingman = queueing.ggc_wait(7.0, 0.1, 1, arrival_cv2=3.0, service_cv2=2.0)
    assert kingman == pytest.approx(0.7 / 0.3 * 2.5 * 0.1)
    # a metronome and equal services: nobody waits, until there is too much
    assert queueing.ggc_wait(9.9, 0.1, 1, 0.0, 0.0) == 0
    assert queueing.ggc_wait(10.1, 0.1, 1, 0.0, 0.0) == INFINITY


def test_more_servers_at_equal_load():
    loads = [queueing.mmc_wait(0.8 * servers, 1.0, servers) for servers in (1, 2, 5, 20, 500)]
    assert loads == sorted(loads, reverse=True)
    assert loads[0] == pytest.approx(4.0)
    assert loads[-1] < 1e-6
    # heavy traffic: one server as fast as all of them together
    assert queueing.mmc_wait(9.999, 1.0, 10) == pytest.approx(1 / (10 - 9.999), rel=2e-3)


@pytest.mark.parametrize(("rate", "servers"), [(0.6, 1), (3.2, 4), (28.0, 30)])
def test_percentiles_of_the_wait_average_to_its_mean(rate, servers):
    waits = queueing.wait_probability(rate, 1.0, servers)
    mean, _ = integrate.quad(
        lambda quantile: queueing.mmc_wait_percentile(rate, 1.0, servers, quantile), 1 - waits, 1
    )
    assert mean == pytest.approx(queueing.mmc_wait(rate, 1.0, servers), rel=1e-6)
    assert queueing.mmc_wait_percentile(rate, 1.0, servers, 1 - waits - 1e-9) == 0
    assert queueing.mmc_wait_percentile(rate, 1.0, servers, 1 - waits + 1e-9) > 0


def test_percentiles_of_the_time_in_the_system():
    mean, _ = integrate.quad(lambda q: queueing.mm1_sojourn_percentile(3.0, 0.25, q), 0, 1)
    assert mean == pytest.approx(queueing.mg1_wait(3.0, 0.25) + 0.25, rel=1e-6)
    median = queueing.mm1_sojourn_percentile(3.0, 0.25, 0.5)
    assert median == pytest.approx(math.log(2) / (4 - 3))
    assert queueing.mm1_sojourn_percentile(4.0, 0.25, 0.5) == INFINITY
    assert queueing.mmc_wait_percentile(8.0, 0.25, 2, 0.5) == INFINITY


# --- closed loops ---------------------------------------------------------------------------------


def repair(users, think, service, servers):
    """Mean response by solving the balance equations, all states at once."""
    flow = np.zeros((users + 1, users + 1))
    for there in range(users):
        flow[there, there + 1] = (users - there) / think
        flow[there + 1, there] = min(there + 1, servers) / service
    balance = np.vstack([flow.T - np.diag(flow.sum(axis=1)), np.ones(users + 1)])
    shares = np.linalg.lstsq(balance, np.append(np.zeros(users + 1), 1.0))[0]
    present = shares @ np.arange(users + 1)
    return present / ((users - present) / think)  # Little: requests there over requests per second


@pytest.mark.parametrize("users", [1, 2, 9, 30])
@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("think", [0.5, 6.0, 50.0])
def test_closed_loops_solve_the_balance_equations(users, servers, think):
    expected = repair(users, think, 1.5, servers)
    assert queueing.closed_response(users, think, 1.5, servers) == pytest.approx(expected)


def test_closed_loops_at_the_ends():
    assert queueing.closed_response(1, 3.0, 0.5) == pytest.approx(0.5)
    assert queueing.closed_response(7, 3.0, 0.5, 7) == pytest.approx(0.5)
    # nobody thinks: all are there, and the servers always busy
    assert queueing.closed_response(12, 0.0, 0.5, 4) == pytest.approx(12 * 0.5 / 4)
    # so many that the servers are always busy anyway
    assert queueing.closed_response(900, 30.0, 0.5, 2) == pytest.approx(900 * 0.5 / 2 - 30)
    # so many at such long thoughts that they are an open queue
    open_wait = queueing.mmc_wait(0.8, 1.0, 1)
    assert queueing.closed_response(4000, 5000.0, 1.0) == pytest.approx(open_wait + 1, rel=0.01)


def test_schweitzer_comes_near():
    """The steady state's prefill station, without engines' parts: high by a sixth at the knee."""
    users = np.array([1, 2, 5, 10, 20, 100])
    exact = queueing.closed_response(users, 10.0, 1.0)
    near = steady.closed_residence(users * 1.0, 1.0, 1.0, 100.0, 0.1)
    assert near[0] == pytest.approx(exact[0])
    assert near[-1] == pytest.approx(exact[-1], rel=2e-3)
    assert np.all(near >= exact / (1 + 1e-9))
    np.testing.assert_allclose(near, exact, rtol=0.16)


# --- readings, bad input --------------------------------------------------------------------------


CALLS = {
    "mg1_wait": lambda rate, time: queueing.mg1_wait(rate, time, 0.5),
    "wait_probability": lambda rate, time: queueing.wait_probability(rate, time, 3),
    "mmc_wait": lambda rate, time: queueing.mmc_wait(rate, time, 3),
    "ggc_wait": lambda rate, time: queueing.ggc_wait(rate, time, 3, 0.5, 2.0),
    "mmc_wait_percentile": lambda rate, time: queueing.mmc_wait_percentile(rate, time, 3, 0.9),
    "mm1_sojourn_percentile": lambda rate, time: queueing.mm1_sojourn_percentile(rate, time, 0.9),
    "closed_response": lambda rate, time: queueing.closed_response(5, 1 / rate, time, 3),
    "erlang_b": lambda rate, time: queueing.erlang_b(3, rate * time),
}


@pytest.mark.parametrize("name", CALLS)
def test_numbers_arrays_and_symbols_say_the_same(name):
    call = CALLS[name]
    rates, times = np.array([0.05, 0.4, 1.1, 8.0]), np.array([0.3, 0.7, 0.8, 0.9])
    arrays = np.asarray(call(rates, times))
    numbers = [call(rate, time) for rate, time in zip(rates.tolist(), times.tolist(), strict=True)]
    assert all(isinstance(number, float) for number in numbers)
    np.testing.assert_allclose(arrays, numbers, rtol=1e-15)
    rate, time = sympy.symbols("rate time", positive=True)
    expression = call(rate, time)
    for x, y, expected in zip(rates.tolist(), times.tolist(), numbers, strict=True):
        found = expression.subs({rate: x, time: y})
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_servers_and_users_may_be_arrays():
    servers = np.array([[1], [4], [2]])
    rates = np.array([0.5, 0.9])
    grid = queueing.mmc_wait(rates, 1.0, servers)
    assert grid.shape == (3, 2)
    for row, count in enumerate(servers[:, 0].tolist()):
        for column, rate in enumerate(rates.tolist()):
            assert grid[row, column] == pytest.approx(queueing.mmc_wait(rate, 1.0, count))
    users = np.arange(1, 9)
    responses = queueing.closed_response(users, 2.0, 1.0, 3)
    expected = [queueing.closed_response(each, 2.0, 1.0, 3) for each in users.tolist()]
    np.testing.assert_allclose(responses, expected, rtol=1e-14)
    still = queueing.closed_response(users, 0.0, 1.0)
    np.testing.assert_allclose(still, users)


@pytest.mark.parametrize("servers", [0, -1, 1.5, float("nan"), np.array([2, 0])])
def test_servers_are_whole(servers):
    for call in (queueing.mmc_wait, lambda a, b, c: queueing.closed_response(3, a, b, c)):
        with pytest.raises(UsageError, match=r"servers .* must be a whole number of at least 1"):
            call(0.5, 1.0, servers)


def test_users_are_whole():
    with pytest.raises(UsageError, match=r"users 2\.5 must be a whole number"):
        queueing.closed_response(2.5, 1.0, 1.0)


@pytest.mark.parametrize("quantile", [1.0, 99.0, -0.1, float("nan")])
def test_percentiles_are_shares(quantile):
    with pytest.raises(UsageError, match=r"must be at least 0 and below 1: 0\.99 for p99"):
        queueing.mmc_wait_percentile(0.5, 1.0, 1, quantile)
    with pytest.raises(UsageError, match="below 1"):
        queueing.mm1_sojourn_percentile(0.5, 1.0, quantile)
