"""The simulator against queueing theory, and against Ciw: where both must be right, they agree.

With simple step times an engine is a textbook queue. One request at a time whose prompt costs its
tokens is M/G/1. Steps of constant length, one place per server and one step per output token are
M/M/c, with service that starts and ends on step boundaries. Chunked prompts beside endless decodes
are a closed loop in which decoding is thinking.

Simulated averages get 99.9 % confidence intervals by batch means. Each comparison also asserts its
own power: the interval is narrow and excludes the same formula with service times some percent off.
The plain twin serves fewer requests than the core, so its intervals are wider.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from perfmodel.serving import queueing
from perfmodel.serving.simulate import POLICIES, Engine, Simulation, Surface, has_core, replay
from tests.unit.serving.simulation import poisson, requests
from tests.unit.serving.simulation import surface as real_surface

CORE = pytest.mark.skipif(not has_core(), reason="numba is not installed")
BOTH = pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=CORE)])
TOKEN = 1e-3  # seconds of a prompt token, where prompts are the service


# --- engines that are queues ----------------------------------------------------------------------


def table(longest: int, per_step: float = 0.0, per_token: float = 0.0, places: int = 1) -> Surface:
    """Step time ``per_step + per_token * tokens``, for a whole prompt beside all decodes."""
    zeros, rows = np.zeros, longest + places
    return Surface(
        overhead=per_step, rows=per_token * np.arange(rows + 1.0), sequences=zeros(rows + 1),
        decode=zeros(longest + 2), linear=True,
        decode_launch=0.0, prefill_launch=0.0,
        work=zeros((0, longest + 1)), reads=zeros((0, longest + 1)), writes=zeros(0),
        planes=zeros((0, 2, 4)),
    )  # fmt: skip


def engine(policy: str, budget: int, places: int, longest: int) -> Engine:
    """No request ever lacks cache."""
    return Engine(
        policy=POLICIES[policy], budget=budget, max_num_seqs=places, block_size=1024,
        blocks=places * (longest // 1024 + 2),
    )  # fmt: skip


def one_server(
    arrival: np.ndarray, tokens: np.ndarray, compiled: bool, **columns: Any
) -> Simulation:
    """Requests whose service is their prompt, one at a time; service times ``TOKEN * tokens``."""
    longest = int(tokens.max()) + 1
    return replay(
        table(longest, per_token=TOKEN), engine("orca", longest, 1, longest),
        dataclasses.replace(requests(arrival, tokens, 1), **columns), compiled=compiled,
    )  # fmt: skip


def servers_by_place(
    arrival: np.ndarray, steps: np.ndarray, places: int, step: float, compiled: bool,
    **columns: Any,
) -> Simulation:  # fmt: skip
    """Requests whose service is a number of steps, as many at a time as there are places."""
    longest = int(steps.max()) + 1
    return replay(
        table(longest, per_step=step, places=places), engine("orca", places, places, longest),
        dataclasses.replace(requests(arrival, 1, steps), **columns), compiled=compiled,
    )  # fmt: skip


# --- what simulations and theory say --------------------------------------------------------------


def interval(values: np.ndarray, batches: int = 20) -> tuple[float, float]:
    """Mean and half-width of its 99.9 % interval by batch means, the first 5 % left out."""
    kept = values[len(values) // 20 :]
    means = kept[: len(kept) // batches * batches].reshape(batches, -1).mean(axis=1)
    quantile = float(stats.t.ppf(0.9995, batches - 1))
    return float(means.mean()), quantile * float(means.std(ddof=1)) / math.sqrt(batches)


def check_mean(values: np.ndarray, theory: Callable[[float], float], compiled: bool) -> None:
    """``theory(factor)`` is the mean with service times multiplied by the factor."""
    most, off = (0.1, 0.07) if compiled else (0.15, 0.1)
    mean, half = interval(values)
    assert half < most * mean, "the test has no power"
    assert abs(mean - theory(1.0)) < half
    for wrong in (1 - off, 1 + off):
        assert abs(mean - theory(wrong)) > half


def check_percentile(values: np.ndarray, quantile: float, limit: float, compiled: bool) -> None:
    """The share of values beyond the limit is right, and the limit to 10 % (twin: 15 %)."""
    beyond, half = interval(values > limit)
    assert abs(beyond - (1 - quantile)) < half
    spread = np.ptp(np.quantile(values, [quantile - half, quantile + half])) / 2
    assert spread < (0.1 if compiled else 0.15) * limit, "the test has no power"


Law = np.ndarray  # probabilities of 0, 1, 2 ... tokens


def geometric(mean: float, reach: int) -> Law:
    tokens = np.arange(reach)
    return np.where(tokens > 0, (1 - 1 / mean) ** (tokens - 1.0) / mean, 0.0)


def hyperexponential(mean: float, cv2: float, reach: int) -> Law:
    """Two geometric laws that share the load equally (balanced means)."""
    often = (1 + math.sqrt((cv2 - 1) / (cv2 + 1))) / 2
    short, long = (geometric(mean / (2 * share), reach) for share in (often, 1 - often))
    return often * short + (1 - often) * long


def erlang(mean: float, stages: int, reach: int) -> Law:
    return stats.gamma.pdf(np.arange(reach), stages, scale=mean / stages)


LAWS: dict[str, Law] = {
    "M/D/1": np.eye(1, 101, 100)[0],
    "M/M/1": geometric(100, 4000),
    "M/E2/1": erlang(100, 2, 4000),
    "M/H2/1": hyperexponential(100, 2.0, 12000),
}
LAWS = {name: law / law.sum() for name, law in LAWS.items()}


def moments(law: Law) -> tuple[float, float]:
    """Mean and squared coefficient of variation of a law."""
    tokens = np.arange(len(law))
    mean = float(law @ tokens)
    return mean, float(law @ tokens**2) / mean**2 - 1


def draw(law: Law, count: int, rng: np.random.Generator) -> np.ndarray:
    return np.searchsorted(np.cumsum(law), rng.random(count) * (1 - 1e-12))


def mg1_percentile(law: Law, load: float, quantile: float) -> float:
    """Percentile of the M/G/1 wait [tokens], to about a token.

    The wait is the sum of a geometric number of residual services (Kleinrock, Queueing Systems,
    vol. 1, section 5.7); residuals are put on whole tokens, their mean kept.
    """
    size = 1 << 17
    above = 1 - np.cumsum(law)
    residual = (above + np.append(0.0, above[:-1])) / 2
    transform = (1 - load) / (1 - load * np.fft.rfft(residual / residual.sum(), size))
    return float(np.searchsorted(np.cumsum(np.fft.irfft(transform, size)), quantile))


def stepped_wait(rate: float, mean_steps: float, places: int, step: float) -> float:
    """Exact mean wait in M/M/c if service takes whole steps, geometric in number [s].

    Requests at the start of a step are a Markov chain: some finish (binomial), some arrive
    (Poisson), and an empty engine starts a step with the next arrival. Those beyond the places wait
    through a step, arrivals for half of one on average; the rest is Little's law.
    """
    most = places + int(40 / (1 - rate * mean_steps * step / places))
    arriving = stats.poisson.pmf(np.arange(most + 1), rate * step)
    chain = np.zeros((most + 1, most + 1))
    for there in range(1, most + 1):
        serving = min(there, places)
        staying = stats.binom.pmf(np.arange(serving + 1), serving, 1 - 1 / mean_steps)
        row = chain[there, there - serving :]
        row[:] = np.convolve(staying, arriving)[: len(row)]
    idle = chain[:, 0].copy()
    chain[:, 1] += idle
    chain = chain[1:, 1:]
    chain /= chain.sum(axis=1, keepdims=True)
    balance = np.vstack([chain.T - np.eye(most), np.ones(most)])
    shares = np.linalg.lstsq(balance, np.append(np.zeros(most), 1.0))[0]
    queued = shares @ np.maximum(np.arange(1, most + 1) - places, 0)
    cycle = step + shares @ idle[1:] / rate
    return float(step * queued + rate * step**2 / 2) / cycle / rate


# --- one server -----------------------------------------------------------------------------------


@BOTH
def test_one_prompt_a_step_is_m_d_1(compiled):
    """A prompt of the budget's size is a step of its own, though 256 places are free."""
    real, count, load = real_surface(), 400_000 if compiled else 20_000, 0.7
    service = real.time([], [(512, 0)])
    rate = load / service
    asked = poisson(rate, count, 512, 1, seed=3)
    # A prompt that meets an idle engine starts at once and takes the whole step.
    made = replay(real, engine("vllm-v1", 512, 256, 512), asked, compiled=compiled)
    check_mean(
        made.queue_time, lambda factor: queueing.mg1_wait(rate, service * factor, 0.0), compiled
    )
    for quantile in (0.9, 0.99) if compiled else (0.9,):
        limit = mg1_percentile(np.eye(1, 1001, 1000)[0], load, quantile) * service / 1000
        check_percentile(made.queue_time, quantile, limit, compiled)


