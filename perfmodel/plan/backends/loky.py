"""Worker processes of this machine, by joblib's loky.

The executor itself and not `joblib.Parallel`, which ends the whole run when a worker dies, with no
word of what had been done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Collection, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from perfmodel.plan.backends.base import Pool, WorkerDied
from perfmodel.plan.backends.call import ONE_THREAD, Call, Outcome, cannot_send, load, unpacked


class Loky(Pool):
    """An executor of loky, renewed when a death breaks it.

    Loky ends all workers when one dies, so every call in flight then runs again.
    """

    def __init__(self, workers: int) -> None:
        self.workers, self.ahead = workers, 2 * workers
        self._loky = load("joblib.externals.loky")
        self._terminated: type[Exception] = load(
            "joblib.externals.loky.process_executor"
        ).TerminatedWorkerError
        # Loky renews a worker whose memory has grown, which compiling does, and warns each time.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        # Their start lets SIGINT through again, which workers must not inherit: start them before.
        for tracker in ("joblib.externals.loky.backend.resource_tracker",
                        "multiprocessing.resource_tracker"):  # fmt: skip
            load(tracker).ensure_running()
        self._executor = self._renewed()

    def start(self, call: Call) -> Any:
        """Queue the call, with new workers where the old ones have died."""
        with _interrupts_held():
            try:
                return self._executor.submit(call)
            except BrokenProcessPool:
                self.close()
                self._executor = self._renewed()
                return self._executor.submit(call)

    def wait(self, handles: Collection[Any]) -> Iterable[Any]:
        """Ended futures."""
        return wait(handles, return_when=FIRST_COMPLETED).done

    def fetch(self, handle: Any) -> Outcome[Any]:
        """Unpack the answer; a worker that cannot load the work is no death."""
        try:
            return unpacked(handle.result())
        except self._terminated as error:
            raise WorkerDied from error
        except Exception as error:
            raise cannot_send(error) from error

    def cancel(self, handles: Collection[Any]) -> None:
        """Take the calls back that have not begun."""
        for future in handles:
            future.cancel()

    def close(self) -> None:
        """End the workers, busy or not."""
        self._executor.shutdown(wait=True, kill_workers=True)

    def _renewed(self) -> Any:
        return self._loky.ProcessPoolExecutor(
            max_workers=self.workers, env=ONE_THREAD, initializer=_follow, initargs=(os.getpid(),)
        )


def open_pool(workers: int, address: str | None) -> Pool:
    """Worker processes, started with the first call."""
    return Loky(workers)


@contextlib.contextmanager
def _interrupts_held() -> Generator[None, None, None]:
    """Hold SIGINT back while workers start, which inherit that and never see one.

    Ctrl-C reaches the whole process group; the caller, who gets it afterwards, decides what ends.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(caller: int) -> None:
    """Let a worker end with its caller, also with one that is killed and cannot say so."""

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
