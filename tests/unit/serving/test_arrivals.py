"""Arrival processes: mean rate and variation as their docstrings state, and the same bits again."""

import functools
import math

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving import arrivals

COUNT, RATE = 200_000, 7.0
BURSTS = {"on": 2.0, "off": 5.0, "quiet": 0.1}
ALL = {
    "poisson": arrivals.poisson,
    "gamma": functools.partial(arrivals.gamma, burstiness=0.3),
    "deterministic": arrivals.deterministic,
    "on_off": functools.partial(arrivals.on_off, **BURSTS),
    "diurnal": functools.partial(arrivals.diurnal, period=100.0, swing=0.8),
    "at_once": arrivals.at_once,
}
EACH = pytest.mark.parametrize("process", ALL.values(), ids=ALL)


def rng(seed=1):
    return np.random.default_rng(seed)


def cv2(times):
    gaps = np.diff(times)
    return float(np.var(gaps) / np.mean(gaps) ** 2)


def test_every_process_is_listed_and_tested():
    assert list(arrivals.PROCESSES) == list(ALL)


@EACH
def test_shape_order_and_start(process):
    times = process(1000, RATE, rng())
    assert times.dtype == np.float64
    assert times.shape == (1000,)
    assert times[0] >= 0
    assert np.all(np.diff(times) >= 0)
    assert process(0, RATE, rng()).shape == (0,)
    assert process(1, RATE, rng()).shape == (1,)


@EACH
@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.Philox])
def test_a_seed_gives_the_same_bits(process, bits):
    first, again, other = (
        process(5000, RATE, np.random.Generator(bits(seed))).tobytes() for seed in (3, 3, 4)
    )
    assert first == again
    assert (first != other) == (process not in (arrivals.deterministic, arrivals.at_once))


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("poisson", 0.01), ("gamma", 0.02), ("deterministic", 1e-12), ("on_off", 0.04),
     ("diurnal", 0.01)],
)  # fmt: skip
def test_mean_rate(name, tolerance):
    times = ALL[name](COUNT, RATE, rng())
    assert COUNT / times[-1] == pytest.approx(RATE, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("poisson", 1.0),
        ("gamma", 1 / 0.3),
        ("on_off", arrivals.on_off_cv2(RATE, **BURSTS)),
        ("diurnal", 2 / math.sqrt(1 - 0.8**2) - 1),
    ],
)
def test_variation(name, expected):
    assert cv2(ALL[name](COUNT, RATE, rng())) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("quiet", [0.0, 0.05, 0.5])
def test_variation_of_on_off_at_other_levels(quiet):
    times = arrivals.on_off(COUNT, 20.0, rng(2), on=1.0, off=3.0, quiet=quiet)
    expected = arrivals.on_off_cv2(20.0, 1.0, 3.0, quiet)
    assert cv2(times) == pytest.approx(expected, rel=0.05)


def test_burstiness_one_is_poisson():
    times = arrivals.gamma(COUNT, RATE, rng(), burstiness=1.0)
    gaps = np.sort(np.diff(times)) * RATE
    exact = 1 - np.exp(-gaps)
    assert np.max(np.abs(exact - np.linspace(0, 1, len(gaps)))) < 1.95 / math.sqrt(len(gaps))


def test_deterministic_is_a_metronome():
    assert cv2(arrivals.deterministic(1000, RATE, rng())) == pytest.approx(0, abs=1e-20)


def test_on_off_is_silent_in_quiet_periods():
    """With quiet = 0 long gaps appear about once per cycle, and nearly none without them."""
    times = arrivals.on_off(COUNT, 50.0, rng(), on=1.0, off=1.0)
    cycles = times[-1] / 2.0
    assert np.sum(np.diff(times) > 0.3) == pytest.approx(cycles * math.exp(-0.3), rel=0.1)


def test_on_off_starts_in_its_steady_state():
    """The mean number of requests in a short first window is rate x window."""
    first = [
        np.sum(arrivals.on_off(60, 10.0, rng(seed), on=1.0, off=4.0) < 1.0) for seed in range(3000)
    ]
    assert np.mean(first) == pytest.approx(10.0, rel=0.1)


def test_diurnal_follows_its_sine():
    times = arrivals.diurnal(COUNT, 100.0, rng(), period=1000.0, swing=0.8)
    seen, edges = np.histogram(times, bins=20, range=(0, 1000))
    middle = (edges[:-1] + edges[1:]) / 2
    expected = 100 * 50 * (1 + 0.8 * np.sin(2 * np.pi * middle / 1000))
    assert np.all(np.abs(seen - expected) < 5 * np.sqrt(expected) + 0.01 * expected)


def test_no_swing_is_poisson():
    assert cv2(arrivals.diurnal(COUNT, RATE, rng(), swing=0.0)) == pytest.approx(1, rel=0.02)


def test_at_once():
    assert arrivals.at_once(3, math.inf, rng()).tolist() == [0, 0, 0]


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["poisson", "gamma", "deterministic", "on_off", "diurnal"])
def test_rates_that_cannot_be(name, rate):
    with pytest.raises(UsageError, match=r"request rate per second is .* must be positive"):
        ALL[name](10, rate, rng())


@EACH
def test_negative_counts(process):
    with pytest.raises(UsageError, match="-1 requests"):
        process(-1, RATE, rng())


@pytest.mark.parametrize(
    ("process", "wrong", "said"),
    [
        (arrivals.gamma, {"burstiness": 0.0}, "burstiness is 0"),
        (arrivals.on_off, {"on": -1.0}, "on is -1"),
        (arrivals.on_off, {"off": math.inf}, "off is inf"),
        (arrivals.on_off, {"quiet": 1.5}, "quiet is 1.5"),
        (arrivals.on_off, {"on": 1e-9, "off": 1e-9}, "too short"),
        (arrivals.diurnal, {"period": 0.0}, "period is 0"),
        (arrivals.diurnal, {"swing": math.nan}, "swing is nan"),
    ],
)
def test_parameters_that_cannot_be(process, wrong, said):
    with pytest.raises(UsageError, match=said):
        process(10, RATE, rng(), **wrong)
