"""`Requests`: what is asked of a deployment, request by request, as columns.

Made by arrival processes and length laws or read from traces; replayed by the simulator. All
columns have one entry per request, in order of arrival.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import UsageError

Times = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in order of arrival.

    Parameters
    ----------
    arrival : array of float64, shape (n,)
        Arrival times, not decreasing [s].
    prompt, output : array of int64, shape (n,)
        Prompt and generated tokens, each at least 1.
    hidden : array of int64, shape (n,), optional
        Leading output tokens the user does not see (reasoning); less than ``output``.
    priority : array of int64, shape (n,), optional
        Smaller is served first.
    hash_ids : tuple of arrays, optional
        ``(start, ids)``: request i's prompt blocks are ``ids[start[i]:start[i + 1]]``; equal ids
        are equal content. ``hash_block`` tokens per block.

    Raises
    ------
    UsageError
        Columns of unlike length, times that decrease or are not finite, lengths below one.
    """

    arrival: Times
    prompt: Counts
    output: Counts
    hidden: Counts | None = None
    priority: Counts | None = None
    hash_ids: tuple[Counts, Counts] | None = None
    hash_block: int = 512

    def __post_init__(self) -> None:
        count = len(self.arrival)
        if count == 0:
            raise UsageError("there are no requests")
        for name in ("prompt", "output", "hidden", "priority"):
            column = getattr(self, name)
            if column is not None and len(column) != count:
                raise UsageError(f"{name} has {len(column)} entries for {count} requests")
        if not np.all(np.isfinite(self.arrival)) or np.any(np.diff(self.arrival) < 0):
            raise UsageError("arrival times must be finite and must not decrease")
        for name in ("prompt", "output"):
            column = getattr(self, name)
            if np.any(column < 1):
                where = int(np.argmax(column < 1))
                raise UsageError(
                    f"request {where} has {name} of {column[where]} tokens; at least 1"
                )
        if self.hidden is not None and np.any((self.hidden < 0) | (self.hidden >= self.output)):
            raise UsageError("hidden tokens must be fewer than the output tokens")
        if self.hash_ids is not None and len(self.hash_ids[0]) != count + 1:
            raise UsageError(f"hash_ids needs {count + 1} starts, has {len(self.hash_ids[0])}")

    def __len__(self) -> int:
        return len(self.arrival)
