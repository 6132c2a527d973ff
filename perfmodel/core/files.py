"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path

from perfmodel.core.errors import DataError


@contextlib.contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A path to write to, which takes the place of ``path`` once all has gone well.

    Raises
    ------
    DataError
        It cannot be written.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "answer.txt"
    ...     with whole_file(path) as part:
    ...         size = part.write_text("42")
    ...     path.read_text()
    '42'
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            part = Path(folder) / path.name
            yield part
            part.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
