"""A Dask cluster: one that runs already, or worker processes of this machine.

Not joblib's own Dask backend, which scatters every task's arguments into the memory of some worker
and ends with ``FutureCancelledError`` when that worker is killed.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Collection, Iterable
from concurrent.futures import CancelledError
from typing import Any

from perfmodel.core.errors import DeviceError, UsageError
from perfmodel.plan.backends.base import Pool, WorkerDied
from perfmodel.plan.backends.call import ONE_THREAD, Call, Outcome, cannot_send, load, unpacked

_PATIENCE = 10  # seconds for a scheduler to answer and for a first worker to be there


class Dask(Pool):
    """A client of a Dask scheduler, and the scheduler where there was none."""

    def __init__(self, client: Any, close: contextlib.ExitStack, workers: int, name: str) -> None:
        self.workers, self.ahead = workers, max(2 * workers, 64)
        self._distributed = load("distributed")
        self._client, self._close, self._name = client, close, name

    def start(self, call: Call) -> Any:
        """Submit the call; without arguments, which Dask would search for its own collections."""
        try:
            return self._client.submit(call, pure=False)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise cannot_send(error) from error

    def wait(self, handles: Collection[Any]) -> Iterable[Any]:
        """Ended futures."""
        try:
            with self._client.as_current():
                return self._distributed.wait(list(handles), return_when="FIRST_COMPLETED").done
        except CancelledError as error:
            raise DeviceError(f"{self._name} went away") from error

    def fetch(self, handle: Any) -> Outcome[Any]:
        """Unpack the answer; an error of Dask's own is a dead worker or one that lacks code."""
        try:
            return unpacked(handle.result())
        except self._distributed.KilledWorker as error:
            raise WorkerDied from error
        except CancelledError as error:
            raise DeviceError(f"{self._name} went away") from error
        except Exception as error:
            raise cannot_send(error) from error

    def cancel(self, handles: Collection[Any]) -> None:
        """Take calls back; a scheduler that is gone has forgotten them."""
        with contextlib.suppress(CancelledError, OSError):
            self._client.cancel(list(handles))

    def close(self) -> None:
        """Leave the cluster, and end it if it is ours."""
        self._close.close()


def open_pool(workers: int, address: str | None) -> Pool:
    """Connect to a scheduler, or start one with its workers."""
    opened = contextlib.ExitStack()
    try:
        return _connect(opened, workers, address)
    except BaseException:
        opened.close()
        raise


def _connect(opened: contextlib.ExitStack, workers: int, address: str | None) -> Pool:
    distributed, dask = load("distributed"), load("dask")
    target, name = address, f"the Dask cluster at {address}"
    if address is None:
        # deaths are counted by the pool, and a killed worker is no news for stderr
        opened.enter_context(dask.config.set({
            "distributed.scheduler.allowed-failures": 0,
            # in force before a worker imports what logs
            "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
        }))  # fmt: skip
        cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address="127.0.0.1:0", memory_limit=0, silence_logs=logging.CRITICAL,
            env=ONE_THREAD,
        )  # fmt: skip
        target, name = opened.enter_context(cluster), "the local Dask cluster"
    try:
        client = distributed.Client(target, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {address}: {error}") from None
    opened.enter_context(client)
    try:  # a cluster that grows on demand needs a task before it has a worker
        client.submit(int, pure=False).result(timeout=_PATIENCE)
    except TimeoutError:
        raise UsageError(f"{name} had no worker for {_PATIENCE} s") from None
    return Dask(client, opened, sum(client.ncores().values()), name)
