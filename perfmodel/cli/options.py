"""Scenario flags, written once: names, types and help for every command that takes a question.

The flags are the fields of `Scenario` in vLLM's spelling; `takes_scenario` gives them to a command,
so that all commands ask in the same way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args

from cyclopts import Group, Parameter

from perfmodel.core.errors import UsageError
from perfmodel.scenario.scenario import Scenario

WHAT, LAYOUT = Group("What runs where"), Group("Layout")
LOAD, ENGINE, OUTPUT = Group("Load"), Group("Engine and price"), Group("Output")

# field: (type, group, extra names, help)
_FLAGS: dict[str, tuple[Any, Group, tuple[str, ...], str]] = {
    "model": (str, WHAT, (), "preset id, config.json, folder, or hub id"),
    "gpu": (str, WHAT, ("--system",), "accelerator id (perfmodel hw ls)"),
    "node": (str, WHAT, (), "machine id; default: the GPU's usual one"),
    "num_gpus": (float, WHAT, (), "all GPUs; default: one replica of the layout"),
    "dtype": (str, WHAT, (), "auto, bfloat16, float16 or float32"),
    "quantization": (str, WHAT, ("-q",), "fp8, awq, nvfp4 …; default: the checkpoint's"),
    "kv_cache_dtype": (str, WHAT, (), "auto or a number format, e.g. fp8"),
    "tensor_parallel_size": (float, LAYOUT, ("-tp", "--tp-size"), "ranks that split heads and FFN"),
    "pipeline_parallel_size": (float, LAYOUT, ("-pp", "--pp-size"), "stages that split the layers"),
    "data_parallel_size": (float, LAYOUT, ("-dp", "--dp-size"), "ranks that split requests"),
    "expert_parallel_size": (float, LAYOUT, ("-ep", "--ep-size"), "ranks that split the experts"),
    "context_parallel_size": (float, LAYOUT, ("-cp",), "ranks that split each sequence's tokens"),
    "sequence_parallel": (bool, LAYOUT, (), "divide the norms' tokens over the -tp ranks"),
    "isl": (float, LOAD, ("--input-len", "--random-input-len"), "prompt tokens"),
    "osl": (float, LOAD, ("--output-len", "--random-output-len"), "output tokens"),
    "prefix": (float, LOAD, (), "prompt tokens already in the prefix cache"),
    "max_concurrency": (float, LOAD, ("--concurrency",), "requests always in flight (closed loop)"),
    "request_rate": (float, LOAD, (), "requests per second (Poisson); excludes --max-concurrency"),
    "max_num_seqs": (float, ENGINE, (), "most sequences an engine runs at once"),
    "max_num_batched_tokens": (float, ENGINE, (), "token budget of one step"),
    "max_model_len": (float, ENGINE, (), "longest sequence; default: the model's context"),
    "block_size": (float, ENGINE, (), "tokens per KV-cache page"),
    "gpu_memory_utilization": (float, ENGINE, (), "share of device memory the engine takes"),
    "price": (float, ENGINE, (), "USD per GPU-hour; default: median on-demand offer"),
    "calibration": (str, ENGINE, (), "efficiencies to use"),
}  # fmt: skip
_HELP = {
    "set": "PATH=VALUE, e.g. gpu.memory.bandwidth='6 TB/s'; repeatable; marks the answer modified",
    "from_vllm": "take model, layout and engine limits from a 'vllm serve …' command line",
}


def takes_scenario(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all scenario flags; it receives a `Scenario` as its first argument."""
    own = inspect.signature(command, eval_str=True)
    defaults = {name: item.default for name, item in Scenario.__dataclass_fields__.items()}
    flags = [_flag(name, defaults[name]) for name in _FLAGS]
    flags.append(_extra("set", Annotated[list[str] | None, Parameter(
        name="--set", help=_HELP["set"], negative=(), group=ENGINE)]))  # fmt: skip
    flags.append(_extra("from_vllm", Annotated[str | None, Parameter(
        name="--from-vllm", help=_HELP["from_vllm"], group=WHAT)]))  # fmt: skip
    rest = [item for name, item in own.parameters.items() if name != "scenario"]

    def wrapper(*args: Any, **given: Any) -> None:
        asked = {name: given.pop(name) for name in list(given) if name in _FLAGS}
        overrides, line = given.pop("set", None), given.pop("from_vllm", None)
        command(build(asked, overrides, line), *args, **given)

    wrapper.__doc__ = command.__doc__
    wrapper.__name__ = command.__name__
    positional = [item for item in rest if item.kind is not item.KEYWORD_ONLY]
    keyword = [item for item in rest if item.kind is item.KEYWORD_ONLY]
    wrapper.__signature__ = inspect.Signature([*positional, *flags, *keyword])  # pyright: ignore
    wrapper.__annotations__ = {
        item.name: item.annotation for item in [*positional, *flags, *keyword]
    }
    return wrapper


def build(asked: dict[str, Any], overrides: list[str] | None, vllm: str | None) -> Scenario:
    """Scenario from parsed flags; what a vLLM line says yields to flags given beside it.

    Raises
    ------
    UsageError
        Model or GPU missing, a malformed ``--set`` or vLLM line.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if vllm is not None:
        from perfmodel.cli.from_vllm import parse

        given = parse(vllm) | given
    for name in ("model", "gpu"):
        if name not in given:
            raise UsageError(f"--{name} is missing")
    return Scenario(**given, set=_overrides(overrides or []))


def _overrides(items: list[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for item in items:
        path, equals, value = item.partition("=")
        if not equals or not value.strip():
            raise UsageError(
                f"--set {item!r} is not PATH=VALUE, like gpu.memory.bandwidth='6 TB/s'"
            )
        parsed[path.strip()] = value.strip()
    return parsed


def _flag(name: str, default: Any) -> inspect.Parameter:
    kind, group, names, text = _FLAGS[name]
    shown = ""
    if isinstance(default, (int, float, str)) and default is not False:
        text_of = default if isinstance(default, str) else f"{default:g}"
        shown = f" [default: {text_of}]"
    flag = Parameter(name=(f"--{name.replace('_', '-')}", *names), help=text + shown,
                     group=group, show_default=False, negative=())  # fmt: skip
    # None means "not given", so that a pasted vLLM line can be told from a default.
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None,
                             annotation=Annotated[kind | None, flag])  # fmt: skip


def _extra(name: str, annotation: Any) -> inspect.Parameter:
    assert get_args(annotation)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