@pytest.mark.parametrize(
    ("name", "compiled"),
    [("M/M/1", False), ("M/E2/1", False),
     *(pytest.param(name, True, marks=CORE) for name in LAWS)],
)  # fmt: skip
def test_prompts_one_at_a_time_are_m_g_1(name, compiled):
    load, count = (0.7, 1_000_000) if compiled else (0.5, 25_000)
    law, rng = LAWS[name], np.random.default_rng(11)
    tokens, cv2 = moments(law)
    rate, service = load / (tokens * TOKEN), tokens * TOKEN
    arrival = rng.exponential(1 / rate, count).cumsum()
    made = one_server(arrival, draw(law, count, rng), compiled)
    check_mean(
        made.queue_time, lambda factor: queueing.mg1_wait(rate, service * factor, cv2), compiled
    )
    for quantile in (0.9, 0.99) if compiled else (0.9,):
        limit = mg1_percentile(law, load, quantile) * TOKEN
        check_percentile(made.queue_time, quantile, limit, compiled)
        if name == "M/M/1":
            exact = queueing.mmc_wait_percentile(rate, service, 1, quantile)
            assert limit == pytest.approx(exact, rel=0.01)
            sojourn = queueing.mm1_sojourn_percentile(rate, service, quantile)
            check_percentile(made.e2el, quantile, sojourn, compiled)


