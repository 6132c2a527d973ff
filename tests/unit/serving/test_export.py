"""Tables and traces: round trips, structure, and files that are whole or not there."""

import csv
import dataclasses
import itertools
import json
import sys

import numpy as np
import pytest

from perfmodel.core.errors import DataError, UsageError
from perfmodel.serving import traces
from perfmodel.serving.simulate import POLICIES, Cluster, Engine, Replica, Simulation, Slo, serve
from perfmodel.serving.simulate.export import (
    check_path,
    request_blocks,
    write_requests,
    write_table,
)
from perfmodel.serving.simulate.fleet import HostStage, Routing
from perfmodel.serving.simulate.series import series
from perfmodel.serving.simulate.trace import events, write_trace
from tests.unit.serving.simulation import poisson, requests, surface

ENGINE = Engine(POLICIES["vllm-v1"], 512, 4, 16, 200)
COLUMNS = (
    "request", "arrival_s", "isl_tokens", "osl_tokens", "ttft_ms", "tpot_ms", "e2el_ms",
    "queue_time_ms", "preempted", "replica",
)  # fmt: skip


def run(asked, engine=ENGINE, replicas=1, keep=True, log=0, slo=None, **more) -> Simulation:
    cluster = Cluster(
        (surface(),), (Replica(engine),) * replicas, routing=Routing.ROUND_ROBIN, **more
    )
    return serve(cluster, asked, keep_requests=keep, log=log, slos=(slo or Slo(),), compiled=False)


@pytest.fixture(scope="module")
def made() -> Simulation:
    """Sixty requests on two replicas, some of one token."""
    rng = np.random.default_rng(0)
    asked = poisson(30.0, 60, rng.integers(10, 900, 60), rng.integers(1, 40, 60))
    asked = dataclasses.replace(asked, session=np.arange(60) // 3, hidden=asked.output // 2)
    return run(asked, replicas=2, log=10_000, slo=Slo(ttft=0.2))


# --- tables ---------------------------------------------------------------------------------------


def test_columns_are_those_that_apply(made):
    plain = next(request_blocks(run(requests([0.0], 100, 5))))
    assert tuple(plain) == COLUMNS
    more = next(request_blocks(made))
    assert tuple(more) == (*COLUMNS, "hidden_tokens", "visible_ms", "session", "good")
    cached = next(request_blocks(run(
        dataclasses.replace(requests([0.0, 1.0], 48, 2), hash_block=16,
                            hash_ids=(np.array([0, 3, 6]), np.array([1, 2, 3, 1, 2, 3]))),
        dataclasses.replace(ENGINE, prefix_cache=True),
    )))  # fmt: skip
    assert cached["hit_tokens"].tolist() == [0, 32]


def test_csv_reads_back(made, tmp_path):
    path = tmp_path / "requests.csv"
    write_requests(made, path)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["request"]) for row in rows] == list(range(60))
    for name, values in (("ttft_ms", made.ttft), ("e2el_ms", made.e2el), ("tpot_ms", made.tpot)):
        found = [float(row[name] or "nan") for row in rows]
        np.testing.assert_array_equal(found, values * 1e3)
    assert [row["good"] == "True" for row in rows] == made.good.tolist()
    assert [row["tpot_ms"] == "" for row in rows] == (made.requests.output == 1).tolist()


def test_the_table_is_a_trace(made, tmp_path):
    """What was asked can be replayed from what was written."""
    write_requests(made, tmp_path / "requests.csv")
    asked = traces.read(tmp_path / "requests.csv", "plain").requests
    for name in ("prompt", "output", "hidden", "session"):
        np.testing.assert_array_equal(getattr(asked, name), getattr(made.requests, name))
    np.testing.assert_allclose(np.diff(asked.arrival), np.diff(made.requests.arrival), atol=1e-12)


def test_json_lines_read_back(made, tmp_path):
    path = tmp_path / "requests.jsonl"
    write_requests(made, path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["replica"] for row in rows] == made.record.replica.tolist()
    assert [row["good"] for row in rows] == made.good.tolist()
    assert [row["tpot_ms"] is None for row in rows] == (made.requests.output == 1).tolist()


