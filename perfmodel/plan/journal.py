"""`Journal`: rows on disk as they come, so that a killed sweep loses only what was being run.

JSON lines: a header that names the format, the function and the version, then one row per line with
the digest of its task. Each line is one write; a last line that a crash has torn is cut off on
opening. Floats come back bit for bit (nan and infinities in Python's spelling, ``NaN``).
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import DataError, UsageError
from perfmodel.core.version import VERSION

Row = dict[str, float | int | str | None]

_FORMAT = "perfmodel/journal/1"


class Journal:
    """Rows by the digest of their task, on disk and in memory; a context manager.

    Parameters
    ----------
    path : Path
        Made where it does not exist.
    function : callable
        What makes the rows; a journal of another function, or of another version of perfmodel, is
        refused.

    Attributes
    ----------
    rows : dict
        Digest to row.

    Raises
    ------
    DataError
        The file cannot be read or written, is no journal, or is one of other work.
    """

    def __init__(self, path: Path, function: Callable[[Any], Any]) -> None:
        self.rows: dict[str, Row] = {}
        self._path = path
        header = {"format": _FORMAT, "version": VERSION, "function": digest(function)}
        start = _line(header)
        try:
            # unbuffered, at the end: a line is there as a whole or, after a crash, torn
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise DataError(f"journal {path}: {error.strerror}") from None
        try:
            if not path.is_file():  # a pipe or device has no end to read to
                raise DataError(f"journal {path}: is not a regular file")
            text = path.read_bytes()
            if start.startswith(text):  # new, or torn in its first line
                self._resize(0)
                self._write(start)
            else:
                self._read(text, header)
        except BaseException:
            self._file.close()
            raise

    def key(self, task: Any) -> str:
        """Digest of a task."""
        return digest(task)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Write a row down."""
        plain = {name: _plain(name, value) for name, value in row.items()}
        self._write(_line({"task": key, "row": plain}))
        self.rows[key] = plain

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._file.close()

    def _read(self, text: bytes, header: dict[str, str]) -> None:
        whole, _, torn = text.rpartition(b"\n")
        lines = whole.split(b"\n")
        try:
            found = json.loads(lines[0])
        except ValueError:
            found = None
        if not isinstance(found, dict) or cast(Any, found).get("format") != _FORMAT:
            raise DataError(f"journal {self._path}: is another kind of file; it stays as it is")
        if found != header:
            raise DataError(
                f"journal {self._path}: holds the rows of another function or of another version "
                f"(perfmodel {cast(Any, found).get('version')}); name a new file"
            )
        for number, line in enumerate(lines[1:], 2):
            try:
                entry = json.loads(line)
                self.rows[entry["task"]] = dict(entry["row"])
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"journal {self._path}, line {number}: is damaged; delete the line, and its "
                    "task runs again"
                ) from None
        if torn:
            self._resize(len(whole) + 1)

    def _write(self, line: bytes) -> None:
        try:
            written = self._file.write(line)
        except OSError as error:
            raise DataError(f"journal {self._path}: {error.strerror}") from None
        if written != len(line):
            raise DataError(f"journal {self._path}: the disk took only part of a row")

    def _resize(self, size: int) -> None:
        try:
            os.truncate(self._path, size)
        except OSError as error:
            raise DataError(f"journal {self._path}: {error.strerror}") from None


def digest(value: Any) -> str:
    """Name of a value by its contents: the same in every process and on every machine.

    Equal contents have equal digests; lists and tuples are alike, and so are NumPy's and Python's
    numbers; 1, 1.0 and True are not.

    Raises
    ------
    UsageError
        A value whose contents are not known: an object that is neither a dataclass nor plain, or a
        function that is not defined at the top of a module.

    Examples
    --------
    >>> digest({"rate": 2.0, "seed": 1}) == digest({"seed": 1, "rate": 2.0})
    True
    >>> digest([1, 2]) == digest([1, 2.0])
    False
    """
    hashed = hashlib.sha256()
    for part in _parts(value):  # each with its length, so that no two sequences run together
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return hashed.hexdigest()[:32]


def _parts(value: Any) -> Iterable[bytes]:
    """Contents of a value, each kind under its own name."""
    value = _python(value)
    if isinstance(value, enum.Enum):
        yield from (b"enum", _name(type(value)), value.name.encode())
    elif isinstance(value, float):
        yield from (b"float", value.hex().encode())
    elif value is None or isinstance(value, (bool, int, str, bytes, complex)):
        yield from (type(value).__name__.encode(), repr(value).encode())
    elif _is_array(value):
        array = cast(NDArray[Any], value)
        yield from (b"array", array.dtype.str.encode(), repr(array.shape).encode())
        yield array.tobytes()
    elif isinstance(value, PurePath):
        yield from (b"path", str(value).encode())
    elif isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        yield from _many(b"mapping", sorted((digest(key), digest(held)) for key, held in items))
    elif isinstance(value, AbstractSet):
        yield from _many(b"set", sorted(map(digest, cast(AbstractSet[Any], value))))
    elif isinstance(value, (list, tuple)):
        yield from _many(b"sequence", map(digest, cast(list[Any], value)))
    elif is_dataclass(value) and not isinstance(value, type):
        held = [(field.name, digest(getattr(value, field.name))) for field in fields(value)]
        yield from _many(b"dataclass", [_name(type(value)).decode(), *held])
    elif isinstance(value, functools.partial):
        made = cast(functools.partial[Any], value)
        yield from _many(b"partial", [digest(x) for x in (made.func, made.args, made.keywords)])
    elif isinstance(value, type) or inspect.isroutine(value):
        yield from (b"code", _name(value))
    else:
        kind = type(value).__qualname__
        raise UsageError(
            f"a journal cannot tell one {kind} from another: give it dataclasses, dicts, "
            "sequences, arrays, numbers and strings"
        )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and not cast(NDArray[Any], value).dtype.hasobject


def _python(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    return cast(Any, value).item() if isinstance(value, np.generic) else value


def _many(kind: bytes, parts: Iterable[Any]) -> Iterable[bytes]:
    return (kind, *(repr(part).encode() for part in parts))


def _name(code: Any) -> bytes:
    """Module and name of a class or function that can be found by them."""
    if "<" in code.__qualname__:
        raise UsageError(f"a journal needs functions of a module's top level, not {code!r}")
    return f"{code.__module__}.{code.__qualname__}".encode()


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _plain(name: Any, value: Any) -> float | int | str | None:
    """A value that JSON gives back as it was."""
    value = _python(value)
    if value is None or isinstance(value, (float, int, str)):
        return value
    raise UsageError(f"a row holds numbers, strings and None; {name!r} is {value!r}"[:200])
