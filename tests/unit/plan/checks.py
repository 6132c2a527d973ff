"""What every pool of worker processes must do, whatever its backend."""

import os
import signal
import threading
import time

import pytest

from perfmodel.core.errors import DeviceError, InfeasibleError, UsageError
from perfmodel.plan.backends.base import LIVES
from tests.unit.plan import work

TASKS = list(range(20))
SERIAL = [work.row(x) for x in TASKS]


def kill_when_told(folder):
    """Kill the process that writes its id into the folder."""

    def kill():
        left = folder / "pid"
        while not left.exists():
            time.sleep(0.01)
        os.kill(int(left.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def check_pool(pool, folder):
    """What holds of any pool of two worker processes."""
    assert pool.workers == 2
    assert pool.map(work.row, []) == []
    assert pool.map(work.row, TASKS) == SERIAL
    where = pool.map(work.environment, TASKS)
    assert os.getpid() not in {found["pid"] for found in where}
    assert {found["threads"] for found in where} == {"1"}
    with pytest.raises(InfeasibleError) as refused:
        pool.map(work.refuse, TASKS)
    error = refused.value
    assert (str(error), error.reason, error.nearest) == ("does not fit", "memory", "more GPUs")
    with pytest.raises(UsageError, match=r"cannot be sent .*pickle '_thread.lock' object$") as bad:
        pool.map(work.row, [threading.Lock()])
    assert "\n" not in str(bad.value)
    killer = kill_when_told(folder)
    assert pool.map(work.wait_to_be_killed, [(str(folder), x) for x in TASKS]) == SERIAL
    killer.join()
    with pytest.raises(DeviceError, match=f"^task 3, 3: its worker process died {LIVES} times"):
        pool.map(work.die, range(6))
    assert pool.map(work.row, TASKS) == SERIAL
