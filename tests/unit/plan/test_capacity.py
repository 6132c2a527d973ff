"""The capacity is the largest rate whose probe passed, next to one that did not."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.core.errors import UsageError
from perfmodel.plan.capacity import Check, Probe, find_capacity


def step(threshold, seen=None):
    """Probe that meets its limit up to a rate."""

    def probe(rate):
        if seen is not None:
            seen.append(rate)
        return Probe(rate, (Check("load", rate, threshold),))

    return probe


@given(
    threshold=st.floats(0.011, 9_000),
    guess=st.none() | st.floats(1e-3, 1e5),
    tolerance=st.sampled_from([0.3, 0.01, 1e-4]),
)
def test_a_step_is_found_within_the_tolerance(threshold, guess, tolerance):
    seen = []
    found = find_capacity(
        step(threshold, seen), low=0.01, high=1e4, guess=guess, tolerance=tolerance
    )
    assert found.converged
    assert found.rate <= threshold < found.beyond.rate <= found.rate * (1 + tolerance)
    assert found.best in found.probes
    assert found.best.met
    assert not found.beyond.met
    assert [probe.rate for probe in found.probes] == seen
    assert len(set(seen)) == len(seen)
    assert all(0.01 <= rate <= 1e4 for rate in seen)
    # one step per doubling of the range, then halvings of one doubling
    assert len(seen) <= math.log2(1e6) + 2 + math.log2(math.log(2) / math.log1p(tolerance)) + 1
    rates = [probe.rate for probe in found.curve]
    assert rates == sorted(rates)


@pytest.mark.parametrize("limit", [0.15, 0.2, 1.0, 5.0])
def test_an_m_d_1_queue_by_its_formula(limit):
    """Mean sojourn s + l s^2 / (2 (1 - l s)) (Pollaczek-Khinchine), solved for the rate l."""
    service = 0.1

    def probe(rate):
        load = rate * service
        sojourn = service + rate * service**2 / (2 * (1 - load)) if load < 1 else math.inf
        return Probe(rate, (Check("mean_e2el_s", sojourn, limit),))

    wait = limit - service
    exact = 2 * wait / (service * (service + 2 * wait))
    found = find_capacity(probe, low=1e-3, high=1e3, tolerance=1e-6)
    assert found.rate == pytest.approx(exact, rel=2e-6)
    assert found.rate <= exact


def test_no_rate_meets_the_limits_and_it_says_which():
    def probe(rate):
        return Probe(rate, (
            Check("p99_ttft_ms", 700 + rate, 500), Check("p99_tpot_ms", 10, 50),
            Check("attainment", 0.5, 0.99, at_least=True),
        ))  # fmt: skip

    found = find_capacity(probe, low=0.5, high=100)
    assert found.rate is None
    assert found.converged
    assert found.beyond.rate == min(probe.rate for probe in found.probes) == 0.5
    assert str(found) == (
        "no rate meets the limits: even at 0.5 requests/s attainment is 0.5, wanted at least 0.99; "
        "p99_ttft_ms is 700.5, wanted at most 500"
    )


def test_all_rates_meet_the_limits():
    found = find_capacity(step(1e9), low=0.5, high=100)
    assert (found.rate, found.beyond, found.converged) == (100, None, True)
    assert str(found) == "all rates up to 100 requests/s meet the limits"


def test_the_answer_names_the_limit_that_binds():
    found = find_capacity(step(8.0), low=1, high=64, guess=8, tolerance=0.5)
    assert [probe.rate for probe in found.probes] == [8, 16, pytest.approx(8 * 2**0.5)]
    assert str(found) == "8 requests/s; at 11.3137 load is 11.3137, wanted at most 8"


@pytest.mark.parametrize("seed", range(30))
def test_noise_never_gives_a_rate_that_was_not_seen_to_pass(seed):
    draw = random.Random(seed)

    def probe(rate):
        return Probe(rate, (Check("noisy", rate * math.exp(draw.gauss(0, 0.3)), 10),))

    found = find_capacity(probe, low=0.1, high=1000)
    assert found.converged
    assert found.best.met
    assert not found.beyond.met
    assert found.rate < found.beyond.rate <= found.rate * 1.01
    assert 3 < found.rate < 30


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("threshold", [0.002, 7.7, 999])
def test_probes_are_bounded(most, threshold):
    seen = []
    found = find_capacity(step(threshold, seen), low=0.001, high=1000, most=most)
    assert len(seen) == len(found.probes) == most
    assert not found.converged
    assert f"(stopped after {most} probes)" in str(found)
    assert found.best is None or found.best.rate <= threshold


def test_a_range_narrower_than_floats_can_split_ends():
    low = 1.0
    high = math.nextafter(low, 2)
    found = find_capacity(step(1.0), low=low, high=high, tolerance=1e-300)
    assert (found.rate, found.beyond.rate, found.converged) == (low, high, True)


@pytest.mark.parametrize(
    ("check", "met", "excess"),
    [
        (Check("a", 5, 5), True, 0),
        (Check("a", 6, 5), False, 0.2),
        (Check("a", 4, 5), True, -0.2),
        (Check("a", 0.9, 0.99, at_least=True), False, 1 / 11),
        (Check("a", 1.0, 0.99, at_least=True), True, -1 / 99),
        (Check("a", None, 5), False, math.inf),
        (Check("a", math.nan, 5), False, math.inf),
        (Check("a", math.nan, 5, at_least=True), False, math.inf),
        (Check("a", math.inf, 5), False, math.inf),
        (Check("a", 1, 0), False, math.inf),
    ],
)
def test_checks(check, met, excess):
    assert check.met is met
    assert check.excess == pytest.approx(excess)
    assert Probe(1.0, (Check("b", 1, 2), check)).met is met


def test_failed_limits_come_worst_first():
    probe = Probe(1.0, (Check("a", 6, 5), Check("b", 1, 2), Check("c", 9, 5), Check("d", None, 1)))
    assert [check.name for check in probe.failed] == ["d", "c", "a"]


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"low": 0}, "rates from 0 to 100"),
        ({"low": -1}, "above zero"),
        ({"low": 200}, "ascending"),
        ({"high": math.inf}, "finite"),
        ({"high": math.nan}, "finite"),
        ({"tolerance": 0}, "tolerance 0 must be above zero"),
        ({"tolerance": math.nan}, "tolerance nan"),
        ({"most": 0}, "most 0 must be at least 1"),
        ({"guess": math.nan}, "guess nan must be a rate"),
    ],
)
def test_bad_questions_are_refused(question, says):
    with pytest.raises(UsageError, match=says):
        find_capacity(step(5), **({"low": 1, "high": 100} | question))


def test_a_probe_without_limits_is_refused():
    with pytest.raises(UsageError, match="at least one limit"):
        find_capacity(lambda rate: Probe(rate, ()), low=1, high=2)