@BOTH
def test_priorities_are_served_as_cobham_says(compiled):
    """Two classes, the urgent one in front of the queue but never in the middle of a service.

    Cobham, Operations Research 2, 1954; Kleinrock, Queueing Systems, vol. 2, 1976, section 3.6.
    """
    count, load, urgent = (1_000_000, 0.7, 0.4) if compiled else (20_000, 0.6, 0.4)
    law, rng = LAWS["M/E2/1"], np.random.default_rng(12)
    tokens, cv2 = moments(law)
    rate, service = load / (tokens * TOKEN), tokens * TOKEN
    arrival, later = rng.exponential(1 / rate, count).cumsum(), rng.random(count) > urgent
    columns = {"priority": later.astype(np.int64)}
    made = one_server(arrival, draw(law, count, rng), compiled, **columns)

    def wait(factor: float, ahead: float) -> float:
        """By the share of the load that is served before."""
        used = load * factor
        residual = queueing.mg1_wait(rate, service * factor, cv2) * (1 - used)
        return residual / (1 - urgent * used) / (1 - ahead * used)

    check_mean(made.queue_time[~later], lambda factor: wait(factor, 0.0), compiled)
    check_mean(made.queue_time[later], lambda factor: wait(factor, 1.0), compiled)


# --- several servers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "mean_steps", "load", "count", "compiled"),
    [(3, 2.0, 0.6, 25_000, False),
     *(pytest.param(places, 8.0, 0.8, 1_000_000, True, marks=CORE) for places in (1, 3, 16))],
)  # fmt: skip
def test_places_of_a_batch_are_servers(places, mean_steps, load, count, compiled):
    """Services of a few long steps, against the exact chain of steps."""
    step, rate, rng = 1 / mean_steps, load * places, np.random.default_rng(5)
    arrival = rng.exponential(1 / rate, count).cumsum()
    made = servers_by_place(arrival, rng.geometric(step, count), places, step, compiled)

    def theory(factor: float) -> float:
        return stepped_wait(rate, mean_steps * factor, places, step)

    check_mean(made.queue_time, theory, compiled)


