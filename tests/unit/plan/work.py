"""Work for the tests of `perfmodel.plan`: functions that other processes can import, and pools."""

import math
import os
import random
import time
from pathlib import Path

from perfmodel.core.errors import InfeasibleError
from perfmodel.plan.backends import Pool
from perfmodel.plan.backends.base import WorkerDied
from perfmodel.plan.backends.call import unpacked


def row(x):
    """A row with a float that a text form of few digits would not keep."""
    return {"x": x, "root": math.sqrt(x + 0.1), "none": None, "name": f"task {x}"}


def noisy(seed):
    """A normal value of mean 10 per seed; "late" exists for odd seeds only."""
    value = random.Random(seed).gauss(10, 1)
    return {"x": value, "late": value if seed % 2 else None, "text": "a"}


def wait_to_be_killed(task):
    """As `row`; task 3 of (folder, x) leaves its process id and waits, the first time."""
    folder, x = task
    if x == 3:
        left = Path(folder) / "pid"
        if not left.exists():
            written = left.with_suffix(".new")
            written.write_text(str(os.getpid()))
            written.rename(left)
            time.sleep(600)
    return row(x)


def die(x):
    """Task 3 takes its worker with it, always."""
    if x == 3:
        os.kill(os.getpid(), 9)
    return row(x)


def refuse(x):
    if x == 3:
        raise InfeasibleError("does not fit", "memory", "more GPUs")
    return row(x)


def refuse_oddly(x):
    class Local(Exception):
        pass

    raise Local("of no module")


def return_oddly(x):
    return lambda: x


def environment(_):
    return {"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}


def mark(task):
    """As `row` of (folder, x); leaves a file per call, and from 10 on waits for the file "go"."""
    folder, x = Path(task[0]), task[1]
    (folder / f"{x}.{len(list(folder.glob(f'{x}.*')))}").touch()
    while x >= 10 and not (folder / "go").exists():
        time.sleep(0.01)
    return row(x)


class Shuffled(Pool):
    """Workers in this process that end in any order, and die when told to.

    ``deaths`` maps a task to how often its worker dies; ``infects`` also kills what runs beside it.
    """

    def __init__(self, workers, seed=0, deaths=None, infects=False):
        self.workers, self.ahead = workers, 2 * workers
        self.random, self.deaths, self.infects = random.Random(seed), dict(deaths or {}), infects
        self.started, self.cancelled, self.lost, self.calls = [], [], set(), {}

    def start(self, call):
        handle = object()
        self.calls[handle] = call
        self.started.append((call.task, len(self.calls) - 1))  # and how many run beside it
        return handle

    def wait(self, handles):
        handles = list(handles)
        assert 0 < len(handles) <= self.ahead
        for handle in handles:
            task = self.calls[handle].task
            if self.deaths and self.deaths.get(task, 0) > 0:
                self.deaths[task] -= 1
                self.lost.update(handles if self.infects else [handle])
                return handles if self.infects else [handle]
        return self.random.sample(handles, self.random.randint(1, len(handles)))

    def fetch(self, handle):
        call = self.calls.pop(handle)
        if handle in self.lost:
            raise WorkerDied
        return unpacked(call())

    def cancel(self, handles):
        for handle in handles:
            self.cancelled.append(self.calls.pop(handle).task)
