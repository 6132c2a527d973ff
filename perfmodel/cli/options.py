"""Scenario flags, written once: names, types and help for every command that takes a question.

The flags are the fields of `Scenario` in vLLM's spelling; `takes_scenario` gives them to a command,
so that all commands ask in the same way. `takes` does the same with any dataclass whose docstring
says what its fields mean.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from cyclopts import Group, Parameter

from perfmodel.core.errors import UsageError
from perfmodel.core.symbols import SYMBOLS
from perfmodel.scenario.scenario import SYMBOL_OF, Scenario

WHAT, LOAD, LAYOUT, ENGINE, OUTPUT = (
    Group(title, sort_key=place)
    for place, title in enumerate(
        ("What runs where", "Load", "Layout", "Engine and price", "Output"), start=1
    )
)

# field: (group, further names, what to add to its meaning in the nomenclature)
_NUMBERS: dict[str, tuple[Group, tuple[str, ...], str]] = {
    "num_gpus": (WHAT, (), "default: one replica of the layout"),
    "tensor_parallel_size": (LAYOUT, ("-tp", "--tp-size"), ""),
    "pipeline_parallel_size": (LAYOUT, ("-pp", "--pp-size"), ""),
    "data_parallel_size": (LAYOUT, ("-dp", "--dp-size"), ""),
    "expert_parallel_size": (LAYOUT, ("-ep", "--ep-size"), ""),
    "context_parallel_size": (LAYOUT, ("-cp",), ""),
    "isl": (LOAD, ("--input-len", "--random-input-len"), ""),
    "osl": (LOAD, ("--output-len", "--random-output-len"), ""),
    "prefix": (LOAD, (), ""),
    "max_concurrency": (LOAD, ("--concurrency",), ""),
    "request_rate": (LOAD, (), "Poisson arrivals; excludes --max-concurrency"),
    "max_num_seqs": (ENGINE, (), ""),
    "max_num_batched_tokens": (ENGINE, (), ""),
    "max_model_len": (ENGINE, (), "default: the model's context"),
    "block_size": (ENGINE, (), ""),
    "gpu_memory_utilization": (ENGINE, (), ""),
    "price": (ENGINE, (), "in USD per hour; default: median on-demand offer"),
}
# field: (type, group, further names, help)
_NAMES: dict[str, tuple[Any, Group, tuple[str, ...], str]] = {
    "model": (str, WHAT, (), "preset id, config.json, folder, or hub id"),
    "gpu": (str, WHAT, ("--system",), "accelerator id (perfmodel hw ls)"),
    "node": (str, WHAT, (), "machine id; default: the GPU's usual one"),
    "dtype": (str, WHAT, (), "auto, bfloat16, float16 or float32"),
    "quantization": (str, WHAT, ("-q",), "fp8, awq, nvfp4 …; default: the checkpoint's"),
    "kv_cache_dtype": (str, WHAT, (), "auto or a number format, e.g. fp8"),
    "sequence_parallel": (bool, LAYOUT, (), "divide the norms' tokens over the -tp ranks"),
    "calibration": (str, ENGINE, (), "efficiencies to use"),
}
_FLAGS = (*_NAMES, *_NUMBERS)
_HELP = {
    "ignore": "unknown config.json key to accept because it changes no shape; repeatable",
    "set": "PATH=VALUE, e.g. gpu.memory.bandwidth='6 TB/s'; repeatable; marks the answer modified",
    "from_vllm": "take model, layout and engine limits from a 'vllm serve …' command line",
}


def takes_scenario(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all scenario flags; it receives a `Scenario` as its first argument.

    A flag that the command declares itself stays the command's.
    """
    own = inspect.signature(command, eval_str=True)  # what `takes` has added included
    names = [name for name in _FLAGS if name not in own.parameters]
    defaults = {name: item.default for name, item in Scenario.__dataclass_fields__.items()}
    flags = [_flag(name, defaults[name]) for name in names]
    flags.append(_extra("ignore", Annotated[list[str] | None, Parameter(
        name="--ignore-key", help=_HELP["ignore"], negative=(), group=WHAT)]))  # fmt: skip
    flags.append(_extra("set", Annotated[list[str] | None, Parameter(
        name="--set", help=_HELP["set"], negative=(), group=ENGINE)]))  # fmt: skip
    flags.append(_extra("from_vllm", Annotated[str | None, Parameter(
        name="--from-vllm", help=_HELP["from_vllm"], group=WHAT)]))  # fmt: skip
    rest = [item for name, item in own.parameters.items() if name != "scenario"]

    def wrapper(*args: Any, **given: Any) -> None:
        asked = {name: given.pop(name) for name in list(given) if name in names}
        asked["ignore"] = tuple(given.pop("ignore", None) or ())
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


