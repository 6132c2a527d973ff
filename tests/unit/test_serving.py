"""Closed forms of the steady state, and the loop that closes them over the step function."""

from typing import Any

import numpy as np
import pytest

from perfmodel.core.types import Reason, TokenGroup
from perfmodel.scenario.estimate import Estimate, estimate
from perfmodel.scenario.verdict import replicas
from perfmodel.serving import steady
from perfmodel.step.step import Step, run_step

LLAMA = {"model": "meta-llama/Llama-3.1-8B", "gpu": "h100-sxm"}


def ask(**question: Any) -> Estimate:
    return estimate(**(LLAMA | question))


def solved(answer: Estimate) -> Any:
    assert answer.steady is not None
    return answer.steady


def step(answer: Estimate, *groups: TokenGroup) -> Step:
    known = answer.resolved
    return run_step(
        known.architecture, known.layout, known.precision, known.machine, groups,
        known.machine.calibration.expert_imbalance.value,
    )  # fmt: skip


# --- closed forms ---------------------------------------------------------------------------------


def test_residence_solves_its_equation() -> None:
    rng = np.random.default_rng(1)
    users = np.round(np.exp(rng.uniform(0, 8, 500)))
    latency, steps, tpot = rng.uniform(0.01, 5, (3, 500))
    slot, think = latency * rng.uniform(0.1, 1, 500), steps * tpot
    made = steady.closed_residence(users, latency, slot, steps, tpot)
    right = latency + slot * (users - 1) * made / (made + think)
    np.testing.assert_allclose(made, right, rtol=1e-9)


def test_residence_has_the_right_ends() -> None:
    # alone: no queue; without decoding: everybody queues for the prompt station
    assert steady.closed_residence(1.0, 0.5, 0.5, 100.0, 0.01) == pytest.approx(0.5)
    assert steady.closed_residence(8.0, 0.5, 0.25, 1e-9, 0.01) == pytest.approx(0.5 + 7 * 0.25)


def test_closed_loop_keeps_its_users() -> None:
    running = steady.closed_running(10.0, 0.5, 100.0, 0.02)
    rate = steady.closed_rate(10.0, 0.5, 100.0, 0.02)
    assert running == pytest.approx(10 * 2.0 / 2.5)
    assert rate == pytest.approx(10 / 2.5)
    assert running + rate * 0.5 == pytest.approx(10)  # decoding + in the prompt station
    assert steady.admission_wait(25.0, 10.0, rate) == pytest.approx(15 / 4)


def test_budget_is_shared_by_decodes_and_the_prompts_that_replace_them() -> None:
    # 100 steps and 300 prompt tokens per request: a quarter of a full budget decodes
    running = steady.budget_running(8000.0, 300.0, 100.0)
    assert running == 2000.0
    assert running * 300 / 100 + running == 8000
    # the chunks of 300 tokens that arrive each step fill the other three quarters
    chunks = steady.chunks_per_step(running, 300.0, 100.0, 8000.0 - running, 300.0)
    assert chunks * 300 + running == pytest.approx(8000)
    more = steady.chunks_per_step(2 * running, 300.0, 100.0, 8000.0 - running, 300.0)
    assert more == chunks  # a step takes no more than it has room for


@pytest.mark.parametrize(
    ("room", "prompt", "waiting", "chunk"),
    [
        (8182.0, 500.0, 0.0, 500.0),  # a whole prompt fits
        (8182.0, 500.0, 4.0, 2000.0),  # four share the step
        (500.0, 5000.0, 3.0, 500.0),  # what the decodes leave
        (0.5, 500.0, 1.0, 1.0),  # at least one token
    ],
)
def test_chunk(room: float, prompt: float, waiting: float, chunk: float) -> None:
    assert steady.chunk_tokens(prompt, waiting, room) == chunk


def test_chunks_in_the_steps_of_a_lane() -> None:
    # plain steps of 0.1 s, 0.1 s more with a chunk: one user with ten decode steps and one prompt
    rate = 1 / (10 * 0.1 + 0.2)
    assert steady.lane_chunks(rate, 500.0, 500.0, 0.1, 0.2) == pytest.approx(1 / 11)
    # steps full of four chunks each
    assert steady.lane_chunks(4 / 0.5, 500.0, 500.0, 0.1, 0.2) == pytest.approx(4)