@CORE
@pytest.mark.parametrize(("places", "load"), [(4, 0.8), (12, 0.8)])
def test_with_short_steps_they_are_m_m_c(places, load):
    """A thousand steps a service: what the steps change is far below the interval."""
    step, rate, count, rng = 1e-3, load * places, 1_000_000, np.random.default_rng(6)
    theory = queueing.mmc_wait(rate, 1.0, places)
    assert stepped_wait(rate, 1 / step, places, step) == pytest.approx(theory, rel=5e-3)
    arrival = rng.exponential(1 / rate, count).cumsum()
    made = servers_by_place(arrival, rng.geometric(step, count), places, step, True)
    check_mean(made.queue_time, lambda factor: queueing.mmc_wait(rate, factor, places), True)
    for quantile in (0.9, 0.99):
        limit = queueing.mmc_wait_percentile(rate, 1.0, places, quantile)
        check_percentile(made.queue_time, quantile, limit, True)


# --- closed loops ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "places", "compiled"),
    [(4, 1, False), *(pytest.param(8, places, True, marks=CORE) for places in (1, 3))],
)
def test_users_who_think_are_the_machine_repair_model(users, places, compiled):
    """Each request follows the user's last one after a delay; one server, or places of a batch."""
    count, think, rng = 400_000 if compiled else 15_000, 2.0, np.random.default_rng(13)
    before = np.arange(-users, count - users)
    columns = {
        "after": (np.maximum(np.arange(-users, count - users + 1), 0), before[users:]),
        "delay": rng.exponential(think, count),
    }
    arrival = np.zeros(count)
    if places == 1:
        tokens = rng.geometric(TOKEN, count)
        made = one_server(arrival, tokens, compiled, **columns)
    else:
        steps = rng.geometric(1e-3, count)
        made = servers_by_place(arrival, steps, places, 1e-3, compiled, **columns)

    def response(factor: float) -> float:
        return queueing.closed_response(users, think, factor, places)

    check_mean(made.e2el, response, compiled)


