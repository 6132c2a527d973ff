"""Work and memory of published models, frozen: a change of any number shows up as a diff to review.

Only counts are kept (FLOPs, bytes), no times: those follow the calibration. After a wanted change
run ``python tests/golden/test_work.py`` and read the diff of ``work.json``.
"""

import json
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("work.json")
MODELS = (
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-405B",
    "Qwen/Qwen3-32B",
    "mistralai/Mixtral-8x7B-v0.1",
    "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.2",
    "openai/gpt-oss-120b",
    "google/gemma-3-27b-it",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "nvidia/Nemotron-H-8B-Base-8K",
)


def counts(name: str) -> dict[str, float]:
    """A decode step of 32 sequences behind 4096 tokens, a prompt of 4096, and what they hold."""
    from perfmodel.core.precision import SCHEMES
    from perfmodel.core.types import TokenGroup
    from perfmodel.memory.fit import checkpoint_bytes, sequence_bytes
    from perfmodel.models import preset
    from perfmodel.operators.model import step_operators
    from perfmodel.parallel.layout import Layout

    known = preset.load(name)
    precision = SCHEMES[known.facts.checkpoint]
    groups = {
        "decode": TokenGroup(32.0, 1.0, 4096.0, "decode"),
        "prefill": TokenGroup(1.0, 4096.0, 0.0),
    }
    found: dict[str, float] = {
        "checkpoint_bytes": checkpoint_bytes(known.architecture, precision),
        "cache_bytes_of_4096": sequence_bytes(
            known.architecture, Layout(), precision, 4096.0, 16.0
        ),
    }
    for phase, group in groups.items():
        kernels = list(step_operators(known.architecture, Layout(), precision, [group]))
        for what in ("flops", "weight_bytes", "kv_bytes", "activation_bytes", "index_bytes"):
            found[f"{phase}_{what}"] = float(sum(k.count * getattr(k, what) for k in kernels))
    return {key: float(f"{value:.12g}") for key, value in found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_counts_have_not_changed(name: str) -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    assert set(golden) == set(MODELS)
    assert counts(name) == pytest.approx(golden[name], rel=1e-9)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    table = {name: counts(name) for name in MODELS}
    FILE.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