def test_prefill_takes_whole_steps_but_its_slot_does_not() -> None:
    # steps of 0.02 s, 0.08 s more with 2000 prompt tokens
    assert steady.prefill_latency(5000.0, 2000.0, 2000.0, 0.02, 0.1) == pytest.approx(0.06 + 0.2)
    assert steady.prefill_slot(5000.0, 2000.0, 2000.0, 0.02, 0.1) == pytest.approx(0.25)
    # prompts that share a step share its fixed cost
    assert steady.prefill_latency(500.0, 2000.0, 2000.0, 0.02, 0.1) == pytest.approx(0.02 + 0.02)
    assert steady.prefill_slot(500.0, 2000.0, 2000.0, 0.02, 0.1) == pytest.approx(0.025)


def test_open_queue_is_that_of_deterministic_service() -> None:
    # half loaded, 0.1 s of service: rho / (2 (1 - rho)) x s
    assert steady.open_wait(5.0, 0.1) == pytest.approx(0.05)
    assert steady.open_wait(10.0, 0.1) == float("inf")
    assert steady.open_wait(1e-9, 0.1) == pytest.approx(0, abs=1e-9)
    assert steady.open_wait(np.array([5.0, 20.0]), 0.1).tolist() == [pytest.approx(0.05), np.inf]


# --- the loop over the step function --------------------------------------------------------------


@pytest.mark.parametrize(("isl", "osl"), [(1000, 1000), (100, 2), (100_000, 10), (8000, 500)])
def test_a_single_user_decodes_alone(isl: int, osl: int) -> None:
    answer = ask(isl=isl, osl=osl, max_concurrency=1)
    alone = step(answer, TokenGroup(1.0, 1.0, isl + osl / 2 - 1, "decode"))
    assert solved(answer).tpot == pytest.approx(alone.time, rel=1e-12)
    assert solved(answer).others_chunks == 0
    assert solved(answer).queue_time == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("isl", "prefix"), [(1000, 0), (8000, 0), (8000, 6000)])
def test_a_single_user_waits_for_his_own_prompt(isl: int, prefix: int) -> None:
    answer = ask(isl=isl, prefix=prefix, osl=100, max_concurrency=1)
    prompt = step(answer, TokenGroup(1.0, float(isl - prefix), float(prefix)))
    assert prompt.time <= solved(answer).ttft <= prompt.time * 1.02


def test_a_single_token_is_its_prefill() -> None:
    answer = ask(isl=5000, osl=1, max_concurrency=1)
    prompt = step(answer, TokenGroup(1.0, 5000.0, 0.0))
    assert solved(answer).ttft == pytest.approx(prompt.time, rel=1e-3)
    assert solved(answer).e2el == pytest.approx(solved(answer).ttft, rel=1e-6)
    assert answer.output_throughput == pytest.approx(1 / prompt.time, rel=1e-3)


def test_a_long_prompt_takes_its_chunks() -> None:
    answer = ask(isl=20_000, osl=10, max_concurrency=1, max_num_batched_tokens=4096)
    chunks = [4096] * 4 + [20_000 - 4 * 4096]
    total, past = 0.0, 0
    for size in chunks:
        total += float(step(answer, TokenGroup(1.0, float(size), float(past))).time)
        past += size
    assert solved(answer).ttft == pytest.approx(total, rel=0.05)


@pytest.mark.parametrize(("isl", "osl"), [(100_000, 10), (8000, 1), (1000, 1000), (4000, 100)])
@pytest.mark.parametrize("users", [1, 2, 16, 64])
def test_work_done_is_requests_times_work_of_a_request(isl: int, osl: int, users: int) -> None:
    """MFU counts prompts too, the user's own included."""
    answer = ask(isl=isl, osl=osl, max_concurrency=users)
    prompt = step(answer, TokenGroup(1.0, float(isl), 0.0))
    token = step(answer, TokenGroup(1.0, 1.0, isl + osl / 2 - 1, "decode"))
    request = float(prompt.flops) + (osl - 1) * float(token.flops)
    expected = solved(answer).request_rate * request / answer.resolved.machine.peak("bf16")
    assert answer.mfu == pytest.approx(expected, rel=0.06)
    assert 0 < answer.mfu < 1
    assert 0 < answer.mbu < 1


