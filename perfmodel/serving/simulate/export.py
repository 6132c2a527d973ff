"""Files of a simulation: requests and time series as CSV, JSON lines or Parquet.

Tables are written block by block, so that a million requests need no second copy in memory, and
whole or not at all.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import DataError, UsageError, near
from perfmodel.core.files import whole_file
from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.result import Simulation

Block = dict[str, NDArray[Any]]

BLOCK: Final = 1 << 16  # requests written at once
FORMATS: Final = (".csv", ".jsonl", ".parquet")


def check_path(path: str | Path, suffixes: Iterable[str] = FORMATS) -> Path:
    """Refuse, before anything is computed, a file that could not be written.

    Raises
    ------
    UsageError
        Another suffix.
    DataError
        No such folder, or a folder of that name.

    Examples
    --------
    >>> check_path("requests.parquet").suffix
    '.parquet'
    """
    path, known = Path(path), tuple(suffixes)
    if path.suffix.lower() not in known:
        raise UsageError(
            f"{path}: suffix {path.suffix!r} is not one of {', '.join(known)}"
            f"{near(path.suffix, known)}"
        )
    if not path.parent.is_dir():
        raise DataError(f"{path}: cannot be written: no folder {str(path.parent)!r}")
    if path.is_dir():
        raise DataError(f"{path}: cannot be written: it is a folder")
    return path


def request_blocks(simulation: Simulation, block: int = BLOCK) -> Iterator[Block]:
    """Columns of the requests, ``block`` of them at a time, times from the start of the run.

    What a run does not have (tenants, tasks, limits ...) has no column. ``arrival_s`` is when the
    request was ready; columns have the names of the ``plain`` trace format.

    Raises
    ------
    UsageError
        The requests are not kept.
    """
    if not simulation.kept:
        raise UsageError("a table of requests needs their times: keep_requests=True")
    for begin in range(0, len(simulation.requests), block):
        yield _columns(simulation, slice(begin, begin + block))


def write_requests(simulation: Simulation, path: str | Path) -> None:
    """Write one row per request; the suffix (.csv, .jsonl, .parquet) picks the format.

    Raises
    ------
    UsageError
        Another suffix, the requests are not kept, pyarrow is missing.
    DataError
        The file cannot be written.
    """
    write_table(request_blocks(simulation), path)


def write_table(blocks: Iterable[Block], path: str | Path) -> None:
    """Write columns that come in blocks of rows; nan is an empty cell or null.

    Raises
    ------
    UsageError
        Another suffix than .csv, .jsonl or .parquet; pyarrow is missing.
    DataError
        The file cannot be written.
    """
    path = check_path(path)
    if path.suffix.lower() == ".parquet":
        arrow, parquet = _arrow()
        with whole_file(path) as part:
            _write_parquet(arrow, parquet, blocks, part)
        return
    write = _write_csv if path.suffix.lower() == ".csv" else _write_lines
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        write(blocks, file)


def _columns(simulation: Simulation, rows: slice) -> Block:
    record, asked = simulation.record, simulation.requests
    kept = {
        name: getattr(record, name)[rows]
        for name in (
            "arrival", "start", "first", "visible", "last", "finish", "preempted", "replica", "hits"
        )
    }  # fmt: skip
    lengths = Requests(
        asked.arrival[rows], asked.prompt[rows], asked.output[rows],
        tenant=None if asked.tenant is None else asked.tenant[rows],
    )  # fmt: skip
    part = dataclasses.replace(
        simulation, requests=lengths, record=dataclasses.replace(record, **kept)
    )
    columns: Block = {
        "request": np.arange(rows.start, rows.start + len(lengths)),
        "arrival_s": part.record.arrival,
        "isl_tokens": lengths.prompt,
        "osl_tokens": lengths.output,
        "ttft_ms": part.ttft * 1e3,
        "tpot_ms": part.tpot * 1e3,
        "e2el_ms": part.e2el * 1e3,
        "queue_time_ms": part.queue_time * 1e3,
        "preempted": part.record.preempted,
        "replica": part.record.replica,
    }
    if asked.hidden is not None:
        columns |= {"hidden_tokens": asked.hidden[rows], "visible_ms": part.visible * 1e3}
    if any(replica.engine.prefix_cache for replica in simulation.cluster.replicas):
        columns["hit_tokens"] = part.record.hits
    for name in ("priority", "tenant", "session", "adapter", "pool", "task"):
        column = getattr(asked, name)
        if column is not None:
            columns[name] = column[rows]
    if simulation.limited:
        columns["good"] = part.good
    return columns


def _rows(block: Block, nothing: Any) -> Iterator[tuple[Any, ...]]:
    """Rows of plain values, ``nothing`` instead of nan."""
    columns: list[list[Any]] = []
    for values in block.values():
        made: list[Any] = values.tolist()
        if values.dtype.kind == "f" and np.isnan(values).any():
            made = [nothing if value != value else value for value in made]
        columns.append(made)
    return zip(*columns, strict=True)


def _write_csv(blocks: Iterable[Block], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for index, block in enumerate(blocks):
        if not index:
            writer.writerow(block)
        writer.writerows(_rows(block, ""))


def _write_lines(blocks: Iterable[Block], file: TextIO) -> None:
    encode = json.JSONEncoder(allow_nan=False).encode
    for block in blocks:
        names = tuple(block)
        file.writelines(
            f"{encode(dict(zip(names, row, strict=True)))}\n" for row in _rows(block, None)
        )


def _write_parquet(arrow: Any, parquet: Any, blocks: Iterable[Block], path: Path) -> None:
    with contextlib.ExitStack() as stack:
        writer: Any = None
        for block in blocks:
            table = arrow.table(
                {name: arrow.array(values, from_pandas=True) for name, values in block.items()}
            )
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(path, table.schema))
            writer.write_table(table)


def _arrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError("Parquet needs pyarrow: pip install 'perfmodel[distributed]'") from None
