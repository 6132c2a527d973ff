"""Tasks one after the other in this process: the reference, and what a debugger wants."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from perfmodel.plan.backends.base import Pool
from perfmodel.plan.backends.call import Call, Outcome


class Serial(Pool):
    """No worker but the caller; nothing is pickled."""

    workers = 1
    ahead = 1

    def start(self, call: Call) -> Any:
        """Do nothing yet."""
        return call

    def wait(self, handles: Collection[Any]) -> Iterable[Any]:
        """Every call can be fetched."""
        return handles

    def fetch(self, handle: Any) -> Outcome[Any]:
        """Run the call here."""
        try:
            return Outcome(handle.function(handle.task))
        except Exception as error:
            return Outcome(error=error)


def open_pool(workers: int, address: str | None) -> Pool:
    """Nothing to start."""
    return Serial()
