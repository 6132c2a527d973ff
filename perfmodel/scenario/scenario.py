"""`Scenario`: one question, in the words users already know (vLLM's flags), numbers or arrays.

Every field is a command-line flag, a keyword of `perfmodel.estimate`, and a key of
``scenario.toml``. Kinds (model, GPU, formats) are names; numbers may be arrays that broadcast
together: the same object is one configuration or a million. `check` finds what is wrong before
anything is computed.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np

from hwdb.citation import Numeric
from perfmodel.core.errors import UsageError
from perfmodel.core.symbols import SYMBOLS, Symbol

DEFAULT_BUDGET = 8192.0  # vLLM v1's default max_num_batched_tokens for serving on large GPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A sizing question.

    Parameters
    ----------
    model : str
        Preset id, folder or file of a Hugging Face config.json, or a hub id.
    gpu, node : str
        Ids of the hardware database; the node defaults to the GPU's usual machine.
    tensor_parallel_size, pipeline_parallel_size, data_parallel_size, expert_parallel_size,
    context_parallel_size : numeric
        Layout of one replica.
    sequence_parallel : bool
        Divide the norms' tokens over the tensor-parallel ranks.
    num_gpus : numeric, optional
        All GPUs; a multiple of the layout's, the multiple being independent replicas.
    dtype, quantization, kv_cache_dtype : str
        vLLM's names; ``auto`` is what the checkpoint is published in.
    isl, osl, prefix : numeric
        Prompt tokens, output tokens, prompt tokens already in the prefix cache.
    max_concurrency : numeric, optional
        Users that always have one request in flight (closed loop).
    request_rate : numeric, optional
        Requests per second (Poisson arrivals); excludes ``max_concurrency``.
    max_num_seqs, max_num_batched_tokens, block_size, max_model_len : numeric
        Engine limits: sequences, tokens of a step, tokens of a cache page, longest sequence.
    gpu_memory_utilization : numeric
        Share of device memory the engine takes.
    price : float, optional
        Rent of one GPU [USD/h]; default: the median of the database's on-demand offers.
    calibration : str
        Which efficiencies to use.
    set : dict
        Overrides of cited values: ``{"gpu.memory.bandwidth": "6 TB/s"}`` (numbers in SI).
    ignore : tuple of str
        Unknown config.json keys to accept.
    """

    model: str
    gpu: str
    node: str | None = None
    num_gpus: Numeric | None = None
    tensor_parallel_size: Numeric = 1
    pipeline_parallel_size: Numeric = 1
    data_parallel_size: Numeric = 1
    expert_parallel_size: Numeric = 1
    context_parallel_size: Numeric = 1
    sequence_parallel: bool = False
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    isl: Numeric = 1024
    osl: Numeric = 256
    prefix: Numeric = 0
    max_concurrency: Numeric | None = None
    request_rate: Numeric | None = None
    max_num_seqs: Numeric = 256
    max_num_batched_tokens: Numeric = DEFAULT_BUDGET
    max_model_len: Numeric | None = None
    block_size: Numeric = 16
    gpu_memory_utilization: Numeric = 0.9
    price: float | None = None
    calibration: str = "uncalibrated"
    set: dict[str, str | Numeric] = field(default_factory=lambda: {})
    ignore: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse values no engine accepts.

        Raises
        ------
        UsageError
            Not a number, not finite, out of range, not whole; arrays that do not broadcast; or both
            load axes given.
        """
        for name, symbol in SYMBOL_OF.items():
            value = getattr(self, name)
            if value is not None:
                _check_number(name, value, SYMBOLS[symbol])
        shapes = {name: np.shape(value) for name, value in self.numbers().items()}
        try:
            np.broadcast_shapes(*shapes.values())
        except ValueError:
            given = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape)
            raise UsageError(f"arrays of shapes that do not broadcast: {given}") from None
        if self.max_concurrency is not None and self.request_rate is not None:
            raise UsageError("give --max-concurrency or --request-rate, not both")
        if np.any(np.asarray(self.prefix) >= np.asarray(self.isl)):
            raise UsageError(f"--prefix {self.prefix} must be shorter than --isl {self.isl}")

    def numbers(self) -> dict[str, Numeric]:
        """Numeric fields that are set, by name."""
        values = {name: getattr(self, name) for name in SYMBOL_OF}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain data, defaults included, unset ones left out."""
        plain = {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}
        return {key: value for key, value in plain.items() if value not in (None, {}, [])}


# Numeric field -> its row of the nomenclature, which holds meaning and legal range.
SYMBOL_OF: Final = {
    "num_gpus": "gpus",
    "tensor_parallel_size": "tp",
    "pipeline_parallel_size": "pp",
    "data_parallel_size": "dp",
    "expert_parallel_size": "ep",
    "context_parallel_size": "cp",
    "isl": "isl",
    "osl": "osl",
    "prefix": "prefix",
    "max_concurrency": "concurrency",
    "request_rate": "request_rate",
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "budget",
    "max_model_len": "context",
    "block_size": "page",
    "gpu_memory_utilization": "memory_utilization",
    "price": "price",
}
_SHOWN_IN = {"price": 3600.0}  # per hour at the edge, per second inside
NUMBERS = tuple(SYMBOL_OF)
KINDS = ("model", "gpu", "node", "dtype", "quantization", "kv_cache_dtype", "calibration",
         "sequence_parallel")  # fmt: skip


def _check_number(name: str, value: Any, row: Symbol) -> None:
    flag = "--" + name.replace("_", "-")
    scale = _SHOWN_IN.get(name, 1.0)
    low, high = row.low * scale, row.high * scale
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{flag} {value!r} is not a number") from None
    if isinstance(value, bool) or not np.all(np.isfinite(array)):
        raise UsageError(f"{flag} {value} is not a finite number")
    if np.any(array < low) or np.any(array > high):
        raise UsageError(f"{flag} {value} is out of range: from {low:g} to {high:g}")
    if row.whole and np.any(array != np.floor(array)):
        raise UsageError(f"{flag} {value} is not a whole number")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    if isinstance(value, tuple):
        return list(cast("tuple[Any, ...]", value))
    return value
