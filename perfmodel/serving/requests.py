"""`Requests`: what is asked of a deployment, request by request, as columns.

Made by arrival processes and length laws, by call graphs, or read from traces; replayed by the
simulator. All columns have one entry per request, in order of arrival.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import UsageError

Times = NDArray[np.float64]
Counts = NDArray[np.int64]

_WHOLE = ("hidden", "priority", "tenant", "session", "adapter", "pool", "task")


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in order of arrival.

    Parameters
    ----------
    arrival : array of float64, shape (n,)
        Arrival times, from 0, not decreasing [s]. A request that follows others (``after``) has the
        time of its task, and becomes ready when they are finished.
    prompt, output : array of int64, shape (n,)
        Prompt and generated tokens, each at least 1.
    hidden : array of int64, shape (n,), optional
        Leading output tokens the user does not see (reasoning); less than ``output``.
    priority : array of int64, shape (n,), optional
        Smaller is served first.
    tenant : array of int64, shape (n,), optional
        Class of service, from 0; each has its own limits.
    session : array of int64, shape (n,), optional
        Conversation, from 0.
    adapter : array of int64, shape (n,), optional
        LoRA adapter, from 0; -1 is the base model.
    pool : array of int64, shape (n,), optional
        Which of the cluster's models is asked, from 0.
    task : array of int64, shape (n,), optional
        Task that the request is a part of, from 0; a task is done when its last request is.
    after : tuple of arrays, optional
        ``(start, ids)``: request i follows requests ``ids[start[i]:start[i + 1]]``, which are all
        smaller than i.
    delay : array of float64, shape (n,), optional
        Time between the last of those and the moment the request is ready: a tool, a database, a
        person [s].
    hash_ids : tuple of arrays, optional
        ``(start, ids)``: the blocks of request i's prompt, and where they are known of the answer
        that follows it, are ``ids[start[i]:start[i + 1]]``; equal ids are equal content.
        ``hash_block`` tokens per block.

    Raises
    ------
    UsageError
        Columns of unlike length, times that decrease or are not finite, lengths below one, requests
        that follow later ones.
    """

    arrival: Times
    prompt: Counts
    output: Counts
    hidden: Counts | None = None
    priority: Counts | None = None
    tenant: Counts | None = None
    session: Counts | None = None
    adapter: Counts | None = None
    pool: Counts | None = None
    task: Counts | None = None
    after: tuple[Counts, Counts] | None = None
    delay: Times | None = None
    hash_ids: tuple[Counts, Counts] | None = None
    hash_block: int = 512

    def __post_init__(self) -> None:
        count = len(self.arrival)
        if count == 0:
            raise UsageError("there are no requests")
        for name in ("prompt", "output", "delay", *_WHOLE):
            column = getattr(self, name)
            if column is not None and len(column) != count:
                raise UsageError(f"{name} has {len(column)} entries for {count} requests")
        if not np.all(np.isfinite(self.arrival)) or np.any(np.diff(self.arrival, prepend=0.0) < 0):
            raise UsageError("arrival times must be finite, not negative, and must not decrease")
        for name, least in (
            ("prompt", 1), ("output", 1), ("tenant", 0), ("session", 0), ("adapter", -1),
            ("pool", 0), ("task", 0),
        ):  # fmt: skip
            column = getattr(self, name)
            if column is not None and np.any(column < least):
                where = int(np.argmax(column < least))
                tokens = " tokens" if name in ("prompt", "output") else ""
                raise UsageError(
                    f"request {where} has {name} of {column[where]}{tokens}; at least {least}"
                )
        if self.hidden is not None and np.any((self.hidden < 0) | (self.hidden >= self.output)):
            raise UsageError("hidden tokens must be fewer than the output tokens")
        if self.delay is not None and not np.all(np.isfinite(self.delay) & (self.delay >= 0)):
            raise UsageError("delays must be finite and not negative")
        for name in ("hash_ids", "after"):
            rows = getattr(self, name)
            if rows is not None and len(rows[0]) != count + 1:
                raise UsageError(f"{name} needs {count + 1} starts, has {len(rows[0])}")
        if self.after is not None:
            start, ids = self.after
            follower = np.repeat(np.arange(count), np.diff(start))
            wrong = (ids < 0) | (ids >= follower)
            if np.any(wrong):
                where = int(np.argmax(wrong))
                raise UsageError(
                    f"request {follower[where]} follows request {ids[where]}; only earlier ones"
                )

    def __len__(self) -> int:
        return len(self.arrival)
