"""The ``plain`` trace format: every column of `Requests` as a CSV, read and written.

``arrival_s``, ``isl_tokens`` and ``osl_tokens`` must be there; `OPTIONAL` columns are read where
they are. ``after`` and ``hash_ids`` are lists separated by semicolons; ``after`` names rows of the
file, counted from 0. An empty cell is 0 in ``hidden_tokens``, ``priority`` and ``delay_s``, the
base model in ``adapter``, and nothing in the lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfmodel.core.errors import DataError
from perfmodel.core.files import whole_file
from perfmodel.serving.ragged import find, from_pairs
from perfmodel.serving.ragged import rows as lists
from perfmodel.serving.requests import Counts, Requests
from perfmodel.serving.rows import (
    Row,
    check_blocks,
    csv_header,
    csv_rows,
    seconds,
    shown,
    tokens,
    whole,
)

REQUIRED = ("arrival_s", "isl_tokens", "osl_tokens")


class _Column(NamedTuple):
    """How an optional column is read, and what an empty cell is; None: it may not be empty."""

    field: str
    read: Callable[[str, str], Any]
    empty: Any = None


def _any_whole(cell: str, where: str) -> int:
    return whole(cell, where, None)


def _adapter(cell: str, where: str) -> int:
    return whole(cell, where, -1)


def _delay(cell: str, where: str) -> float:
    value = seconds(cell, where)
    if value < 0:
        raise DataError(f"{where} is {shown(cell)}; a time of 0 or more")
    return value


def _list(cell: str, where: str) -> list[int]:
    return [whole(entry, where) for entry in cell.split(";")]


OPTIONAL: dict[str, _Column] = {
    "hidden_tokens": _Column("hidden", tokens, 0),
    "priority": _Column("priority", _any_whole, 0),
    "tenant": _Column("tenant", whole),
    "session": _Column("session", whole),
    "adapter": _Column("adapter", _adapter, -1),
    "pool": _Column("pool", whole),
    "task": _Column("task", whole),
    "after": _Column("after", _list, []),
    "delay_s": _Column("delay", _delay, 0.0),
    "hash_ids": _Column("hash_ids", _list, []),
}


def read_rows(path: Path, block: int) -> Iterator[Row]:
    """Rows of a file; ``block`` tokens per entry of ``hash_ids``.

    Raises
    ------
    DataError
        A cell that is not what its column holds (file, line, column), a row that follows itself, a
        later row, or one that arrives later.
    """
    header = csv_header(path)
    optional = [name for name in OPTIONAL if name in header]
    times: list[float] = []
    for number, cells in csv_rows(path, (*REQUIRED, *optional)):
        at = f"{path}:{number}"
        time, prompt, output = (
            read(cell, f"{at}: column {name!r}")
            for name, read, cell in zip(REQUIRED, (seconds, tokens, tokens), cells, strict=False)
        )
        more: dict[str, Any] = {}
        for name, cell in zip(optional, cells[len(REQUIRED) :], strict=True):
            field, read, empty = OPTIONAL[name]
            blank = empty is not None and not cell.strip()
            more[field] = empty if blank else read(cell, f"{at}: column {name!r}")
        if "after" in more:
            _check_after(more["after"], time, times, f"{at}: column 'after'")
            times.append(time)
        if 0 < output <= more.get("hidden", 0):
            raise DataError(
                f"{at}: column 'hidden_tokens' is {more['hidden']}; fewer than the {output} of "
                "'osl_tokens'"
            )
        hashes = more.pop("hash_ids", None)
        check_blocks(hashes or (), int(prompt) + int(output), block, at)
        yield Row(time, int(prompt), int(output), hashes, more or None)


def columns(more: dict[str, list[Any]], kept: Counts, order: Counts) -> dict[str, Any]:
    """Columns of `Requests` from what rows had more.

    Rows that were left out are followed by nobody.

    Parameters
    ----------
    more : dict of lists
        By field; one entry per kept row.
    kept : array of int64
        Rows of the file that were kept, increasing.
    order : array of int64
        Places of the requests in these.

    Examples
    --------
    >>> found = columns({"after": [[], [0], [0, 1]]}, np.array([0, 2, 3]), np.arange(3))
    >>> [x.tolist() for x in found["after"]]
    [[0, 0, 1, 2], [0, 0]]
    """
    found: dict[str, Any] = {}
    for field, values in more.items():
        if field != "after":
            kind = np.float64 if field == "delay" else np.int64
            found[field] = np.array(values, dtype=kind)[order]
            continue
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        sizes = np.fromiter(map(len, values), np.int64)
        named = find(kept, np.fromiter(chain.from_iterable(values), np.int64))
        who = np.repeat(place, sizes)[named >= 0]
        found[field] = from_pairs(who, place[named[named >= 0]], len(order))
    return found


def write(requests: Requests, path: str | Path) -> None:
    """Write all columns, in one piece or not at all.

    Reading gives the same requests back, with times counted from the first arrival and
    ``hash_block`` as the reader's ``block``.

    Raises
    ------
    DataError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "trace.csv"
    ...     write(Requests(np.array([0.5]), np.array([10]), np.array([3])), file)
    ...     file.read_text().split()
    ['arrival_s,isl_tokens,osl_tokens', '0.5,10,3']
    """
    path = Path(path)
    names = list[str](REQUIRED)
    written: list[Any] = [
        column.tolist() for column in (requests.arrival, requests.prompt, requests.output)
    ]
    for name, (field, _, _) in OPTIONAL.items():
        column = getattr(requests, field)
        if column is not None:
            names.append(name)
            if field in ("after", "hash_ids"):
                written.append(";".join(map(str, row)) for row in lists(column))
            else:
                written.append(column.tolist())
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(",".join(names) + "\n")
        # str of a float is the shortest text that reads back as the same.
        lines = (",".join(map(str, row)) for row in zip(*written, strict=True))
        file.writelines(f"{line}\n" for line in lines)


def _check_after(before: list[int], time: float, times: list[float], at: str) -> None:
    for row in before:
        if row >= len(times):
            raise DataError(
                f"{at} names row {row}; this is row {len(times)}, and it can follow earlier ones"
            )
        if times[row] > time:
            raise DataError(f"{at} names row {row}, which arrives later")
