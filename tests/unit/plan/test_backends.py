"""Every backend gives the serial results, in order, once, whatever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfmodel.core.errors import DeviceError, InfeasibleError, UsageError
from perfmodel.plan import backends
from perfmodel.plan.backends import open_pool, run
from perfmodel.plan.backends.base import LIVES
from tests.unit.plan import work
from tests.unit.plan.checks import SERIAL, TASKS, check_pool

ROOT = Path(__file__).parents[3]


def test_loky(tmp_path, capfd):
    pytest.importorskip("joblib")
    with open_pool("loky", workers=2) as pool:
        check_pool(pool, tmp_path)
    assert capfd.readouterr() == ("", "")


INTERRUPTED = """
import sys
from perfmodel.plan.backends import open_pool
from tests.unit.plan import work
if __name__ == "__main__":
    try:
        with open_pool("loky", workers=2) as pool:
            pool.map(work.wait_to_be_killed, [(sys.argv[1], x) for x in range(9)])
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_an_interrupt_ends_the_workers(tmp_path):
    pytest.importorskip("joblib")
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], cwd=ROOT, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as caller:  # fmt: skip
        while not (tmp_path / "pid").exists():
            assert caller.poll() is None, caller.stderr.read()
            time.sleep(0.01)
        os.killpg(caller.pid, signal.SIGINT)  # as a terminal does
        assert caller.communicate(timeout=60) == ("", "")
        assert caller.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_oddities_of_loky_calls():
    """Results and exceptions that cannot travel are the task's failure; the pool goes on."""
    pytest.importorskip("joblib")
    with open_pool("loky", workers=1) as pool:
        with pytest.raises(RuntimeError, match=r"^Local: of no module$"):
            pool.map(work.refuse_oddly, [1])
        with pytest.raises((AttributeError, TypeError), match="pickle"):
            pool.map(work.return_oddly, [1])
        assert pool.map(work.row, TASKS) == SERIAL
        assert pool.map(lambda x: x + 1, [1, 2]) == [2, 3]  # of no module, by value


def test_work_that_workers_cannot_import(tmp_path, monkeypatch):
    pytest.importorskip("joblib")
    (tmp_path / "far_away.py").write_text("def work(x): return x\n")
    with monkeypatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        import far_away
    with open_pool("loky", workers=1) as pool:
        with pytest.raises(UsageError, match="No module named 'far_away'"):
            pool.map(far_away.work, [1])
        assert pool.map(work.row, TASKS) == SERIAL


def test_serial_runs_here_and_keeps_the_traceback():
    assert run(work.row, TASKS, backend="serial") == SERIAL
    assert run(work.environment, [1], backend="serial")[0]["pid"] == os.getpid()
    with pytest.raises(InfeasibleError) as refused:
        run(work.refuse, TASKS, backend="serial")
    assert refused.traceback[-1].name == "refuse"
    assert not hasattr(refused.value, "__notes__")


def test_progress_counts_every_task():
    seen = []
    run(work.row, TASKS, backend="serial", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 20) for done in range(1, 21)]


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("infects", [False, True])
def test_any_order_and_deaths_lose_nothing(workers, seed, infects):
    pool = work.Shuffled(workers, seed, deaths={0: 2, 5: 1, 19: 2}, infects=infects)
    indices = []
    for index, outcome in pool.outcomes(work.row, TASKS):
        indices.append(index)
        assert outcome.get() == SERIAL[index]
    assert sorted(indices) == TASKS  # each once
    assert not any(pool.deaths.values())
    assert not pool.calls


@pytest.mark.parametrize("infects", [False, True])
def test_the_deadly_task_is_named_and_its_neighbours_are_not(infects):
    pool = work.Shuffled(3, deaths={4: 99}, infects=infects)
    done = set()
    with pytest.raises(DeviceError, match=rf"^task 4, 4: its worker process died {LIVES} times"):
        done.update(index for index, _ in pool.outcomes(work.row, TASKS))
    assert 99 - pool.deaths[4] == LIVES
    assert pool.started[-1] == (4, 0)  # the last try ran alone
    assert {task for task, _ in pool.started} == set(TASKS)


@pytest.mark.parametrize("infects", [False, True])
def test_a_task_survives_deaths_of_its_neighbours(infects):
    """However often: whoever has seen two runs alone, where none can be a neighbour's."""
    pool = work.Shuffled(20, deaths=dict.fromkeys(TASKS, LIVES - 1), infects=infects)
    if infects:
        pool.deaths = dict.fromkeys(TASKS[:2], 1) | dict.fromkeys(TASKS[2:], 0)
    assert pool.map(work.row, TASKS) == SERIAL


def test_an_error_takes_back_what_has_not_begun():
    pool = work.Shuffled(4)
    with pytest.raises(InfeasibleError):
        pool.map(work.refuse, TASKS)
    assert not pool.calls
    assert len(pool.started) < 20
    assert pool.cancelled


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"backend": "lokey"}, "no backend 'lokey'; known: .*; nearest: loky"),
        ({"workers": 0}, "workers 0 must be at least 1"),
        ({"backend": "loky", "address": "127.0.0.1:1"}, "an address needs backend ray or dask"),
        ({"address": "127.0.0.1:1"}, "an address needs backend ray or dask"),
        ({"backend": "dask", "address": "127.0.0.1:1", "workers": 2}, "not both"),
        ({"backend": "serial", "workers": 2}, "is one process, not 2"),
    ],
)
def test_bad_questions_are_refused(question, says):
    with pytest.raises(UsageError, match=says):
        open_pool(**question)


@pytest.mark.parametrize(
    ("backend", "module"),
    [("loky", "joblib.externals.loky"), ("ray", "ray"), ("dask", "distributed")],
)
def test_a_missing_library_says_what_to_install(backend, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    name = module.partition(".")[0]
    with pytest.raises(UsageError, match=rf"needs {name}, .*pip install 'perfmodel\[distrib"):
        open_pool(backend, workers=2)


def test_auto_is_serial_without_joblib_or_with_one_worker(monkeypatch):
    assert type(open_pool(workers=1)).__name__ == "Serial"
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    assert type(open_pool()).__name__ == "Serial"


def test_auto_is_loky_with_several_workers():
    pytest.importorskip("joblib")
    with open_pool(workers=2) as pool:
        assert type(pool).__name__ == "Loky"


def test_backends_import_nothing_heavy():
    code = """
import json, sys
from perfmodel.plan import backends, ensemble, capacity, progress
backends.run(abs, [1], backend="serial")
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not {"joblib", "ray", "dask", "distributed", "rich", "scipy"} & loaded