def takes(
    group: Group, names: Mapping[str, tuple[str, ...]] | None = None, **kinds: type[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each field of some dataclasses; it receives one object of each.

    Parameters
    ----------
    group : Group
        Where the flags stand in the help.
    names : mapping, optional
        Further spellings of a field's flag; the first replaces the usual one if it ends in ``=``.
    **kinds : dataclass
        Argument of the command, and its type. Fields are documented in the class's docstring.
    """

    def given_to(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        owner: dict[str, str] = {}
        flags: list[inspect.Parameter] = []
        for argument, kind in kinds.items():
            meanings = documented(kind)
            for item in dataclasses.fields(kind):
                owner[item.name] = argument
                flags.append(_field(item, meanings[item.name], group, (names or {})))

        def wrapper(*args: Any, **given: Any) -> None:
            asked: dict[str, dict[str, Any]] = {argument: {} for argument in kinds}
            for name in [name for name in given if name in owner]:
                value = given.pop(name)
                if value is not None:
                    value = tuple(cast("list[str]", value)) if isinstance(value, list) else value
                    asked[owner[name]][name] = value
            made = {argument: kinds[argument](**fields) for argument, fields in asked.items()}
            command(*args, **made, **given)

        wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
        rest = [item for name, item in own.parameters.items() if name not in kinds]
        wrapper.__signature__ = inspect.Signature([*rest, *flags])  # pyright: ignore
        return wrapper

    return given_to


def documented(kind: type[Any]) -> dict[str, str]:
    """Meaning of each field, from the Parameters of a class's numpydoc docstring.

    >>> documented(Scenario)["price"].split(";")[0]
    'Rent of one GPU [USD/h]'
    """
    found: dict[str, str] = {}
    names: list[str] = []
    lines = inspect.cleandoc(kind.__doc__ or "").partition("----------\n")[2].splitlines()
    for line in lines:
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            found |= dict.fromkeys(names, "")
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def _field(
    item: dataclasses.Field[Any], meaning: str, group: Group, names: Mapping[str, tuple[str, ...]]
) -> inspect.Parameter:
    kind, default = item.type, item.default
    if isinstance(kind, str):
        kind = eval(kind, {"Literal": Literal})  # the classes postpone their annotations
    many = get_origin(kind) is tuple
    flag, further = "--" + item.name.replace("_", "-"), names.get(item.name, ())
    if further and further[0].endswith("="):
        flag, further = further[0][:-1], further[1:]
    shown = meaning.replace("``", "").replace("`", "").rstrip(".")
    if isinstance(default, (int, float, str)) and not isinstance(default, bool):
        shown += f" [default: {default}]"
    parameter = Parameter(
        name=(flag, *further), help=shown, group=group, show_default=False,
        negative=None if "bool" in str(kind) and default is None else (),
    )  # fmt: skip
    wanted = list[str] if many else kind
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=None,
                             annotation=Annotated[wanted | None, parameter])  # fmt: skip


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
    if name in _NAMES:
        kind, group, names, text = _NAMES[name]
    else:
        kind = float
        group, names, more = _NUMBERS[name]
        text = SYMBOLS[SYMBOL_OF[name]].meaning + (f"; {more}" if more else "")
    if isinstance(default, (int, float, str)) and default is not False:
        text += f" [default: {default if isinstance(default, str) else format(default, 'g')}]"
    flag = Parameter(name=(f"--{name.replace('_', '-')}", *names), help=text, group=group,
                     show_default=False, negative=())  # fmt: skip
    # None means "not given", so that a pasted vLLM line can be told from a default.
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None,
                             annotation=Annotated[kind | None, flag])  # fmt: skip


def _extra(name: str, annotation: Any) -> inspect.Parameter:
    assert get_args(annotation)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
