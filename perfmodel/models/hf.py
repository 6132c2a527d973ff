"""Reading a Hugging Face ``config.json``: architecture and checkpoint precision, or one clear line.

Families (`perfmodel.models.families`) know the keys; this module gets the file safely, picks the
family by ``model_type`` and reads the quantisation. Weights are never downloaded.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from perfmodel.core.errors import DataError, near
from perfmodel.core.registry import Registry
from perfmodel.models.architecture import Architecture
from perfmodel.models.blocks import MoeFfn
from perfmodel.models.families._config import Config, Family, Reader

MAX_BYTES: Final = 4 * 2**20
"""Largest configuration file that is read; real ones are a few kilobytes."""

FAMILIES: Final[Registry[Family]] = Registry("perfmodel.models.families", "FAMILY", "model family")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DTYPES: Final = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32"}


def load(source: str | Path, ignore: Sequence[str] = ()) -> tuple[Architecture, str]:
    """Architecture and checkpoint precision scheme of a model given by its configuration.

    Parameters
    ----------
    source : str or Path
        A ``config.json``, a folder that holds one, or (with the ``hf`` extra) an ``org/name`` of
        the Hugging Face hub, of which ``config.json`` alone is fetched.
    ignore : sequence of str
        Unknown keys that are accepted because they change no shape.

    Returns
    -------
    architecture : Architecture
        Shapes; multi-token-prediction layers under ``mtp``, towers only if the file describes them.
    scheme : str
        Name in `perfmodel.core.precision.SCHEMES`. A file that names no data type counts as
        ``bf16``, which is what engines run.

    Raises
    ------
    perfmodel.core.errors.DataError
        No such file, too large, not JSON, an unknown ``model_type``, a key that is missing,
        mistyped, out of range or unknown, an unknown quantisation.
    """
    path, name = _locate(source)
    table = _parsed(path)
    beside = path.with_name(path.name.replace("config.json", "hf_quant_config.json"))
    if beside != path and beside.is_file() and "quantization_config" not in table:
        table = {**table, "quantization_config": _nested(_parsed(beside), "quantization", beside)}
    return read(table, name, str(path), ignore)


def read(
    table: Mapping[str, object], name: str, where: str = "config", ignore: Sequence[str] = ()
) -> tuple[Architecture, str]:
    """The same from a parsed configuration.

    Examples
    --------
    >>> sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    >>> sizes |= {"intermediate_size": 96, "vocab_size": 100, "max_position_embeddings": 512}
    >>> read({"model_type": "llama", **sizes}, "tiny")[0].parameters
    82752
    """
    config = Config(table, name, where)
    kind = config.text("model_type")
    reader = _readers().get(kind)
    if reader is None:
        known = ", ".join(_readers())
        raise DataError(
            f"{where}: model_type {kind!r} is not known{near(kind, _readers())} (known: {known})"
        )
    architecture = reader(config)
    for run in architecture.runs:
        ffn = run.layer.ffn
        if isinstance(ffn, MoeFfn) and ffn.top_k > ffn.experts:
            raise DataError(f"{where}: a token cannot use {ffn.top_k} of {ffn.experts} experts")
    config.finish(ignore)
    return architecture, checkpoint_scheme(table, where)


@functools.cache
def _readers() -> dict[str, Reader]:
    found: dict[str, Reader] = {}
    for family in FAMILIES.values():
        if clash := found.keys() & family.readers.keys():
            raise ValueError(f"two families read {', '.join(sorted(clash))}")
        found.update(family.readers)
    return dict(sorted(found.items()))


def _locate(source: str | Path) -> tuple[Path, str]:
    """File to read and name of the model."""
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return path / "config.json", path.resolve().name
        if path.exists():
            stem = path.name.removesuffix(".json").removesuffix("config").rstrip("_-.")
            return path, (stem or path.resolve().parent.name).replace("--", "/")
    except (OSError, ValueError) as error:
        raise DataError(f"{str(source)[:200]!r} is not a readable path ({error})") from None
    text = str(source)
    if _HUB_ID.fullmatch(text) is None or text.endswith(".json"):
        raise DataError(f"{text}: no such file or folder; give a config.json or its folder")
    return _fetch(text), text


def _fetch(name: str) -> Path:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise DataError(
            f"{name}: reading from the Hugging Face hub needs pip install 'perfmodel[hf]'; "
            "or give a config.json"
        )
    hub = cast(Any, importlib.import_module("huggingface_hub"))
    try:
        return Path(hub.hf_hub_download(name, "config.json"))
    except Exception as error:  # whatever the client or the network raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{name}: config.json could not be fetched: {reason}") from None


def _parsed(path: Path) -> dict[str, object]:
    content = _content(path)
    try:
        table: object = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: not a JSON text ({type(error).__name__})") from None
    if not isinstance(table, dict):
        raise DataError(f"{path}: holds a {type(table).__name__}, must be a JSON object")
    return cast("dict[str, object]", table)


def _content(path: Path) -> str:
    try:
        size, regular = path.stat().st_size, path.is_file()
        if regular and size <= MAX_BYTES:
            return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a JSON text (not UTF-8)") from None
    if not regular:
        raise DataError(f"{path}: not a regular file")
    raise DataError(
        f"{path}: {size:,} bytes is no configuration (limit {MAX_BYTES:,}); "
        "give the config.json, not the weights"
    )


def _nested(table: Mapping[str, object], key: str, where: object) -> dict[str, object]:
    found = table.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DataError(f"{where}: {key} must be an object")
    return cast("dict[str, object]", found)


def checkpoint_scheme(table: Mapping[str, object], where: str) -> str:
    """Precision scheme of the published weights, from ``quantization_config`` or ``torch_dtype``.

    Raises
    ------
    perfmodel.core.errors.DataError
        A method or data type that names no scheme of `perfmodel.core.precision.SCHEMES`.
    """
    text = _nested(table, "text_config", where)
    for part in (table, text):
        quantization = _nested(part, "quantization_config", where)
        if quantization:
            found = _quantised(quantization, where)
            # DeepSeek-V4: experts in MXFP4 inside a checkpoint that calls itself fp8
            return "fp8_mxfp4_experts" if part.get("expert_dtype") == "fp4" else found
    for part in (table, text):
        dtype = part.get("dtype") or part.get("torch_dtype")
        if dtype is not None:
            name = str(dtype).removeprefix("torch.")
            if name not in _DTYPES:
                raise DataError(f"{where}: dtype {name!r} is not one of {', '.join(_DTYPES)}")
            return _DTYPES[name]
    return "bf16"


def _quantised(table: Mapping[str, object], where: str) -> str:
    method = str(table.get("quant_method") or "").lower()
    algorithm = str(table.get("quant_algo") or "").lower()
    if method == "modelopt" or (not method and algorithm):
        found = _MODELOPT.get(algorithm) or _refuse(where, "quant_algo", algorithm, _MODELOPT)
        return "nvfp4_experts" if found == "nvfp4" and _keeps_attention(table) else found
    if method == "fp8":
        return "fp8_block" if table.get("weight_block_size") else "fp8"
    if method == "compressed-tensors":
        return _compressed(table, where)
    if method in ("awq", "gptq"):
        bits = table.get("bits", table.get("w_bit", 4))
        if bits != 4:
            raise DataError(f"{where}: {method} with {bits} bits has no precision scheme, only 4")
        return method
    if method == "bitsandbytes" and table.get("load_in_8bit") is True:
        return "int8"
    return _METHODS.get(method) or _refuse(where, "quant_method", method, _METHODS)


def _compressed(table: Mapping[str, object], where: str) -> str:
    """Scheme of a compressed-tensors group: bits and type of weights, whether activations join."""
    groups = list(_nested(table, "config_groups", where).values())
    group = cast("dict[str, object]", groups[0]) if groups and isinstance(groups[0], dict) else {}
    weights, inputs = (_nested(group, key, where) for key in ("weights", "input_activations"))
    row = (weights.get("type"), weights.get("num_bits"), inputs.get("num_bits"))
    if row == ("float", 8, 8) and weights.get("strategy") == "block":
        return "fp8_block"
    if row == ("int", 4, None) and _experts_only(table):
        return "int4_experts"
    scheme = _COMPRESSED.get(cast(Any, row))
    if scheme is None:
        kind, bits, activation = row
        raise DataError(
            f"{where}: compressed-tensors with {bits}-bit {kind} weights and "
            f"{activation}-bit activations has no precision scheme"
        )
    return scheme


def _experts_only(table: Mapping[str, object]) -> bool:
    """Whether attention and shared experts are left out, as in Kimi-K2's INT4 checkpoints."""
    return _keeps_attention(table) and any("shared_experts" in name for name in _kept(table))