def test_parquet_reads_back(made, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "requests.parquet"
    write_table(request_blocks(made, 7), path)
    table = parquet.read_table(path)
    expected = next(request_blocks(made))
    assert table.column_names == list(expected)
    assert table["tpot_ms"].null_count == (made.requests.output == 1).sum()
    for name, values in expected.items():
        np.testing.assert_array_equal(table[name].to_numpy(), values)
    assert [str(table.schema.field(name).type) for name in ("request", "ttft_ms", "good")] == [
        "int64", "double", "bool"
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_blocks_do_not_show(made, tmp_path, suffix):
    once, often = tmp_path / f"once{suffix}", tmp_path / f"often{suffix}"
    write_requests(made, once)
    write_table(request_blocks(made, 7), often)
    assert once.read_bytes() == often.read_bytes()


def test_a_series_is_a_table(made, tmp_path):
    columns = series(made, bins=5)
    write_table([columns], tmp_path / "series.csv")
    rows = list(csv.DictReader((tmp_path / "series.csv").read_text().splitlines()))
    assert [float(row["waiting"]) for row in rows] == columns["waiting"].tolist()


# --- files that cannot be written -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "word"),
    [("requests.cvs", UsageError, r"'.cvs' is not one of .csv, .jsonl, .parquet; nearest: .csv"),
     ("requests", UsageError, "suffix ''"), ("no/requests.csv", DataError, "no folder"),
     ("folder.csv", DataError, "it is a folder"), ("file.csv/x.csv", DataError, "no folder")],
)  # fmt: skip
def test_paths_that_cannot_be(made, tmp_path, name, error, word):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.csv").touch()
    for write in (check_path, lambda path: write_requests(made, path)):
        with pytest.raises(error, match=word):
            write(tmp_path / name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file.csv", "folder.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("error", "seen", "word"),
    [(OSError(28, "No space left on device"), DataError, "cannot be written: No space left"),
     (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop")],
)  # fmt: skip
def test_a_failure_half_way_leaves_the_old_file(made, tmp_path, suffix, error, seen, word):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"requests{suffix}"
    path.write_text("old")

    def blocks():
        yield next(request_blocks(made))
        raise error

    with pytest.raises(seen, match=word):
        write_table(blocks(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


def test_without_pyarrow_the_extra_is_named(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'perfmodel\[distributed\]'"):
        write_requests(made, tmp_path / "requests.parquet")
    assert not list(tmp_path.iterdir())


def test_requests_that_were_not_kept(tmp_path):
    lean = run(requests([0.0], 100, 5), keep=False)
    for write, name in ((write_requests, "x.csv"), (write_trace, "x.json")):
        with pytest.raises(UsageError, match="keep_requests=True"):
            write(lean, tmp_path / name)
    assert not list(tmp_path.iterdir())


# --- traces ---------------------------------------------------------------------------------------


def spans(found, process=None, track=None):
    return [
        event
        for event in found
        if event["ph"] == "X" and process in (None, event["pid"]) and track in (None, event["tid"])
    ]


def test_a_trace_is_json_with_the_fields_viewers_need(made, tmp_path):
    path = tmp_path / "trace.json"
    write_trace(made, path)
    found = json.loads(path.read_text())["traceEvents"]
    assert found == list(events(made))
    for event in found:
        assert {"name", "ph", "pid", "tid", "args"} <= event.keys()
        assert event["ph"] in ("X", "M")
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] > 0
    named = {(event["pid"], event["tid"]) for event in found if event["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in spans(found)} <= named
    assert [e["args"]["name"] for e in found if e["name"] == "process_name"] == [
        "replica 0", "replica 1"
    ]  # fmt: skip


def test_steps_are_the_log(made):
    for replica in (0, 1):
        steps = spans(events(made), replica, 0)
        assert sum(step["args"]["steps"] for step in steps) == made.record.steps[replica]
        busy = sum(step["dur"] for step in steps)
        assert busy / 1e6 == pytest.approx(made.record.busy[replica], abs=1e-9 * len(steps))
    assert {step["name"] for step in spans(events(made), None, 0)} == {
        "prefill", "decode", "mixed"
    }  # fmt: skip


def test_spans_of_a_track_do_not_overlap(made):
    found = [event for event in events(made) if event["ph"] == "X"]
    tracks = {(event["pid"], event["tid"]) for event in found}
    assert max(track for _, track in tracks) > 2
    for process, track in tracks:
        own = sorted(spans(found, process, track), key=lambda event: event["ts"])
        for before, after in itertools.pairwise(own):
            # microseconds with three decimals
            assert round(1e3 * (before["ts"] + before["dur"])) <= round(1e3 * after["ts"])


def test_the_spans_of_a_request_by_hand():
    """It waits for the host, then its prompt, its other tokens, and the host again."""
    table = surface()
    stages = (HostStage(1, 0.5), HostStage(1, 0.25, after=True))
    found = spans(events(run(requests([1.0], 100, 3), stages=stages)))
    assert [event["name"] for event in found] == ["queue", "prefill", "decode", "host"]
    prompt, decode = table.time([], [(100, 0)]), table.time([101]) + table.time([102])
    spent = np.array([0.5, prompt, decode, 0.25]) * 1e6
    np.testing.assert_allclose([event["dur"] for event in found], spent, atol=2e-3)
    begins = 1e6 + np.cumsum([0.0, *spent[:-1]])
    np.testing.assert_allclose([event["ts"] for event in found], begins, atol=2e-3)
    assert found[0]["args"] == {
        "request": 0, "prompt_tokens": 100, "output_tokens": 3, "hit_tokens": 0, "preempted": 0
    }  # fmt: skip


def test_only_the_first_requests_are_drawn(made):
    drawn = {event["args"]["request"] for event in spans(events(made, 10)) if event["tid"]}
    assert drawn == set(range(10))
    lean = run(requests([0.0], 100, 5), keep=False, log=100)
    assert len(spans(events(lean))) == 5  # its steps alone


def test_a_trace_is_a_json_file(made, tmp_path):
    with pytest.raises(UsageError, match=r"'\.jsn' is not one of \.json; nearest: \.json"):
        write_trace(made, tmp_path / "trace.jsn")
