"""How many tasks run at once: in this process, in several, or on a Ray or Dask cluster.

`open_pool` starts or finds the workers, `run` is the one-line form. One file per backend; to add
one, copy `serial.py`. What the tasks are is no business of this package.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

from perfmodel.core.errors import UsageError, near
from perfmodel.plan.backends.base import Pool, Progress
from perfmodel.plan.backends.call import Outcome, load

__all__ = ["BACKENDS", "Outcome", "Pool", "Progress", "open_pool", "run"]

T = TypeVar("T")
R = TypeVar("R")

BACKENDS = ("auto", "serial", "loky", "ray", "dask")
_CLUSTERS = ("ray", "dask")


class _Backend(Protocol):
    """A module of this package."""

    def open_pool(self, workers: int, address: str | None) -> Pool: ...


def open_pool(
    backend: str = "auto", *, workers: int | None = None, address: str | None = None
) -> Pool:
    """Workers to run tasks on; close them, or use them in a ``with``.

    Parameters
    ----------
    backend : str
        ``serial`` (this process), ``loky`` (processes of this machine), ``ray`` or ``dask`` (a
        cluster), or ``auto``: loky, or serial where there is one CPU or no joblib.
    workers : int, optional
        Worker processes to start, each with one thread; default: the CPUs this process may use.
    address : str, optional
        A running Ray or Dask cluster, used and left running; without it ray and dask start a
        cluster on this machine, reached over the loopback interface only, and end it.

    Raises
    ------
    UsageError
        Unknown backend, a missing library, no cluster at the address.

    Examples
    --------
    >>> with open_pool("serial") as pool:
    ...     pool.map(abs, [-1, -2])
    [1, 2]
    """
    if backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise UsageError(f"no backend {backend!r}; known: {known}{near(backend, BACKENDS)}")
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers} must be at least 1")
    if address is not None and backend not in _CLUSTERS:
        raise UsageError(f"an address needs backend ray or dask, not {backend}")
    if address is not None and workers is not None:
        raise UsageError("give workers (a new cluster) or an address (a running one), not both")
    if backend == "auto":
        if workers is None:
            workers = _cpus() if importlib.util.find_spec("joblib") else 1
        backend = "loky" if workers > 1 else "serial"
    if backend == "serial" and (workers or 1) > 1:
        raise UsageError(f"backend serial is one process, not {workers}: take loky")
    count = 1 if backend == "serial" else workers or _cpus()
    module = cast(_Backend, importlib.import_module(f"{__name__}.{backend}"))
    return module.open_pool(count, address)


def run(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    backend: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> list[R]:
    """Run a function on every task and return the results in the order of the tasks.

    A worker that dies loses nothing: its tasks run again elsewhere. The function's own exceptions
    end the run and reach the caller as they are.

    Parameters
    ----------
    function : callable
        Takes one task; what it is and what it returns must pickle, unless the backend is serial.
    tasks : sequence
    backend, workers, address
        See `open_pool`.
    progress : callable, optional
        Called as ``progress(done, total)`` after each task.

    Raises
    ------
    UsageError
        See `open_pool`; also work that cannot be sent to another process.
    perfmodel.core.errors.DeviceError
        A task that kills every worker that runs it, named; or a cluster that went away.

    Examples
    --------
    >>> run(abs, [-3, 2, -1], backend="serial")
    [3, 2, 1]
    """
    with open_pool(backend, workers=workers, address=address) as pool:
        return pool.map(function, tasks, progress)


def _cpus() -> int:
    """CPUs that this process may use, by affinity and control group."""
    return load("joblib").cpu_count()
