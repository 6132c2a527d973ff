"""Systems and requests for the tests of the simulator."""

import functools
from typing import Any

import numpy as np

from perfmodel.scenario.resolve import resolve
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.verdict import deployment_memory
from perfmodel.serving.engine import System
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate import Surface, tabulate


@functools.cache
def system(model: str = "meta-llama/Llama-3.1-8B", gpu: str = "h100-sxm", **flags: Any) -> System:
    """One replica with vLLM's default limits."""
    known = resolve(Scenario(model=model, gpu=gpu, **flags))
    return System(
        known.architecture, known.layout, known.precision, known.machine,
        deployment_memory(known), known.scenario.max_num_seqs * 1.0,
        known.scenario.max_num_batched_tokens * 1.0,
        imbalance=known.machine.calibration.expert_imbalance.value,
    )  # fmt: skip


@functools.cache
def surface(model: str = "meta-llama/Llama-3.1-8B") -> Surface:
    """Step time up to 4,096 tokens, 256 sequences and contexts of 2,048."""
    return tabulate(system(model), 4096, 256, 2048)


def requests(arrival: Any, prompt: Any, output: Any) -> Requests:
    """Requests from lists; single numbers hold for all."""
    times = np.asarray(arrival, dtype=np.float64)
    made = [np.broadcast_to(np.asarray(x, dtype=np.int64), times.shape) for x in (prompt, output)]
    return Requests(times, made[0].copy(), made[1].copy())


def poisson(rate: float, count: int, prompt: Any, output: Any, seed: int = 0) -> Requests:
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    return requests(gaps.cumsum(), prompt, output)