def _keeps_attention(table: Mapping[str, object]) -> bool:
    """Whether attention, output projection included, stays in the base format."""
    endings = ("self_attn", "self_attn*", "self_attn.*", "o_proj")
    return any(name.endswith(endings) for name in _kept(table))


def _kept(table: Mapping[str, object]) -> list[str]:
    """Modules that are not quantised."""
    kept = table.get("ignore") or table.get("exclude_modules")
    return [str(item) for item in cast("list[object]", kept)] if isinstance(kept, list) else []


def _refuse(where: str, key: str, value: str, known: Mapping[str, str]) -> NoReturn:
    raise DataError(f"{where}: {key} {value!r} is not known{near(value, known)}")


_METHODS: Final = {
    "mxfp4": "mxfp4",
    "mxfp8": "mxfp8",
    "fbgemm_fp8": "fp8",
    "w4a8_awq": "w4a8",
    "w8a8_int8": "int8",
    "fp8": "fp8",
    "awq": "awq",
    "gptq": "gptq",
    "compressed-tensors": "",
    "modelopt": "",
}
_MODELOPT: Final = {
    "fp8": "fp8",
    "fp8_pb_wo": "fp8_block",
    "fp8_block_scales": "fp8_block",
    "nvfp4": "nvfp4",
    "mxfp8": "mxfp8",
    "w4a16_awq": "awq",
    "w4a8_awq": "w4a8",
    "w8a16": "int8_wo",
    "w8a8_sq_per_channel": "int8",
    "mxfp4": "mxfp4",
}
_COMPRESSED: Final = {
    ("float", 8, 8): "fp8",
    ("float", 8, None): "fp8_wo",
    ("int", 8, 8): "int8",
    ("int", 8, None): "int8_wo",
    ("int", 4, None): "gptq",
    ("int", 4, 8): "w4a8",
    ("float", 4, 4): "nvfp4",
}
