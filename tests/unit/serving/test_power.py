"""FLOPs, traffic and energy of whole runs against the step function they are sums of."""

import dataclasses
import functools

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.core.types import TokenGroup
from perfmodel.scenario.estimate import estimate
from perfmodel.serving.simulate import (
    POLICIES,
    Cluster,
    Engine,
    Replica,
    Simulation,
    Surface,
    cache_blocks,
    serve,
    surface_for,
)
from perfmodel.serving.simulate.fleet import State
from perfmodel.serving.simulate.power import power_columns, usages
from perfmodel.serving.simulate.work import Work
from perfmodel.step.step import run_step
from perfmodel.time.energy import gpu_power
from tests.unit.serving.simulation import requests, system

MODELS = (
    ("meta-llama/Llama-3.1-8B", {}),
    ("mistralai/Mixtral-8x7B-v0.1", {"tensor_parallel_size": 2.0}),
    ("deepseek-ai/DeepSeek-V3", {"tensor_parallel_size": 8.0, "expert_parallel_size": 8.0}),
    ("deepseek-ai/DeepSeek-V3.2", {"tensor_parallel_size": 8.0}),
    ("google/gemma-3-27b-it", {}),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", {}),
    ("state-spaces/mamba2-2.7b", {}),
)
BASE = Engine(POLICIES["vllm-v1"], 2048, 8, 16, 100_000)


@functools.cache
def tables(model: str = MODELS[0][0], **flags) -> tuple[Surface, Work]:
    served = system(model, "h200-sxm", **flags)
    surface = surface_for(served, (BASE,), requests([0.0], 3000, 200))
    return surface, Work.of(served, surface)


def run(surface, asked, *replicas: Replica, **more) -> Simulation:
    replicas = replicas or (Replica(BASE),)
    return serve(Cluster((surface,), replicas), asked, compiled=False, **more)


def steps(served, *groups: TokenGroup) -> np.ndarray:
    """Quantities of steps of one group each."""
    made = np.zeros(4)
    for group in groups:
        step = run_step(
            served.architecture, served.layout, served.precision, served.machine, (group,),
            served.imbalance, "sums",
        )  # fmt: skip
        made += [float(part) for part in (step.flops, step.traffic, step.compute, step.memory)]
    return made


@pytest.mark.parametrize(("model", "flags"), MODELS, ids=[name for name, _ in MODELS])
def test_a_run_is_the_sum_of_its_steps(model, flags):
    """A prompt in two chunks and 39 decodes; then a prompt alone."""
    surface, work = tables(model, **flags)
    made = run(surface, requests([0.0, 100.0], [3000, 77], [40, 1]))
    expected = steps(
        system(model, "h200-sxm", **flags),
        TokenGroup(1.0, 2048.0, 0.0), TokenGroup(1.0, 952.0, 2048.0), TokenGroup(1.0, 77.0, 0.0),
        *(TokenGroup(1.0, 1.0, 3000.0 + past, "decode") for past in range(39)),
    )  # fmt: skip
    np.testing.assert_allclose(usages(made, [work])[0].amounts, expected, rtol=1e-12)


@pytest.mark.parametrize(("model", "flags"), MODELS[:3], ids=[name for name, _ in MODELS[:3]])
def test_equal_steps_count_each(model, flags):
    """Five times four prompts at once, then four decodes."""
    surface, work = tables(model, **flags)
    made = run(surface, requests(np.repeat(np.arange(5.0), 4), 500, 2))
    once = steps(
        system(model, "h200-sxm", **flags),
        TokenGroup(4.0, 500.0, 0.0),
        TokenGroup(4.0, 1.0, 500.0, "decode"),
    )
    np.testing.assert_allclose(usages(made, [work])[0].amounts, 5 * once, rtol=1e-12)


def test_cached_prompt_tokens_are_not_computed():
    surface, work = tables()
    asked = dataclasses.replace(
        requests([0.0, 1.0], 2000, 1), hash_block=400,
        hash_ids=(np.array([0, 5, 10]), np.tile(np.arange(5), 2)),
    )  # fmt: skip
    made = run(surface, asked, Replica(dataclasses.replace(BASE, prefix_cache=True)))
    expected = steps(
        system(gpu="h200-sxm"), TokenGroup(1.0, 2000.0, 0.0), TokenGroup(1.0, 400.0, 1600.0)
    )
    np.testing.assert_allclose(usages(made, [work])[0].amounts, expected, rtol=1e-12)


def test_flops_do_not_depend_on_how_requests_share_steps():
    """In a dense model; prompts are computed whole, so that each needs the head once."""
    surface, work = tables()
    rng = np.random.default_rng(0)
    prompt, output = rng.integers(100, 1000, 40), rng.integers(1, 100, 40)
    engine = dataclasses.replace(BASE, policy=POLICIES["prefill-first"], max_num_seqs=4)
    together = run(surface, requests(np.zeros(40), prompt, output), Replica(engine))
    alone = run(surface, requests(100.0 * np.arange(40), prompt, output), Replica(engine))
    found = [usages(made, [work])[0] for made in (together, alone)]
    assert found[0].flops == pytest.approx(found[1].flops, rel=1e-12)
    assert found[0].traffic < 0.5 * found[1].traffic  # weights are read for several at once


