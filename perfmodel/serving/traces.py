"""Recorded workloads: published trace formats, row by row, to `Requests`.

Formats: ``azure`` (Azure LLM inference traces 2023 and 2024: TIMESTAMP, ContextTokens,
GeneratedTokens; github.com/Azure/AzurePublicDataset), ``burstgpt`` (Timestamp in seconds, Request
tokens, Response tokens; failed requests answer 0 tokens; github.com/HPMLL/BurstGPT), ``mooncake``
(JSON lines: timestamp in ms, input_length, output_length, hash_ids of 512-token blocks; FAST'25,
github.com/kvcache-ai/Mooncake), ``sharegpt`` (one JSON array with token counts and mostly no
times), and ``plain`` (a CSV of arrival_s, isl_tokens, osl_tokens and more: see
`perfmodel.serving.plain`).

A malformed row is an error that names file, line and column. Text without token counts needs a
tokeniser and is not read here.
"""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from perfmodel.core.errors import DataError, UsageError, near
from perfmodel.serving import plain
from perfmodel.serving.ragged import Ragged, reordered
from perfmodel.serving.requests import Requests
from perfmodel.serving.rows import (
    Row,
    check_blocks,
    check_file,
    csv_rows,
    lines,
    open_text,
    seconds,
    shown,
    tokens,
)

