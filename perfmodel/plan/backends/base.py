"""`Pool`: the one loop that hands tasks to workers, whoever they are, and outlives their deaths.

A backend says how to start a call, how to wait for some and how to fetch one; the order, the
reruns after a dead worker and the errors are decided here, so that they are the same everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar

from perfmodel.core.errors import DeviceError
from perfmodel.plan.backends.call import Call, Outcome

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], object]  # (tasks done, tasks in all)

# Workers that may die over one task. From TOGETHER on it runs alone, so that it answers for itself
# and not for a neighbour: where one death ends all workers (loky), each task in flight counts it.
LIVES, TOGETHER = 4, 2


class WorkerDied(Exception):
    """The process that ran a call is gone, and the call's result with it."""


class Pool(ABC):
    """Workers that run calls; a context manager.

    Attributes
    ----------
    workers : int
        Calls that run at a time.
    ahead : int
        Calls handed out at a time: more than run, so that no worker waits for its next one.
    """

    workers: int
    ahead: int

    @abstractmethod
    def start(self, call: Call) -> Any:
        """Hand a call out; the handle is hashable."""

    @abstractmethod
    def wait(self, handles: Collection[Any]) -> Iterable[Any]:
        """Block until at least one call has ended; return those."""

    @abstractmethod
    def fetch(self, handle: Any) -> Outcome[Any]:
        """Outcome of a call that has ended; `WorkerDied` where its worker did not survive it."""

    def cancel(self, handles: Collection[Any]) -> None:  # noqa: B027
        """Forget calls that are not wanted any more."""

    def close(self) -> None:  # noqa: B027
        """End what was started for this pool; a cluster found running stays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], progress: Progress | None = None
    ) -> list[R]:
        """Results in the order of the tasks; the first exception of the function is raised."""
        results: dict[int, R] = {}
        with closing(self.outcomes(function, tasks)) as outcomes:
            for index, outcome in outcomes:
                results[index] = outcome.get()
                if progress is not None:
                    progress(len(results), len(tasks))
        return [results[index] for index in range(len(tasks))]

    def outcomes(
        self, function: Callable[[T], R], tasks: Sequence[T]
    ) -> Generator[tuple[int, Outcome[R]], None, None]:
        """Index and outcome of every task, each once, in the order in which they end.

        Closed early, it takes back what has not begun.

        Raises
        ------
        DeviceError
            A task's worker died `LIVES` times.
        """
        waiting = deque(range(len(tasks)))
        running: dict[Any, int] = {}
        deaths: Counter[int] = Counter()
        try:
            while waiting or running:
                while waiting and self._may_start(waiting[0], running.values(), deaths):
                    index = waiting.popleft()
                    running[self.start(Call(function, tasks[index]))] = index
                for handle in list(self.wait(running)):
                    index = running.pop(handle)
                    try:
                        outcome = self.fetch(handle)
                    except WorkerDied as died:
                        deaths[index] += 1
                        if deaths[index] == LIVES:
                            raise _hopeless(index, tasks[index]) from died
                        waiting.append(index)
                    else:
                        yield index, outcome
        finally:
            self.cancel(running)

    def _may_start(self, index: int, others: Collection[int], deaths: Counter[int]) -> bool:
        """Whether there is room; a suspect shares the workers with no other task."""
        if deaths and any(deaths[task] >= TOGETHER for task in (index, *others)):
            return not others
        return len(others) < self.ahead


def _hopeless(index: int, task: Any) -> DeviceError:
    name = " ".join(repr(task).split())[:80]
    return DeviceError(
        f"task {index}, {name}: its worker process died {LIVES} times; out of memory, "
        "killed from outside, or a crash in compiled code"
    )
