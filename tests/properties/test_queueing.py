"""Queues of any rate, service and size: order in load and servers, bounds, conservation laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.serving import queueing

LOADS = st.floats(0.01, 0.99)
SERVERS = st.integers(1, 60)
TIMES = st.floats(1e-4, 1e3)
SPREADS = st.floats(0.0, 20.0)
SLACK = 1 + 1e-9


@given(LOADS, st.floats(1.001, 3.0), SERVERS, TIMES)
def test_more_load_waits_longer(load, factor, servers, service):
    rate = load * servers / service
    for measure in (
        queueing.wait_probability,
        queueing.mmc_wait,
        lambda *queue: queueing.mmc_wait_percentile(*queue, 0.95),
    ):
        assert measure(rate, service, servers) <= measure(rate * factor, service, servers) * SLACK
        assert measure(rate, service, servers) <= measure(rate, service * factor, servers) * SLACK
    assert queueing.erlang_b(servers, load) <= queueing.erlang_b(servers, load * factor) * SLACK


@given(LOADS, SERVERS, TIMES)
def test_another_server_helps_and_a_faster_one_helps_more(load, servers, service):
    rate = load * servers / service
    here = queueing.mmc_wait(rate, service, servers)
    assert queueing.mmc_wait(rate, service, servers + 1) <= here
    # at equal utilisation: against as many single queues, and one server that does the work of all
    assert here <= queueing.mmc_wait(rate / servers, service, 1) * SLACK
    fast = queueing.mmc_wait(rate, service / servers, 1)
    assert here <= fast * SLACK
    assert fast + service / servers <= (here + service) * SLACK


@given(LOADS, SERVERS, TIMES, SPREADS, SPREADS)
def test_allen_and_cunneen_are_exact_where_theory_is(load, servers, service, arrivals, services):
    rate = load * servers / service
    exact = queueing.mmc_wait(rate, service, servers)
    assert queueing.ggc_wait(rate, service, servers, 1.0, 1.0) == pytest.approx(exact, rel=1e-12)
    single = queueing.ggc_wait(rate / servers, service, 1, 1.0, services)
    assert single == pytest.approx(queueing.mg1_wait(rate / servers, service, services), rel=1e-9)
    # elsewhere proportional to the variability
    guess = queueing.ggc_wait(rate, service, servers, arrivals, services)
    assert guess == pytest.approx(exact * (arrivals + services) / 2, rel=1e-12)


@given(LOADS, SERVERS, TIMES)
def test_little_holds_in_the_birth_death_chain(load, servers, service):
    """Requests in the system, by their stationary law, are rate times wait and service."""
    rate, states = load * servers / service, np.arange(1, servers + int(40 / (1 - load)) + 1)
    steps = rate * service / np.minimum(states, servers)
    weights = np.append(0.0, np.cumsum(np.log(steps)))
    law = np.exp(weights - weights.max())
    law /= law.sum()
    present = float(law[1:] @ states)
    time = queueing.mmc_wait(rate, service, servers) + service
    assert present == pytest.approx(rate * time, rel=1e-6)
    assert law[servers:].sum() == pytest.approx(
        queueing.wait_probability(rate, service, servers), rel=1e-6
    )


@given(st.integers(1, 80), SERVERS, st.floats(0.0, 1e3), TIMES)
def test_closed_loops_keep_within_their_bounds(users, servers, think, service):
    """Little's law, the asymptotic bounds, and more users in each other's way."""
    response = queueing.closed_response(users, think, service, servers)
    rate = users / (think + response)
    assert rate <= min(servers / service, users / (think + service)) * SLACK
    assert response >= max(service, users * service / servers - think) / SLACK
    assert response <= max(1.0, users / servers) * service * SLACK
    more = queueing.closed_response(users + 1, think, service, servers)
    assert more >= response / SLACK
    assert (users + 1) / (think + more) >= rate / SLACK
    assert queueing.closed_response(users, think, service, servers + 1) <= response * SLACK


@given(LOADS, SERVERS, TIMES, st.floats(0.0, 0.999), st.floats(0.0, 0.999))
def test_percentiles_rise(load, servers, service, one, other):
    rate = load * servers / service
    low, high = sorted((one, other))
    for percentile in (
        lambda quantile: queueing.mmc_wait_percentile(rate, service, servers, quantile),
        lambda quantile: queueing.mm1_sojourn_percentile(rate / servers, service, quantile),
    ):
        assert 0 <= percentile(low) <= percentile(high)
    # the wait of one server is shorter than wait and service together
    waits = queueing.mmc_wait_percentile(rate / servers, service, 1, high)
    assert waits <= queueing.mm1_sojourn_percentile(rate / servers, service, high)


@given(st.floats(1.0, 5.0), SERVERS, TIMES, SPREADS, SPREADS)
def test_saturated_queues_never_end(load, servers, service, arrivals, services):
    rate = load * servers / service * SLACK
    assert queueing.wait_probability(rate, service, servers) == pytest.approx(1.0)
    assert queueing.ggc_wait(rate, service, servers, arrivals, services) == float("inf")
    assert queueing.mg1_wait(rate, service, services) == float("inf")
    assert queueing.mmc_wait_percentile(rate, service, servers, 0.5) == float("inf")
