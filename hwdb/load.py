"""Find and read hardware files: the path is the id, ``base =`` inherits, users may add folders.

Search order: the files shipped here, packages that registered an entry point in group
``perfmodel.hwdb`` (a module whose folder has the same layout), then the folder named by the
environment variable ``PERFMODEL_HWDB``. One id may be defined once; a variant says ``base``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from hwdb import schema, units
from hwdb.citation import Cited, Numeric
from hwdb.records import KINDS, Calibration, Cpu, Dtype, Fabric, Gpu, Node, Prices, Storage
from hwdb.schema import HwdbError

ENTRY_POINTS = "perfmodel.hwdb"
USER_FOLDER = "PERFMODEL_HWDB"
_HERE = Path(__file__).parent
_MAX_DEPTH = 4
_MAX_BYTES = 1_000_000
# Costs may be set to nothing; a rate, a size or a share of a peak that is zero is a division by it.
_MAY_BE_ZERO = ("latency", "overhead", "idle", "_power", "_memory")


class NotFound(LookupError):
    """No such thing in the database; the message names the nearest ids."""


def gpu(name: str) -> Gpu:
    """Accelerator by id or alias (case, ``_`` and vendor prefix do not matter).

    >>> gpu("H100_SXM").id
    'h100-sxm'
    """
    return cast(Gpu, get("gpus", name))


def cpu(name: str) -> Cpu:
    """CPU socket by id or alias."""
    return cast(Cpu, get("cpus", name))


def node(name: str) -> Node:
    """Machine by id or alias."""
    return cast(Node, get("nodes", name))


def fabric(name: str) -> Fabric:
    """Interconnect by id or alias."""
    return cast(Fabric, get("fabrics", name))


def storage(name: str) -> Storage:
    """Storage tier by id or alias."""
    return cast(Storage, get("storage", name))


def prices(gpu_id: str) -> Prices:
    """Dated offers for one accelerator."""
    return cast(Prices, get("prices", gpu_id))


def calibration(name: str = "uncalibrated") -> Calibration:
    """Achieved efficiencies of a machine and software stack, or the cited defaults."""
    return cast(Calibration, get("calibrations", name))


def get(kind: str, name: str) -> Any:
    """Record of a kind by id or alias.

    Raises
    ------
    NotFound
        Unknown name; near names are listed.
    HwdbError
        The file (or one it inherits from) breaks the schema.
    """
    wanted = _normal(name)
    files = _files(kind, _roots())
    if wanted in files:
        return _record(kind, wanted, _roots())
    for known in files:
        if wanted in map(_normal, _items(_table(kind, known, _roots()).get("aliases", []))):
            return _record(kind, known, _roots())
    near = difflib.get_close_matches(wanted, files, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise NotFound(f"no {kind.removesuffix('s')} named {name!r}{hint} (perfmodel hw ls {kind})")


def ls(kind: str) -> list[str]:
    """Sorted ids of a kind."""
    if kind not in KINDS:
        raise NotFound(f"no kind {kind!r} of hardware; kinds are {', '.join(KINDS)}")
    return sorted(_files(kind, _roots()))


def cited(record: Any, prefix: str = "") -> Iterator[tuple[str, Cited]]:
    """Walk all cited values of a record with their dotted path."""
    if isinstance(record, Cited):
        yield prefix, record
    elif dataclasses.is_dataclass(record):
        for item in dataclasses.fields(record):
            yield from cited(getattr(record, item.name), f"{prefix}.{item.name}".lstrip("."))
    elif isinstance(record, dict):
        for key, value in cast("dict[str, Any]", record).items():
            yield from cited(value, f"{prefix}.{key}")
    elif isinstance(record, tuple):
        for index, value in enumerate(cast("tuple[Any, ...]", record)):
            yield from cited(value, f"{prefix}.{index}")


def modify(record: Any, path: str, value: str | Numeric) -> Any:
    """Copy of a record with one cited value replaced; marked *modified*.

    Parameters
    ----------
    record : a record of this database
    path : str
        Dotted path, ``memory.bandwidth`` or ``peak.fp4`` (a new dtype may be added to a datapath).
    value : str or numeric
        Written quantity, or a number or array in SI.

    Raises
    ------
    NotFound
        No such field; the cited fields are listed.
    hwdb.units.UnitError
        Unit of the wrong dimension, or a value that no part can have.
    """
    known = dict(cited(record))
    head, _, leaf = path.rpartition(".")
    siblings = [row for name, row in known.items() if name.rpartition(".")[0] == head]
    is_new_dtype = head in ("peak", "vector") and leaf in get_args(Dtype) and path not in known
    if path not in known and not (is_new_dtype and siblings):
        near = difflib.get_close_matches(path, known, n=3, cutoff=0.4) or sorted(known)
        raise NotFound(f"{record.id} has no cited field {path!r}; nearest: {', '.join(near)}")
    old = siblings[0] if is_new_dtype else known[path]
    si = units.parse(value, old.dimension) if isinstance(value, str) else value
    text = value if isinstance(value, str) else ""
    least = "not negative" if path.endswith(_MAY_BE_ZERO) else "above zero"
    if not np.all(np.isfinite(si) & ((si > 0) | ((si == 0) & (least == "not negative")))):
        raise units.UnitError(f"{value} must be finite and {least}")
    new = Cited(si, old.dimension, text, "modified", where=f"{record.id}: {path}")
    return _replaced(record, path.split("."), new, leaf)


def _replaced(record: Any, steps: list[str], new: Cited, leaf: str) -> Any:
    if isinstance(record, dict):
        return cast("dict[str, Any]", record) | {leaf: new}
    if isinstance(record, tuple):
        rows = list(cast("tuple[Any, ...]", record))
        rows[int(steps[0])] = _replaced(rows[int(steps[0])], steps[1:], new, leaf)
        return tuple(rows)
    if len(steps) == 1:
        return dataclasses.replace(record, **{steps[0]: new})
    child = _replaced(getattr(record, steps[0]), steps[1:], new, leaf)
    return dataclasses.replace(record, **{steps[0]: child})


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-").rsplit("/", 1)[-1]


def _items(value: Any) -> list[str]:
    """Items of a list as text; anything else is a list of one (the schema reports wrong types)."""
    return [str(x) for x in (cast("list[Any]", value) if isinstance(value, list) else [value])]


def _roots() -> tuple[Path, ...]:
    user = os.environ.get(USER_FOLDER)
    if user and not Path(user).is_dir():
        raise HwdbError(f"{USER_FOLDER}={user} is not a folder")
    return (_HERE, *_plugins(), *([Path(user)] if user else []))


@functools.cache
def _plugins() -> tuple[Path, ...]:
    from importlib.metadata import entry_points

    found = [point.load() for point in entry_points(group=ENTRY_POINTS)]
    return tuple(Path(module.__path__[0]) for module in found)


@functools.cache
def _files(kind: str, roots: tuple[Path, ...]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for root in roots:
        for path in sorted((root / kind).rglob("*.toml")):
            name = _normal(path.stem)
            if name in files:
                raise HwdbError(f"{path} and {files[name]} define the same id {name!r}")
            files[name] = path
    return files


@functools.cache
def _table(kind: str, name: str, roots: tuple[Path, ...], depth: int = 0) -> dict[str, Any]:
    """The parsed file with everything it inherits, ``id`` (and ``vendor``) from the path."""
    path = _files(kind, roots)[name]
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise HwdbError(f"{path}: larger than {_MAX_BYTES} bytes")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise HwdbError(f"{path}: {error}") from None
    base, omit = table.pop("base", None), table.pop("omit", [])
    table.pop("$schema", None)
    if base is not None:
        base = _normal(str(base))
        if base not in _files(kind, roots) or depth >= _MAX_DEPTH:
            reason = "bases nest too deep" if depth >= _MAX_DEPTH else "no such base"
            raise HwdbError(f"{path}: base {base!r}: {reason}")
        inherited = dict(_table(kind, base, roots, depth + 1))
        inherited.pop("aliases", None)
        for key in _items(omit):
            if inherited.pop(key, None) is None:
                raise HwdbError(f"{path}: omit lists keys of {base!r}; it has no {key!r}")
        table = _merged(inherited, table)
    table["id"] = name
    if "vendor" in KINDS[kind].__dataclass_fields__:
        table["vendor"] = path.parent.name
    return table


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep merge in which a cited value replaces its ancestor whole."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        if both and not ({"value", "unknown"} & (set(old) | set(value))):  # pyright: ignore
            result[key] = _merged(cast("dict[str, Any]", old), cast("dict[str, Any]", value))
        else:
            result[key] = value
    return result


@functools.cache
def _record(kind: str, name: str, roots: tuple[Path, ...]) -> Any:
    record = schema.read(kind, _table(kind, name, roots), str(_files(kind, roots)[name].name))
    for path, value in cited(record):
        object.__setattr__(value, "where", f"{name}: {kind.removesuffix('s')}.{path}")
        for key in (value.source, *value.checked):
            if key and key not in record.sources:
                raise HwdbError(f"{name}.toml: {path}: source {key!r} is not in [sources]")
    return record
