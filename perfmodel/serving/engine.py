"""Steady state of one deployment under a load: running batch, step times, TTFT and TPOT.

Composes the closed forms of `perfmodel.serving.steady` with the step function. A deployment with
``dp`` or ``pp`` runs several batches at once (replicas; microbatches that follow each other through
the stages); each is one *lane* with its share of the users and the step time of a whole pass.

Means only, and best where requests decode for many steps: with a few output tokens several prompts
share each step, and one typical mixed step stands for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import label
from perfmodel.core.precision import Precision
from perfmodel.core.types import TokenGroup
from perfmodel.memory.fit import Footprint
from perfmodel.models.architecture import Architecture
from perfmodel.parallel.layout import Layout
from perfmodel.serving import steady
from perfmodel.serving.solve import crossing
from perfmodel.step.step import Detail, Step, run_step
from perfmodel.time.machine import Machine

# Refinements of an open loop's running batch; its equation is nearly affine.
_OPEN_PASSES = 7
# An osl of 1 has no decode step; a vanishing positive number keeps the formulas finite.
_NO_STEPS = 1e-9


@dataclass(frozen=True, slots=True)
class System:
    """What serves: model, layout, formats, machine, engine limits, and what fits in memory.

    ``detail`` says how much of each step to keep.
    """

    architecture: Architecture
    layout: Layout
    precision: Precision
    machine: Machine
    footprint: Footprint
    max_num_seqs: Numeric
    budget: Numeric
    replicas: Numeric = 1.0
    imbalance: Numeric = 1.0
    detail: Detail = "operators"


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: lengths, and either users in a closed loop or an arrival rate.

    ``context`` is the number of cached tokens a decode step sees on average.
    """

    prompt: Numeric
    prefix: Numeric
    osl: Numeric
    concurrency: Numeric | None = None
    request_rate: Numeric | None = None
    encoder_tokens: Numeric = 0.0

    @property
    def decode_steps(self) -> Numeric:
        """Steps after the first token."""
        return xp.maximum(self.osl - 1.0, _NO_STEPS)

    @property
    def context(self) -> Numeric:
        """Mean cached tokens before a decode step: the prompt and half of the steps' tokens."""
        return self.prefix + self.prompt + (self.decode_steps - 1.0) / 2


@dataclass(frozen=True, slots=True)
class Steady:
    """Steady state of the deployment (numbers or arrays; seconds, tokens per second).

    ``lanes`` run at once; ``occupancy`` is the share of all lanes' time that has work.
    ``others_chunks`` are the prompt chunks of others in a step a decoding user waits for,
    ``lane_chunks`` those in any step of a lane, his own included.
    """

    decode: Step
    mixed: Step
    others_chunks: Numeric
    lane_chunks: Numeric
    running: Numeric
    users: Numeric
    chunk: Numeric
    prefill_time: Numeric
    queue_time: Numeric
    ttft: Numeric
    tpot: Numeric
    e2el: Numeric
    request_rate: Numeric
    lanes: Numeric
    occupancy: Numeric
    saturated: Numeric

    @property
    def tpot_step(self) -> Numeric:
        """Mean time of a step [s]."""
        return self.average(lambda step: step.time)

    def average(self, part: Callable[[Step], Numeric]) -> Numeric:
        """Mean of a step's quantity over a lane's steps."""
        plain, mixed = part(self.decode), part(self.mixed)
        return plain + self.lane_chunks * (mixed - plain)


def single_pass(system: System, tokens: Numeric, batch: Numeric) -> Steady:
    """Encoders, vision models and one denoising step: a batch runs through once, all at once."""
    lanes = xp.minimum(_lanes(system), batch)
    group = TokenGroup(batch / lanes, tokens, 0.0)
    with label("pass"):
        step = _run(system, (group,), system.detail)
    none = float("nan")
    return Steady(
        decode=step, mixed=step, others_chunks=0.0, lane_chunks=1.0,
        running=batch / lanes, users=batch / lanes, chunk=tokens,
        prefill_time=step.time, queue_time=0.0, ttft=step.time, tpot=none, e2el=step.time,
        request_rate=batch / step.time, lanes=lanes,
        occupancy=lanes / _lanes(system), saturated=False,
    )  # fmt: skip


def steady_state(system: System, load: Load) -> Steady:
    """Solve for the mean state of a closed or open loop.

    Raises
    ------
    perfmodel.core.errors.InfeasibleError
        A datapath or a network is missing.
    """
    lanes = _lanes(system)
    if load.concurrency is not None:
        lanes = xp.minimum(lanes, load.concurrency)
        return _closed(system, load, lanes, load.concurrency / lanes)
    assert load.request_rate is not None
    return _open(system, load, lanes, load.request_rate / lanes)


def _lanes(system: System) -> Numeric:
    """Batches the deployment can run at once."""
    return system.layout.dp * system.layout.pp * system.replicas


def _limit(system: System) -> Numeric:
    """Most sequences a lane may hold: the engine's limit; the cache, shared by stages' lanes."""
    cached = xp.floor(system.footprint.max_seqs / system.layout.pp)
    return xp.maximum(xp.minimum(system.max_num_seqs, cached), 1.0)


