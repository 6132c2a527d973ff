"""A Ray cluster: one that runs already, or worker processes of this machine.

Not Ray's backend for joblib, whose pool of actors ends with ``ActorDiedError`` when one is killed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Collection, Iterable
from typing import Any

from perfmodel.core.errors import DeviceError, UsageError
from perfmodel.plan.backends.base import Pool, WorkerDied
from perfmodel.plan.backends.call import Call, Outcome, cannot_send, load, unpacked

# Read when Ray is first imported. The second, whatever the system, keeps a cluster of this machine
# to the loopback interface.
_QUIET = ("RAY_USAGE_STATS_ENABLED", "0")
_LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

_PATIENCE = 10  # seconds for a cluster to answer


class Ray(Pool):
    """A driver of a Ray cluster; every call is a task of one CPU."""

    def __init__(self, ray: Any, workers: int, ours: bool, name: str) -> None:
        self.workers, self.ahead = workers, max(2 * workers, 64)
        self._ray, self._ours, self._name = ray, ours, name
        self._call = ray.remote(num_cpus=1, max_retries=0)(_run)
        gone = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError",
                "LocalRayletDiedError")  # fmt: skip
        self._died = tuple(getattr(ray.exceptions, name) for name in gone)

    def start(self, call: Call) -> Any:
        """Submit the call; how often it may run again is counted by the pool."""
        try:
            return self._call.remote(call)
        except TypeError as error:
            raise cannot_send(error) from error

    def wait(self, handles: Collection[Any]) -> Iterable[Any]:
        """Ended calls."""
        return self._ray.wait(list(handles), num_returns=1)[0]

    def fetch(self, handle: Any) -> Outcome[Any]:
        """Unpack the answer; a worker that cannot load the work is no death."""
        try:
            return unpacked(self._ray.get(handle))
        except self._died as error:
            raise WorkerDied from error
        except self._ray.exceptions.RayTaskError as error:
            raise cannot_send(error) from error
        except self._ray.exceptions.RayError as error:
            raise DeviceError(f"{self._name} went away") from error

    def cancel(self, handles: Collection[Any]) -> None:
        """Take calls back that have not begun; those that run end by themselves."""
        for handle in handles:
            self._ray.cancel(handle, force=False, recursive=False)

    def close(self) -> None:
        """Leave the cluster, and end it if it is ours."""
        if self._ours:
            self._ray.shutdown()
            _print_deaths(True)


def _run(call: Call) -> bytes:
    return call()


def _print_deaths(wanted: bool) -> None:
    """Ray has no public switch for what it prints to stdout, where data goes, of dead workers."""
    load("ray._private.worker")._worker_logs_enabled = wanted


def open_pool(workers: int, address: str | None) -> Pool:
    """Connect to a cluster, or start one; a connection that the process has already is used."""
    os.environ.setdefault(*_QUIET)
    if address is None:
        os.environ.setdefault(*_LOOPBACK)
    ray = load("ray")
    ours = not ray.is_initialized()
    if ours:
        _print_deaths(False)
        try:
            _connect(ray, workers, address)
        except BaseException:
            _print_deaths(True)
            raise
    name = "the local Ray cluster" if address is None else f"the Ray cluster at {address}"
    return Ray(ray, int(ray.cluster_resources().get("CPU", 0)), ours, name)


def _connect(ray: Any, workers: int, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        # "local", or the variable RAY_ADDRESS would win
        ray.init("local", num_cpus=workers, include_dashboard=False, **quiet)
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        raise UsageError(f"address {address!r} is not HOST:PORT or ray://HOST:PORT")
    try:
        # Ray itself would go on for five minutes where nobody listens
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
        ray.init(address, **quiet)
    except (OSError, OverflowError, ValueError, RuntimeError, ImportError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address} (one with tokens asks for RAY_AUTH_MODE=token): "
            f"{error}"
        ) from None
