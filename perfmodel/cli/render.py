"""Output: JSON, CSV or a table, to stdout or atomically to a file; prose goes to stderr."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perfmodel.core.errors import DataError, UsageError
from perfmodel.core.files import whole_file


def pick_format(json_: bool, csv_: bool, output: Path | None) -> str:
    """Format asked for: a flag, else the file's suffix, else a table.

    Raises
    ------
    UsageError
        Two formats at once, an unknown suffix, or a suffix that contradicts the flag.
    """
    if json_ and csv_:
        raise UsageError("give --json or --csv, not both")
    flag = "json" if json_ else "csv" if csv_ else ""
    if output is None:
        return flag or "table"
    suffix = output.suffix.lower()
    known = {".json": "json", ".csv": "csv", ".txt": "table"}
    if suffix not in known:
        raise UsageError(f"-o {output}: suffix {suffix!r} is not one of {', '.join(known)}")
    if flag and flag != known[suffix]:
        raise UsageError(f"-o {output}: the suffix asks for {known[suffix]}, the flag for {flag}")
    return known[suffix]


def emit(text: str, output: Path | None) -> None:
    """Print, or write a file whole or not at all.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    if output is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    try:
        with whole_file(output) as part:
            part.write_text(text, encoding="utf-8")
    except DataError as error:
        raise UsageError(f"-o {error}") from None


def to_json(data: Any) -> str:
    """JSON text; nan and infinity never appear (they are null already)."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """CSV text with the union of the rows' keys, in order of appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Text table; numbers align right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in rows if row[index] not in (None, ""))
        drawn.add_column(name, justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    terminal = sys.stdout.isatty()
    console = Console(file=io.StringIO(), width=None if terminal else 160, no_color=not terminal,
                      force_terminal=False, highlight=False)  # fmt: skip
    with console.capture() as captured:
        console.print(drawn)
    lines = [title] if title else []  # a title of the table's own would wrap at its width
    return "\n".join([*lines, *map(str.rstrip, captured.get().splitlines())]) + "\n"


def number(value: Any, digits: int = 3) -> str:
    """Three significant digits, thousands separated; a dash for nothing.

    >>> number(1234.5), number(0.01234), number(None)
    ('1,234', '0.0123', '–')
    """
    if value is None or value != value:
        return "–"
    value = float(value)
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return f"{value:.{digits}g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (
        isinstance(value, str) and value.replace(",", "").replace(".", "", 1).lstrip("-–").isdigit()
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else str(value).replace("[", r"\[")
