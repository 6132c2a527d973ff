"""Input files line by line: rows of a CSV, token counts and times as numbers, one-line errors.

What every reader of traces and length columns shares. Sizes are guarded: a file that is not what it
seems ends in an error, not in a full memory.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import NamedTuple, TextIO

from perfmodel.core.errors import DataError, near
from perfmodel.core.symbols import SYMBOLS

MOST_TOKENS = int(SYMBOLS["isl"].high)
# Files beyond this are read only with a limit on their rows.
LARGEST_FILE = 2 << 30
_LONGEST_LINE = 1 << 24
_LATEST = 1e12
# Whole numbers that a float holds exactly.
_LARGEST = 2**53


class Row(NamedTuple):
    """One request of a trace; ``time`` in seconds on the trace's own clock, None where untimed.

    ``more`` are further columns of `perfmodel.serving.requests.Requests`, by their names there.
    """

    time: float | None
    prompt: int
    output: int
    hash_ids: list[int] | None = None
    more: dict[str, int | float | list[int]] | None = None


def check_file(path: Path, limit: int | None) -> None:
    """Refuse what is no file, or too large to be read without a limit on its rows.

    Raises
    ------
    DataError
    """
    try:
        if not path.is_file():
            beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DataError(f"{str(path)!r}: no such file{near(path.name, beside)}")
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{str(path)!r}: cannot be read: {error.strerror}") from None
    if limit is None and size > LARGEST_FILE:
        raise DataError(f"{path}: {size / 1e9:.1f} GB; give a limit on the requests to read")


def open_text(path: Path) -> TextIO:
    """Open for reading; characters that are not UTF-8 are left for the fields they stand in."""
    try:
        return path.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def csv_header(path: Path) -> list[str]:
    """Names of the columns of a CSV file, in order.

    Raises
    ------
    DataError
        Broken quoting, a line that is too long.
    """
    first = next((line for _, line in lines(path) if line.strip()), "")
    try:
        return [" ".join(name.split()) for name in next(csv.reader([first]), list[str]())]
    except csv.Error as error:
        raise DataError(f"{path}:1: not CSV: {error}") from None


def csv_rows(path: Path, columns: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and the named columns of each row of a CSV file with a header.

    Raises
    ------
    DataError
        A column the header lacks, a row that is too short, broken quoting.
    """
    wanted = list(columns)
    reader = csv.reader(line for _, line in lines(path))
    try:
        header = [" ".join(column.split()) for column in next(reader, list[str]())]
        for column in wanted:
            if column not in header:
                has = ", ".join(header)[:200] or "nothing"
                raise DataError(f"{path}:1: no column {column!r}{near(column, header)}; has {has}")
        places = [header.index(column) for column in wanted]
        for row in reader:
            if not row:
                continue
            if len(row) <= max(places):
                raise DataError(
                    f"{path}:{reader.line_num}: {len(row)} columns where the header has "
                    f"{len(header)}"
                )
            yield reader.line_num, [row[place] for place in places]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line; a line too long to be a row is an error, not a full memory."""
    with open_text(path) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise DataError(f"{path}:{number}: a line of more than {_LONGEST_LINE} characters")
            yield number, line


def tokens(value: object, where: str) -> int:
    """A token count from text or JSON.

    Raises
    ------
    DataError
        Not a whole number from 0 to `MOST_TOKENS`; ``where`` starts the message.
    """
    number = _number(value)
    if not (0 <= number <= MOST_TOKENS and number.is_integer()):
        raise DataError(f"{where} is {shown(value)}; a whole number of tokens from 0 to 1e8")
    return int(number)


def whole(value: object, where: str, least: int | None = 0) -> int:
    """A whole number from text or JSON, at least ``least``; errors as `tokens`."""
    number = _number(value)
    low = -_LARGEST if least is None else least
    if not (low <= number <= _LARGEST and number.is_integer()):
        limit = "" if least is None else f" from {least}"
        raise DataError(f"{where} is {shown(value)}; a whole number{limit}")
    return int(number)


def seconds(value: object, where: str) -> float:
    """A time from text or JSON; errors as `tokens`."""
    number = _number(value)
    if not abs(number) <= _LATEST:
        raise DataError(f"{where} is {shown(value)}; a time as a number")
    return number


def check_blocks(hash_ids: Sized, tokens: int, block: int, at: str) -> None:
    """Refuse more block ids than a prompt and its answer have blocks.

    Raises
    ------
    DataError
    """
    if len(hash_ids) > -(-tokens // block):
        raise DataError(
            f"{at}: 'hash_ids' has {len(hash_ids)} blocks; {tokens} tokens fill "
            f"{-(-tokens // block)} blocks of {block}"
        )


def shown(value: object) -> str:
    """A value as a message quotes it: not too long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _number(value: object) -> float:
    """Text or a JSON number as a float; nan for anything else."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