# A JSON document is held in memory as a whole.
LARGEST_DOCUMENT = 1 << 30


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as read.

    Parameters
    ----------
    requests : Requests
        Sorted by time; the first arrives at 0. A trace without times has all of them there.
    format : str
        Key of `FORMATS`.
    rows : int
        Requests in the part of the file that was asked for, failed ones included.
    failed : int
        Requests left out because their prompt or response is 0 tokens long.
    timed : bool
        Whether the trace says when requests arrived.
    """

    requests: Requests
    format: str
    rows: int
    failed: int
    timed: bool


@dataclass(frozen=True, slots=True)
class Format:
    """How one kind of trace is read: ``read(path, block)`` gives its rows."""

    shape: str
    read: Callable[[Path, int], Iterator[Row]]


def read(
    path: str | Path,
    format: str | None = None,
    *,
    scale: float = 1.0,
    limit: int | None = None,
    window: tuple[float, float] | None = None,
    block: int = 512,
) -> Trace:
    """Read a trace.

    Parameters
    ----------
    path : str or Path
    format : str, optional
        Key of `FORMATS`; sniffed from the start of the file if not given.
    scale : float
        Request rate x this; 2 replays an hour in half an hour.
    limit : int, optional
        Stop after this many usable requests, in file order.
    window : (float, float), optional
        Keep requests from the first to (not including) the second time, in seconds after the
        file's first row.
    block : int
        Tokens per entry of ``hash_ids``.

    Raises
    ------
    DataError
        No such file, unknown format, malformed row (file, line, column), no usable request.
    UsageError
        ``scale``, ``limit``, ``window`` or ``block`` out of range.
    """
    path = Path(path)
    if not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"a trace cannot be scaled by {scale:g}; a positive factor")
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} requests; at least 1")
    if window is not None and not window[0] < window[1]:
        raise UsageError(f"the window {window[0]:g} to {window[1]:g} s is empty")
    if block < 1:
        raise UsageError(f"blocks of {block} tokens; at least 1")
    check_file(path, limit)
    name = format or sniff(path)
    if name not in FORMATS:
        raise DataError(f"no trace format {name!r}{near(name, FORMATS)}; known: {_known()}")
    return _collect(path, name, FORMATS[name].read(path, block), scale, limit, window, block)


def sniff(path: Path) -> str:
    """Name of the format of a file, from its first characters.

    Raises
    ------
    DataError
        Empty or unlike any known format.
    """
    first = next((line for _, line in lines(path) if line.strip()), "")
    if not first:
        raise DataError(f"{path}: the file is empty")
    start = first.lstrip()[0]
    if start in "[{":
        return "sharegpt" if start == "[" else "mooncake"
    columns = {column.strip() for column in next(csv.reader([first]), list[str]())}
    for name, (time, prompt, output, _) in _TABLES.items():
        if {time, prompt, output} <= columns:
            return name
    raise DataError(f"{path}:1: not a known trace; known: {_known()}")


def _table(name: str) -> Callable[[Path, int], Iterator[Row]]:
    time, prompt, output, clock = _TABLES[name]

    def rows(path: Path, block: int) -> Iterator[Row]:
        for number, (when, asked, answered) in csv_rows(path, (time, prompt, output)):
            at = f"{path}:{number}: column"
            yield Row(
                clock(when, f"{at} {time!r}"),
                tokens(asked, f"{at} {prompt!r}"),
                tokens(answered, f"{at} {output!r}"),
            )

    return rows


def _date(value: str, where: str) -> float:
    """Seconds since 2020 of a date and time; without a time zone it is UTC."""
    try:
        read = datetime.fromisoformat(value.strip())
        if read.tzinfo is None:
            read = read.replace(tzinfo=UTC)
        return (read - datetime(2020, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        raise DataError(
            f"{where} is {shown(value)}; a date and time like 2023-11-16 18:17:03.97"
        ) from None


def _mooncake(path: Path, block: int) -> Iterator[Row]:
    for number, line in lines(path):
        if not line.strip():
            continue
        at = f"{path}:{number}"
        row = _json(line, at)
        if not isinstance(row, dict):
            raise DataError(f"{at}: {shown(row)} where a JSON object should be")
        fields = cast(dict[str, Any], row)
        for key in ("timestamp", "input_length", "output_length"):
            if key not in fields:
                has = [" ".join(name.split()) for name in fields]
                raise DataError(f"{at}: no {key!r}{near(key, has)}")
        prompt = tokens(fields["input_length"], f"{at}: 'input_length'")
        yield Row(
            seconds(fields["timestamp"], f"{at}: 'timestamp'") / 1e3,
            prompt,
            tokens(fields["output_length"], f"{at}: 'output_length'"),
            _hashes(fields["hash_ids"], prompt, block, at) if "hash_ids" in fields else None,
        )


def _hashes(value: object, prompt: int, block: int, at: str) -> list[int]:
    wrong = DataError(f"{at}: 'hash_ids' is {shown(value)}; a list of whole numbers from 0")
    if not isinstance(value, list):
        raise wrong
    given = cast(list[Any], value)
    for entry in given:
        if not isinstance(entry, int) or isinstance(entry, bool) or not 0 <= entry < 2**63:
            raise wrong
    check_blocks(given, prompt, block, at)
    return given


_PROMPT = ("prompt_tokens", "input_tokens", "input_length", "prompt_len")
_OUTPUT = ("completion_tokens", "output_tokens", "output_length", "output_len")


def _sharegpt(path: Path, block: int) -> Iterator[Row]:
    if path.stat().st_size > LARGEST_DOCUMENT:
        raise DataError(
            f"{path}: more than {LARGEST_DOCUMENT} bytes; write it as CSV or JSON lines"
        )
    with open_text(path) as file:
        document = _json(file.read(), str(path))
    if not isinstance(document, list):
        raise DataError(f"{path}: {shown(document)} where a JSON array of requests should be")
    for place, entry in enumerate(cast(list[Any], document)):
        at = f"{path}: entry {place}"
        if not isinstance(entry, dict):
            raise DataError(f"{at}: {shown(entry)} where a JSON object should be")
        fields = cast(dict[str, Any], entry)
        time = seconds(fields["timestamp"], f"{at}: 'timestamp'") if "timestamp" in fields else None
        prompt, output = (
            next((name for name in names if name in fields), None) for names in (_PROMPT, _OUTPUT)
        )
        if prompt is None or output is None:
            lacks, names = ("prompt", _PROMPT) if prompt is None else ("response", _OUTPUT)
            raise DataError(
                f"{at}: no token count of the {lacks}: {' or '.join(names)}; text must be "
                "tokenised first"
            )
        yield Row(
            time,
            tokens(fields[prompt], f"{at}: {prompt!r}"),
            tokens(fields[output], f"{at}: {output!r}"),
        )


def _collect(
    path: Path, name: str, rows: Iterator[Row], scale: float, limit: int | None,
    window: tuple[float, float] | None, block: int,
) -> Trace:  # fmt: skip
    """Filter rows into columns, sort them by time."""
    times, prompts, outputs = array("d"), array("q"), array("q")
    ids, counts, kept = array("q"), array("q"), array("q")
    more: dict[str, list[Any]] = {}
    seen = failed = untimed = 0
    origin: float | None = None
    for number, row in enumerate(rows):
        if row.time is None:
            untimed += 1
            if window is not None:
                raise DataError(f"{path}: has no times for a window to select from")
        time = row.time or 0.0
        origin = time if origin is None else origin
        if window is not None and not window[0] <= time - origin < window[1]:
            continue
        seen += 1
        if row.prompt == 0 or row.output == 0:
            failed += 1
            continue
        times.append(time)
        prompts.append(row.prompt)
        outputs.append(row.output)
        kept.append(number)
        counts.append(len(row.hash_ids or ()))
        ids.extend(row.hash_ids or ())
        for field, value in (row.more or {}).items():
            more.setdefault(field, []).append(value)
        if len(times) == limit:
            break
    if not times:
        raise DataError(f"{path}: no usable request in {seen} selected rows ({failed} failed)")
    if untimed not in (0, seen):
        raise DataError(f"{path}: {untimed} of {seen} requests have no time; all or none")
    when = np.array(times)
    order = np.argsort(when, kind="stable")
    when = (when[order] - when[order[0]]) / scale
    hashes: Ragged | None = None
    if len(ids):
        hashes = reordered(np.array(counts), np.array(ids), order)
    requests = Requests(
        when,
        np.array(prompts)[order],
        np.array(outputs)[order],
        hash_ids=hashes,
        hash_block=block,
        **plain.columns(more, np.array(kept), order),
    )
    return Trace(requests, name, seen, failed, timed=not untimed)


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(f"{where}: JSON nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from None


def _known() -> str:
    return "; ".join(f"{name} ({format.shape})" for name, format in FORMATS.items())


# CSV formats: columns of time, prompt and output tokens, and how a time is written.
_TABLES: dict[str, tuple[str, str, str, Callable[[str, str], float]]] = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens", _date),
    "burstgpt": ("Timestamp", "Request tokens", "Response tokens", seconds),
    "plain": (*plain.REQUIRED, seconds),
}
FORMATS: dict[str, Format] = {
    name: Format(
        f"CSV with {time}, {prompt}, {output}",
        plain.read_rows if name == "plain" else _table(name),
    )
    for name, (time, prompt, output, _) in _TABLES.items()
} | {
    "mooncake": Format("JSON lines with timestamp, input_length, output_length", _mooncake),
    "sharegpt": Format("a JSON array with prompt_tokens, completion_tokens", _sharegpt),
}