def _closed(system: System, load: Load, lanes: Numeric, concurrency: Numeric) -> Steady:
    prompt, steps = load.prompt, load.decode_steps
    users = xp.minimum(concurrency, _limit(system))
    most = xp.minimum(users, steady.budget_running(system.budget, prompt, steps))
    others = (users - 1) / users

    def settle(running: Numeric, detail: Detail) -> tuple[_Point, Numeric]:
        point = _steps(system, load, running, running * others, users - running, detail)
        return point, steady.closed_residence(users, point.prefill, point.slot, steps, point.tpot)

    point, residence = settle(most, "time")
    # The running batch decides the step times and they decide the running batch; one correction
    # moves results by less than a percent, a second one by nothing a reader would see.
    running = xp.minimum(most, steady.closed_running(users, residence, steps, point.tpot))
    point, residence = settle(running, system.detail)
    rate = steady.closed_rate(users, residence, steps, point.tpot)
    wait = steady.admission_wait(concurrency, users, rate)
    total = steady.deployment_rate(rate, lanes)
    return _result(system, point, load, running, users, residence, wait, total, lanes, False)


def _open(system: System, load: Load, lanes: Numeric, rate: Numeric) -> Steady:
    prompt, steps = load.prompt, load.decode_steps
    limit = xp.minimum(_limit(system), steady.budget_running(system.budget, prompt, steps))

    def trial(running: Numeric, detail: Detail) -> _Point:
        # Prompts that arrive during a step, by the steps' length that the batch itself implies.
        arriving = running / steps
        return _steps(system, load, running, running, arriving, detail)

    def gap(running: Numeric) -> Numeric:
        return steady.open_running(rate, steps, trial(running, "time").tpot) - running

    running = crossing(gap, xp.minimum(limit, 1e-9), limit, _OPEN_PASSES)
    point = trial(running, system.detail)
    wanted = steady.open_running(rate, steps, point.tpot)
    room = xp.maximum(system.budget - running, 1.0)
    full = _steps(system, load, running, running, room / prompt, "time")
    slot = steady.full_slot(prompt, room, full.mixed.time)
    busy = steady.open_busy_share(running, rate, point.prefill)
    wait = steady.open_wait(rate, slot) + steady.residual_step(busy, point.tpot)
    saturated = (rate * slot >= 1) | (running >= limit) & (wanted > limit)
    total = steady.deployment_rate(rate, lanes)
    return _result(
        system, point, load, running, limit, point.prefill, wait, total, lanes, saturated, busy
    )


@dataclass(frozen=True, slots=True)
class _Point:
    """Step times at one running batch."""

    decode: Step
    mixed: Step
    chunk: Numeric
    chunks: Numeric
    tpot: Numeric
    prefill: Numeric
    slot: Numeric


def _steps(
    system: System, load: Load, running: Numeric, others: Numeric, waiting: Numeric, detail: Detail
) -> _Point:
    room = xp.maximum(system.budget - running, 1.0)
    chunk = steady.chunk_tokens(load.prompt, waiting, room)
    new = xp.minimum(load.prompt, room)
    # Mean over a prompt's chunks, exact for its pairs.
    past = load.prefix + (load.prompt - new) / 2
    # A step that gives a user his token holds him and the others; an osl of 1 has no such step.
    seen = xp.minimum(load.decode_steps, 1.0) + others
    decoding = TokenGroup(seen, 1.0, load.context, "decode", load.encoder_tokens)
    prompts = TokenGroup(
        chunk / new, new, past, "prefill", load.encoder_tokens, load.encoder_tokens
    )
    with label("decode step"):
        decode = _run(system, (decoding,), detail)
    with label("mixed step"):
        mixed = _run(system, (decoding, prompts), detail)
    chunks = steady.chunks_per_step(others, load.prompt, load.decode_steps, room, chunk)
    return _Point(
        decode, mixed, chunk, chunks,
        steady.mean_tpot(decode.time, mixed.time, chunks),
        steady.prefill_latency(load.prompt, room, chunk, decode.time, mixed.time),
        steady.prefill_slot(load.prompt, room, chunk, decode.time, mixed.time),
    )  # fmt: skip


def _run(system: System, groups: tuple[TokenGroup, ...], detail: Detail) -> Step:
    return run_step(
        system.architecture, system.layout, system.precision, system.machine, groups,
        system.imbalance, detail,
    )  # fmt: skip


def _result(
    system: System, point: _Point, load: Load, running: Numeric, users: Numeric, residence: Numeric,
    wait: Numeric, request_rate: Numeric, lanes: Numeric, saturated: Numeric, busy: Numeric = 1.0,
) -> Steady:  # fmt: skip
    ttft = steady.mean_ttft(wait, residence)
    return Steady(
        decode=point.decode,
        mixed=point.mixed,
        others_chunks=point.chunks,
        lane_chunks=steady.lane_chunks(
            request_rate / lanes / busy,
            load.prompt,
            point.chunk,
            point.decode.time,
            point.mixed.time,
        ),
        running=running,
        users=users,
        chunk=point.chunk,
        prefill_time=point.prefill,
        queue_time=wait + xp.maximum(residence - point.prefill, 0.0),
        ttft=ttft,
        tpot=point.tpot,
        e2el=steady.mean_e2el(ttft, point.tpot, load.decode_steps),
        request_rate=request_rate,
        lanes=lanes,
        occupancy=busy * lanes / _lanes(system),
        saturated=saturated,
    )