def test_recomputed_tokens_count():
    """B's prompt and its token are computed again after it gave way to A."""
    surface, work = tables()
    engine = dataclasses.replace(BASE, block_size=8, blocks=4)
    made = run(surface, requests([0.0, 0.0], 15, 10), Replica(engine))
    assert made.record.preempted.tolist() == [0, 1]
    served = system(gpu="h200-sxm")
    expected = steps(
        served, TokenGroup(2.0, 15.0, 0.0), TokenGroup(2.0, 1.0, 15.0, "decode"),
        *(TokenGroup(1.0, 1.0, 16.0 + past, "decode") for past in range(8)),
        TokenGroup(1.0, 17.0, 0.0),
        *(TokenGroup(1.0, 1.0, 17.0 + past, "decode") for past in range(7)),
    )  # fmt: skip
    amounts = usages(made, [work])[0].amounts
    np.testing.assert_allclose(amounts, expected, rtol=1e-4)  # attention by its time


def test_a_diffusion_model_is_its_passes():
    served = system("stabilityai/stable-diffusion-xl-base-1.0")
    asked = requests([0.0, 0.0], 1, 10)
    engine = dataclasses.replace(BASE, budget=8)
    surface = surface_for(served, (engine,), asked, 2)
    made = run(surface, asked, Replica(engine))
    expected = 10 * steps(served, TokenGroup(4.0, 1.0, 0.0))
    found = usages(made, [Work.of(served, surface, 2)])[0]
    np.testing.assert_allclose(found.amounts, expected, rtol=1e-12)


@pytest.mark.parametrize(("users", "prompt", "output"), [(4, 500, 100), (32, 1000, 200)])
def test_a_steady_closed_loop_agrees_with_the_estimate(users, prompt, output):
    """Within 3 %; output lengths are uniform about their mean, in random order."""
    served, count = system(), 40 * users
    lengths = np.random.default_rng(0).permutation(np.linspace(1, 2 * output - 1, count).round())
    asked = requests(np.zeros(count), prompt, lengths)
    engine = Engine(
        POLICIES["vllm-v1"], int(served.budget), users, 16, cache_blocks(served, asked, 16)
    )
    surface = surface_for(served, (engine,), asked)
    made = run(surface, asked, Replica(engine), max_concurrency=users)
    found = power_columns(made, [Work.of(served, surface)])
    closed = estimate(
        model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", isl=prompt, osl=output,
        max_concurrency=users,
    ).results()  # fmt: skip
    for name in ("mfu", "mbu", "power_w", "energy_per_token_j"):
        assert found[name] == pytest.approx(closed[name], rel=0.03), name


def test_power_by_hand():
    """One second of work in a hundred, and a replica that idles; a third one is off."""
    surface, work = tables()
    replicas = (Replica(BASE), Replica(BASE), Replica(BASE, state=State.OFF))
    made = run(surface, requests([0.0, 100.0], 1000, 50), *replicas)
    amounts, span, gpu = usages(made, [work])[0].amounts, made.record.makespan, work.gpus
    assert made.record.on_time.tolist() == [span, span, 0.0]
    columns = power_columns(made, [work])
    drive = gpu.compute_power * amounts[2] + gpu.memory_power * amounts[3]
    energy = gpu.idle_power * 2 * span + (gpu.tdp - gpu.idle_power) * drive
    assert columns["power_w"] == pytest.approx(energy / (2 * span), rel=1e-12)
    assert columns["energy_per_token_j"] == pytest.approx(energy / 100, rel=1e-12)
    assert columns["mfu"] == pytest.approx(amounts[0] / (gpu.peak * 2 * span), rel=1e-12)
    assert columns["mbu"] == pytest.approx(amounts[1] / (gpu.bandwidth * 2 * span), rel=1e-12)
    assert gpu.idle_power < columns["power_w"] < 1.025 * gpu.idle_power
    assert gpu_power(gpu.idle_power, gpu.tdp, 0.0, 0.0, 1.0, 1.0) == gpu.idle_power


def test_unlike_gpus_add_up():
    """Two surfaces: energy is the sum, shares are of both peaks."""
    slow = system("meta-llama/Llama-3.1-8B", "a100-sxm-80gb")
    asked = requests(np.zeros(8), 500, 20)
    fast_surface, fast = tables()
    slow_surface = surface_for(slow, (BASE,), asked)
    works = [fast, Work.of(slow, slow_surface)]
    replicas = (Replica(BASE), Replica(BASE, surface=1))
    made = serve(Cluster((fast_surface, slow_surface), replicas), asked, compiled=False)
    found, columns = usages(made, works), power_columns(made, works)
    span = made.record.makespan
    assert columns["power_w"] == pytest.approx(sum(each.power for each in found) / 2, rel=1e-12)
    peaks = sum(work.gpus.peak for work in works)
    assert columns["mfu"] == pytest.approx(sum(u.flops for u in found) / peaks / span, rel=1e-12)
    with pytest.raises(UsageError, match="1 works for 2 surfaces"):
        usages(made, [fast])
