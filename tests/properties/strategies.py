"""Random models, layouts, token groups and scenarios; machines whose software is ideal or usual."""

import functools
import math
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

import hwdb
from perfmodel.core.precision import SCHEMES
from perfmodel.core.types import TokenGroup
from perfmodel.models import preset
from perfmodel.models.architecture import Architecture
from perfmodel.parallel.layout import Layout, legal
from perfmodel.time.machine import Machine, machine

DECODERS = (
    "meta-llama/Llama-3.1-8B",  # grouped queries
    "mistralai/Mixtral-8x7B-v0.1",  # experts
    "deepseek-ai/DeepSeek-V3",  # latent attention, shared expert
    "deepseek-ai/DeepSeek-V3.2",  # sparse latent attention
    "google/gemma-3-27b-it",  # sliding windows, tied
    "Qwen/Qwen3-Next-80B-A3B-Instruct",  # gated delta rule and attention
    "nvidia/Nemotron-H-8B-Base-8K",  # Mamba-2 and attention, layers without FFN
    "state-spaces/mamba2-2.7b",  # no attention at all
    "openai/gpt-oss-120b",  # windows, sinks, MXFP4 experts
)
OTHERS = ("google-bert/bert-base-uncased", "openai/whisper-large-v3", "google/flan-t5-xl")
GPUS = ("a100-sxm-80gb", "h100-sxm", "h200-sxm", "b200-sxm", "mi300x")
FAMILIES = ("gemm", "attention", "moe", "conv", "scan", "pointwise")


@functools.cache
def architecture(name: str) -> Architecture:
    return preset.load(name).architecture


@functools.cache
def usual(gpu: str) -> Machine:
    record = hwdb.gpu(gpu)
    return machine(record, hwdb.node(record.node), hwdb.calibration("uncalibrated"))


@functools.cache
def ideal(gpu: str) -> Machine:
    """The same hardware with software that reaches every peak and costs nothing."""
    made = hwdb.calibration("uncalibrated")
    for family in FAMILIES:
        made = hwdb.load.modify(made, f"compute.{family}", 1.0)
        made = hwdb.load.modify(made, f"memory.{family}", 1.0)
    for name in ("kernel_overhead", "collective_overhead", "step_overhead"):
        made = hwdb.load.modify(made, name, 0.0)
    return replace(usual(gpu), calibration=hwdb.load.modify(made, "link", 1.0))


def log_uniform(low: float, high: float) -> st.SearchStrategy[int]:
    """Whole numbers, every order of magnitude as likely as the next."""
    exponents = st.floats(math.log(low), math.log(high), allow_nan=False)
    return exponents.map(lambda x: round(math.exp(x)))


gpus = st.sampled_from(GPUS)
decoders = st.sampled_from(DECODERS).map(architecture)
formats = st.sampled_from(["bf16", "fp8_wo", "awq"]).map(lambda name: SCHEMES[name])


@st.composite
def layouts(draw: Any, model: Architecture) -> Layout:
    """A legal layout of up to 32 GPUs."""
    sizes = st.sampled_from([1.0, 2.0, 4.0, 8.0])
    layout = Layout(tp=draw(sizes), pp=draw(st.sampled_from([1.0, 2.0])), dp=draw(sizes))
    layout = replace(layout, ep=draw(sizes))
    while legal(model, layout):
        smaller = {"ep": layout.ep / 2} if layout.ep > 1 else {"tp": layout.tp / 2}
        layout = replace(layout, **smaller)
    return layout


@st.composite
def token_groups(draw: Any) -> tuple[TokenGroup, ...]:
    """Decoding sequences, prompts, or both."""
    decode = TokenGroup(
        float(draw(log_uniform(1, 512))), 1.0, float(draw(log_uniform(1, 100_000))), "decode"
    )
    past = draw(st.one_of(st.just(0), log_uniform(1, 50_000)))
    prompt = TokenGroup(
        float(draw(log_uniform(1, 8))), float(draw(log_uniform(1, 8192))), float(past)
    )
    return draw(st.sampled_from([(decode,), (prompt,), (decode, prompt)]))


@st.composite
def closed_loops(draw: Any) -> dict[str, Any]:
    """A feasible-looking question with users in a closed loop."""
    name, tp = draw(
        st.sampled_from(
            [
                ("meta-llama/Llama-3.1-8B", 1),
                ("meta-llama/Llama-3.1-70B", 4),
                ("mistralai/Mixtral-8x7B-v0.1", 2),
                ("google/gemma-3-27b-it", 2),
                ("Qwen/Qwen3-Next-80B-A3B-Instruct", 4),
                ("nvidia/Nemotron-H-8B-Base-8K", 1),
            ]
        )
    )
    return {
        "model": name,
        "gpu": draw(st.sampled_from(["h100-sxm", "h200-sxm", "b200-sxm"])),
        "tensor_parallel_size": tp,
        "isl": draw(log_uniform(1, 6000)),
        "osl": draw(log_uniform(1, 2000)),
        "max_concurrency": draw(log_uniform(1, 600)),
        "max_num_batched_tokens": draw(st.sampled_from([512, 2048, 8192])),
    }
