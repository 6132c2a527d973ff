"""The tabulated step time against the step function it was made from."""

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.core.types import TokenGroup
from perfmodel.serving.simulate import tabulate
from perfmodel.step.step import run_step
from tests.unit.serving.simulation import system

REACH = 8192
MODELS = (
    ("meta-llama/Llama-3.1-8B", {}),
    ("mistralai/Mixtral-8x7B-v0.1", {"tensor_parallel_size": 2.0}),
    ("deepseek-ai/DeepSeek-V3", {"tensor_parallel_size": 8.0, "expert_parallel_size": 8.0}),
    ("deepseek-ai/DeepSeek-V3.2", {"tensor_parallel_size": 8.0}),
    ("google/gemma-3-27b-it", {}),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", {}),
    ("nvidia/Nemotron-H-8B-Base-8K", {}),
    ("state-spaces/mamba2-2.7b", {}),
    ("openai/gpt-oss-120b", {}),
    ("meta-llama/Llama-3.1-8B", {"pipeline_parallel_size": 2.0}),
    (
        "deepseek-ai/DeepSeek-V3",
        {"tensor_parallel_size": 2.0, "data_parallel_size": 4.0, "expert_parallel_size": 8.0},
    ),
)


def step(served, *groups: TokenGroup) -> float:
    return float(
        run_step(served.architecture, served.layout, served.precision, served.machine, groups,
                 served.imbalance, "time").time
    )  # fmt: skip


@pytest.mark.parametrize(("model", "flags"), MODELS, ids=[name for name, _ in MODELS])
def test_surface_is_the_step_function(model, flags):
    served = system(model, "h200-sxm", **flags)
    table = tabulate(served, REACH, 256, REACH)
    rng = np.random.default_rng(0)
    for _ in range(60):
        running, context = int(rng.integers(0, 250)), int(rng.integers(1, REACH))
        seqs, new, past = int(rng.integers(1, 6)), int(rng.integers(1, 1500)), 0
        if rng.random() < 0.5:
            past = int(rng.integers(0, REACH - new))
        groups, chunks = [], []
        if running:
            groups.append(TokenGroup(float(running), 1.0, context - 1.0, "decode"))
        if not running or rng.random() < 0.6:
            groups.append(TokenGroup(float(seqs), float(new), float(past)))
            chunks = [(new, past)] * seqs
        made = table.time([context] * running, chunks)
        assert made == pytest.approx(step(served, *groups), rel=1e-9)


@pytest.mark.parametrize(("model", "flags"), MODELS, ids=[name for name, _ in MODELS])
def test_unlike_chunks_share_one_launch(model, flags):
    served = system(model, "h200-sxm", **flags)
    table = tabulate(served, REACH, 256, REACH)
    chunks = [(700, 0), (1, 5000), (33, 4097), (512, 512)]
    groups = [TokenGroup(1.0, float(new), float(past)) for new, past in chunks]
    launches = 3 * table.prefill_launch
    assert table.time([], chunks) == pytest.approx(step(served, *groups) - launches, rel=1e-9)


@pytest.mark.parametrize(("model", "flags"), MODELS, ids=[name for name, _ in MODELS])
def test_unlike_contexts_share_one_launch(model, flags):
    """Each sequence counts with its own context, on either side of a sliding window."""
    served = system(model, "h200-sxm", **flags)
    table = tabulate(served, REACH, 256, REACH)
    contexts = [64, 256, 1000, 1025, 2000, 4000, 8000]
    groups = [TokenGroup(1.0, 1.0, context - 1.0, "decode") for context in contexts]
    launches = (len(contexts) - 1) * table.decode_launch
    assert table.time(contexts) == pytest.approx(step(served, *groups) - launches, rel=1e-9)
    assert table.linear == (not any(name in model for name in ("gemma", "gpt-oss", "V3.2")))


@pytest.mark.parametrize(
    ("model", "flags", "word"),
    [
        ("microsoft/resnet-50", {}, "has no tokens"),
        ("openai/whisper-large-v3", {}, "encoder-decoder"),
    ],
)
def test_systems_it_does_not_know(model, flags, word):
    with pytest.raises(UsageError, match=word):
        tabulate(system(model, **flags), 128, 8, 128)