@BOTH
@pytest.mark.parametrize("users", [2, 8])
def test_prompts_beside_decodes_are_one_too(users, compiled):
    """Users decode (think) and queue with their prompts for the tokens that steps have left.

    A prompt ends in the middle of a step on average: the next prompt uses the second half, its own
    user waits it out.
    """
    step, room = 1.0, 2000
    service, decode_steps, count = (20.0, 60, 200_000) if compiled else (8.0, 24, 4000)
    rng = np.random.default_rng(7)
    prompts = np.ceil(rng.exponential(service * room, count)).astype(np.int64)
    outputs = rng.geometric(1 / decode_steps, count) + 1
    longest = int((prompts + outputs).max())
    made = replay(
        table(longest, per_step=step, places=room + 2 * users),
        engine("vllm-v1", room + users // 2, users, longest),
        requests(np.zeros(count), prompts, outputs), max_concurrency=users, compiled=compiled,
    )  # fmt: skip
    think = decode_steps * step + step / 2

    def response(factor: float) -> float:
        return queueing.closed_response(users, think, service * factor)

    check_mean(made.ttft - step / 2, response, compiled)
    cycle, half = interval(made.e2el)
    assert abs(cycle - (think + response(1.0))) < half < 0.1 * cycle


# --- Ciw ------------------------------------------------------------------------------------------


def ciw_waits(network: Any, count: int) -> np.ndarray:
    """Waits of a network's first requests to finish, by class and in order of arrival."""
    ciw = pytest.importorskip("ciw")
    run = ciw.Simulation(ciw.create_network(**network))
    run.simulate_until_max_customers(count, method="Finish")
    key = lambda record: (record.customer_class, record.arrival_date)  # noqa: E731
    return np.array([record.waiting_time for record in sorted(run.get_all_records(), key=key)])


@BOTH
@pytest.mark.parametrize("kind", ["one server", "priorities", "three servers"])
def test_request_by_request_the_waits_are_those_of_ciw(kind, compiled):
    """The same arrivals and services in both; before several servers, all on step boundaries."""
    ciw = pytest.importorskip("ciw")
    rng, count, step = np.random.default_rng(8), 4000, 1 / 64
    later = np.zeros(count, np.int64)
    if kind == "three servers":
        steps = np.ceil(rng.lognormal(3.0, 1.0, count)).astype(np.int64)
        services = steps * step
        arrival = rng.geometric(2.4 / steps.mean(), count).cumsum() * step
        made = servers_by_place(arrival, steps, 3, step, compiled)
    else:
        tokens = draw(LAWS["M/H2/1"], count, rng)
        services, arrival = tokens * TOKEN, rng.exponential(100 * TOKEN / 0.8, count).cumsum()
        if kind == "priorities":
            later = rng.integers(0, 2, count)
        made = one_server(arrival, tokens, compiled, priority=later)
    names = [f"Class {each}" for each in np.unique(later)]
    # Nobody comes after the last request.
    gaps = [[*np.diff(arrival[later == each], prepend=0.0).tolist(), 1e9] for each in (0, 1)]
    times = [services[later == each].tolist() for each in (0, 1)]
    sequences = lambda lists: {  # noqa: E731
        name: [ciw.dists.Sequential(values)] for name, values in zip(names, lists, strict=False)
    }
    theirs = ciw_waits(
        {
            "arrival_distributions": sequences(gaps),
            "service_distributions": sequences(times),
            "priority_classes": {name: level for level, name in enumerate(names)},
            "number_of_servers": [3 if kind == "three servers" else 1],
        },
        count,
    )
    ours = np.concatenate([made.queue_time[later == each] for each in (0, 1)])
    assert theirs.max() > 5 * services.mean()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@CORE
def test_lognormal_services_wait_as_long_as_in_ciw():
    """M/G/3 has no closed form: with unlike random numbers, within the joint interval."""
    ciw = pytest.importorskip("ciw")
    servers, cv2, step, count = 3, 0.5, 1e-3, 1_000_000
    rate, spread = 0.5 * servers, math.sqrt(math.log(1 + cv2))
    law = (-(spread**2) / 2, spread)  # mean 1
    rng = np.random.default_rng(9)
    arrival = rng.exponential(1 / rate, count).cumsum()
    steps = np.maximum(np.round(rng.lognormal(*law, count) / step), 1).astype(np.int64)
    made = servers_by_place(arrival, steps, servers, step, True)
    network = {
        "arrival_distributions": [ciw.dists.Exponential(rate)],
        "service_distributions": [ciw.dists.Lognormal(*law)],
        "number_of_servers": [servers],
    }
    runs = []
    for seed in (1, 2):
        ciw.seed(seed)
        runs.append(ciw_waits(network, 25_000))
    ours, our_half = interval(made.queue_time)
    theirs, their_half = interval(np.concatenate(runs))
    joint = math.hypot(our_half, their_half)
    assert abs(ours - theirs) < joint

    def approximate(factor: float) -> float:
        return queueing.ggc_wait(rate, factor, servers, service_cv2=cv2)

    # Services longer by a tenth would be found out, and Allen and Cunneen are near.
    assert 2 * joint < approximate(1.1) - approximate(1.0)
    assert approximate(1.0) == pytest.approx(ours, rel=0.05)
