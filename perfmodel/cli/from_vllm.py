"""Read a ``vllm serve …`` command line into scenario fields.

Only flags that change performance are taken; the rest of vLLM's flags are named in a note on
stderr, so that nothing is dropped in silence.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

from perfmodel.core.errors import UsageError

# vLLM flag -> scenario field. Spellings: docs.vllm.ai, "vllm serve" reference.
_TAKEN = {
    "--model": "model",
    "--tensor-parallel-size": "tensor_parallel_size",
    "-tp": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "-pp": "pipeline_parallel_size",
    "--data-parallel-size": "data_parallel_size",
    "-dp": "data_parallel_size",
    "--dtype": "dtype",
    "--quantization": "quantization",
    "-q": "quantization",
    "--kv-cache-dtype": "kv_cache_dtype",
    "--max-num-seqs": "max_num_seqs",
    "--max-num-batched-tokens": "max_num_batched_tokens",
    "--max-model-len": "max_model_len",
    "--block-size": "block_size",
    "--gpu-memory-utilization": "gpu_memory_utilization",
}
_NUMERIC = {
    "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "max_num_seqs",
    "max_num_batched_tokens", "max_model_len", "block_size", "gpu_memory_utilization",
}  # fmt: skip
_SCHEMES = {
    "compressed-tensors": None,
    "modelopt": None,
    "awq_marlin": "awq",
    "gptq_marlin": "gptq",
    "modelopt_fp4": "nvfp4",
}


def parse(line: str) -> dict[str, Any]:
    """Scenario fields of a command line.

    Raises
    ------
    UsageError
        Not a ``vllm serve`` line, unbalanced quotes, or a value that is not a number.

    Examples
    --------
    >>> parse("vllm serve Qwen/Qwen3-32B -tp 2 --kv-cache-dtype fp8")["tensor_parallel_size"]
    2.0
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"--from-vllm: {error}") from None
    if words[:2] != ["vllm", "serve"]:
        raise UsageError("--from-vllm takes a line that begins with 'vllm serve'")
    words = words[2:]
    fields: dict[str, Any] = {}
    ignored: list[str] = []
    if words and not words[0].startswith("-"):
        fields["model"] = words.pop(0)
    while words:
        flag, _, value = words.pop(0).partition("=")
        has_value = bool(value) or (bool(words) and not words[0].startswith("-"))
        if flag == "--enable-expert-parallel":
            fields["expert_parallel_size"] = None
            continue
        if not value and has_value:
            value = words.pop(0)
        if flag not in _TAKEN:
            ignored.append(flag)
            continue
        if not value:
            raise UsageError(f"--from-vllm: {flag} has no value")
        name = _TAKEN[flag]
        fields[name] = _number(flag, value) if name in _NUMERIC else value
    if "expert_parallel_size" in fields:  # vLLM spreads experts over all tp x dp ranks
        tp, dp = fields.get("tensor_parallel_size", 1.0), fields.get("data_parallel_size", 1.0)
        fields["expert_parallel_size"] = tp * dp
    if fields.get("quantization") in _SCHEMES:
        fields["quantization"] = _SCHEMES[fields["quantization"]]
    if ignored:
        print(f"note: not used from the vLLM line: {' '.join(ignored)}", file=sys.stderr)
    return {name: value for name, value in fields.items() if value is not None}


def _number(flag: str, text: str) -> float:
    scales = {"k": 1e3, "K": 1024.0, "m": 1e6, "M": 1024.0**2}
    scale = scales.get(text[-1:], 1.0)
    try:
        return float(text[:-1] if text[-1:] in scales else text) * scale
    except ValueError:
        raise UsageError(f"--from-vllm: {flag} {text!r} is not a number") from None