def test_long_prompts_draw_the_power_of_compute() -> None:
    prompts = ask(isl=100_000, osl=2, max_concurrency=1)
    tokens = ask(isl=10, osl=1000, max_concurrency=1)
    assert prompts.power > tokens.power
    limits = prompts.resolved.machine.gpu.power
    assert prompts.power <= limits.tdp.value


@pytest.mark.parametrize("limit", [{"max_num_seqs": 8}, {"isl": 60_000}])
def test_users_beyond_the_limit_wait_outside(limit: dict[str, Any]) -> None:
    answer = ask(**({"isl": 1000, "osl": 200, "max_concurrency": 64} | limit))
    state = solved(answer)
    assert state.users < 64
    assert state.users == min(limit.get("max_num_seqs", 256), answer.memory.max_seqs)
    # admission plus the rest of the way, by Little's law
    assert state.request_rate * state.e2el == pytest.approx(64, rel=1e-9)


def test_replicas_share_the_users() -> None:
    one = solved(ask(isl=1000, osl=200, max_concurrency=16))
    four = ask(isl=1000, osl=200, max_concurrency=64, num_gpus=4)
    assert replicas(four.resolved) == 4
    assert four.gpus == 4
    assert solved(four).tpot == one.tpot
    assert solved(four).request_rate == pytest.approx(4 * one.request_rate, rel=1e-12)
    # data parallelism of a dense model is the same thing
    spread = ask(isl=1000, osl=200, max_concurrency=64, data_parallel_size=4)
    assert solved(spread).tpot == one.tpot


def test_fewer_users_than_replicas_leave_some_idle() -> None:
    answer = ask(isl=1000, osl=200, max_concurrency=2, num_gpus=4)
    assert solved(answer).lanes == 2
    assert solved(answer).occupancy == 0.5
    alone = ask(isl=1000, osl=200, max_concurrency=1)
    assert answer.mbu == pytest.approx(alone.mbu / 2, rel=1e-12)


def test_open_loop_meets_closed_loop() -> None:
    """At the closed loop's own rate, Poisson arrivals see about the same TPOT."""
    closed = solved(ask(isl=1000, osl=200, max_concurrency=32))
    opened = solved(ask(isl=1000, osl=200, request_rate=float(closed.request_rate)))
    assert opened.tpot == pytest.approx(closed.tpot, rel=0.05)
    assert opened.running == pytest.approx(closed.running, rel=0.05)
    assert opened.request_rate * opened.e2el == pytest.approx(32, rel=0.1)


def test_saturation_is_an_answer_with_a_reason() -> None:
    answer = ask(isl=4000, osl=200, request_rate=1000.0)
    assert answer.verdict.reason == Reason.SATURATED
    assert "exceed" in answer.verdict.message
    assert "--num-gpus" in answer.verdict.nearest
    assert np.isnan(answer.results()["ttft_ms"])
    table = ask(isl=4000, osl=200, request_rate=np.array([1.0, 1000.0]))
    assert np.asarray(table.verdict.reason).tolist() == [0, Reason.SATURATED]


def test_pipeline_lanes_hide_their_stages() -> None:
    """Four microbatches in flight: a token passes all stages, throughput counts every lane."""
    one = ask(isl=1000, osl=200, max_concurrency=8)
    four = ask(isl=1000, osl=200, max_concurrency=32, pipeline_parallel_size=4)
    assert solved(four).lanes == 4
    assert solved(four).tpot > solved(one).tpot
    assert four.output_throughput < 4 * one.output_throughput
    assert four.output_throughput > 3 * one.output_throughput


def test_encoder_runs_once() -> None:
    answer = estimate(
        model="google-bert/bert-base-uncased", gpu="h100-sxm", isl=128, max_concurrency=32
    )
    state = solved(answer)
    once = step(answer, TokenGroup(32.0, 128.0, 0.0))
    assert state.e2el == once.time
    assert state.request_rate == pytest.approx(32 / once.time, rel=1e-12)
    assert answer.memory.sequence == 0
