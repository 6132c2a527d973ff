"""A progress bar on stderr: only where a person looks, only for work that takes a while."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any, Self


class Bar:
    """Progress bar to pass as ``progress=``; a context manager.

    Shown on stderr, above which notes scroll; removed at the end. `NO_COLOR` is respected; where
    stderr is no terminal, or one that cannot move its cursor, nothing is written at all.

    Parameters
    ----------
    label : str
        What is being done.
    delay : float
        Seconds of work before anything is shown.

    Examples
    --------
    >>> with Bar("simulating") as progress:
    ...     progress(1, 2)
    """

    def __init__(self, label: str, *, delay: float = 1.0) -> None:
        self._label, self._delay = label, delay
        self._bar: Any = None
        self._task: Any = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._at = (0, 0)

    def __call__(self, done: int, total: int) -> None:
        """Say how many of how many tasks are done."""
        with self._lock:
            self._at = (done, total)
            if self._bar is not None:
                self._bar.update(self._task, completed=done, total=total or None)

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer = threading.Timer(self._delay, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._timer is None:
            return
        self._timer.cancel()
        with self._lock:
            self._timer = None  # a bar that is about to be shown stays hidden
            if self._bar is not None:
                self._bar.stop()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        with self._lock:
            if self._timer is None or console.is_dumb_terminal:
                return
            done, total = self._at
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeElapsedColumn(), TimeRemainingColumn(),
                console=console, transient=True, redirect_stdout=False,
            )  # fmt: skip
            self._task = self._bar.add_task(self._label, completed=done, total=total or None)
            self._bar.start()
