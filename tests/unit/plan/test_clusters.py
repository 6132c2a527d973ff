"""Ray and Dask: real clusters of this machine, started here or found at an address."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfmodel.core.errors import UsageError
from perfmodel.plan.backends import open_pool, run
from tests.unit.plan import work
from tests.unit.plan.checks import SERIAL, TASKS, check_pool, kill_when_told

ROOT = Path(__file__).parents[3]


def test_dask(tmp_path, capfd):
    pytest.importorskip("distributed")
    with open_pool("dask", workers=2) as pool:
        check_pool(pool, tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_ray(tmp_path, capfd, monkeypatch):
    # before the next line imports Ray, which is when it looks
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = pytest.importorskip("ray")
    with open_pool("ray", workers=2) as pool:
        check_pool(pool, tmp_path)
        assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    assert capfd.readouterr() == ("", "")


def test_a_dask_cluster_at_an_address_is_left_running(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:  # fmt: skip
        for _ in range(2):
            found = run(work.row, TASKS, backend="dask", address=cluster.scheduler_address)
            assert found == SERIAL
        killer = kill_when_told(tmp_path)
        tasks = [(str(tmp_path), x) for x in TASKS]
        with open_pool("dask", address=cluster.scheduler_address) as pool:
            assert pool.workers == 2
            assert pool.map(work.wait_to_be_killed, tasks) == SERIAL
        killer.join()


TWICE = """
import sys
from perfmodel.plan.backends import run
from tests.unit.plan import work
if __name__ == "__main__":
    for _ in range(2):
        print(run(work.row, range(20), backend="ray", address=sys.argv[1]))
"""


@pytest.mark.slow
def test_a_ray_cluster_at_an_address_is_left_running(tmp_path):
    pytest.importorskip("ray")
    env = os.environ | {
        "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = [
        sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head",
        "--block", "--port", str(port), "--num-cpus", "2", "--include-dashboard", "false",
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as written:
        head = subprocess.Popen(start, stdout=written, stderr=subprocess.STDOUT, env=env)
    try:
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            time.sleep(0.1)
        done = subprocess.run(
            [sys.executable, "-c", TWICE, f"127.0.0.1:{port}"],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == (f"{SERIAL}\n" * 2, "")
        assert head.poll() is None
    finally:
        head.terminate()
        head.wait(60)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1"])
@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_bad_addresses_are_refused(backend, address):
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    with pytest.raises(UsageError, match=address):
        open_pool(backend, address=address)


def test_no_ray_at_an_address_is_told_at_once():
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        open_pool("ray", address="127.0.0.1:1")
