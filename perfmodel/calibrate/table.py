"""Measured tables in tidy form: CSV, plain or gzip, one measured point per row.

Columns that hold numbers become float arrays, others arrays of strings. `usable` sets aside what
should not be fitted: rows marked suspect, eager (a host's launch times) or clamped.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import DataError, near

LATENCY = "latency_us"
# Marks of rows that are no kernel time of a real rank, each 0 or 1.
MARKS = ("suspect", "eager", "remote_tokens_clamped")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length, and the line of the file each row stands on."""

    path: str
    columns: dict[str, NDArray[Any]]
    lines: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lines)

    def text(self, name: str) -> NDArray[np.str_]:
        """A column as strings.

        Raises
        ------
        DataError
            The table has no such column.
        """
        return self._column(name).astype(np.str_)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as finite numbers.

        Raises
        ------
        DataError
            There is no such column, or a field of it is no finite number.
        """
        column = self._column(name)
        if column.dtype.kind == "f":
            bad = np.flatnonzero(~np.isfinite(column))
            if not bad.size:
                return column
            wrong = int(bad[0])
        else:
            wrong = next(i for i, field in enumerate(column) if _number(field) is None)
        field = str(column[wrong])
        raise DataError(f"{self.path}:{self.lines[wrong]}: {name} is {field!r}, not a number")

    def where(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Table:
        """The rows a mask or an index keeps."""
        columns = {name: column[keep] for name, column in self.columns.items()}
        return Table(self.path, columns, self.lines[keep])

    def groups(self, names: Sequence[str]) -> dict[tuple[str, ...], Table]:
        """One table per combination of values, sorted."""
        keys = np.array([self.text(name) for name in names]).T
        kinds, index = np.unique(keys, axis=0, return_inverse=True)
        index = index.reshape(-1)
        return {tuple(map(str, kind)): self.where(index == i) for i, kind in enumerate(kinds)}

    def _column(self, name: str) -> NDArray[Any]:
        if name not in self.columns:
            known = near(name, self.columns)
            raise DataError(f"{self.path}: no column {name!r}{known}")
        return self.columns[name]


def read_table(path: str | Path, required: Sequence[str] = (LATENCY,)) -> Table:
    """Read a measured table.

    Parameters
    ----------
    path : str or Path
        A ``.csv`` or ``.csv.gz`` file with one line of names.
    required : sequence of str
        Columns that must be there.

    Raises
    ------
    DataError
        It cannot be read, a column is missing, a line has too few or too many fields, or a latency
        is not positive.
    """
    name = str(path)
    reader = csv.reader(io.StringIO(_read(Path(path)), newline=""))
    names: list[str] = next(reader, list[str]())
    if not names:
        raise DataError(f"{name}: empty, wants a line of column names")
    if len(set(names)) < len(names):
        twice = next(field for field in names if names.count(field) > 1)
        raise DataError(f"{name}: two columns are called {twice!r}")
    rows: list[list[str]] = []
    lines: list[int] = []
    for row in reader:
        if not row:
            continue
        if len(row) != len(names):
            raise DataError(f"{name}:{reader.line_num}: {len(row)} fields, wants {len(names)}")
        rows.append(row)
        lines.append(reader.line_num)
    if not rows:
        raise DataError(f"{name}: no rows below the column names")
    columns = {
        key: _typed(column) for key, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    table = Table(name, columns, np.array(lines))
    for key in required:
        table.text(key)
    if LATENCY in columns:
        bad = np.flatnonzero(~(table.numbers(LATENCY) > 0))
        if bad.size:
            line, field = table.lines[bad[0]], columns[LATENCY][bad[0]]
            raise DataError(f"{name}:{line}: {LATENCY} is {field}, must be above 0")
    return table


def usable(table: Table) -> tuple[Table, dict[str, Table]]:
    """Rows to fit, and the others by the mark they carry (a row with two marks counts once)."""
    apart: dict[str, Table] = {}
    for mark in MARKS:
        if mark not in table.columns:
            continue
        marked = table.numbers(mark) != 0
        if marked.any():
            apart[mark] = table.where(marked)
        table = table.where(~marked)
    return table, apart


def counts(apart: Mapping[str, Table]) -> str:
    """``"392 eager, 12 suspect"``: what was set aside."""
    return ", ".join(f"{len(rows)} {mark}" for mark, rows in apart.items())


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path}: not a gzip file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _typed(column: Sequence[str]) -> NDArray[Any]:
    try:
        return np.array(column, dtype=float)
    except ValueError:
        return np.array(column, dtype=np.str_)


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None
