"""Chrome trace of a run: what each replica's steps held, and where each request's time went.

The JSON opens in ui.perfetto.dev and chrome://tracing: a process per replica, its steps in the
first track, below them requests in as many tracks as are needed for none to overlap. The format is
Google's "Trace Event Format" (complete events ``X``, metadata ``M``; microseconds).
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from perfmodel.core.errors import UsageError
from perfmodel.core.files import whole_file
from perfmodel.serving.requests import Times
from perfmodel.serving.simulate.export import check_path
from perfmodel.serving.simulate.record import LOG
from perfmodel.serving.simulate.result import Simulation

Event = dict[str, Any]

SUFFIXES: Final = (".json",)
_STEPS: Final = 0  # track of the steps


def write_trace(simulation: Simulation, path: str | Path, requests: int = 1000) -> None:
    """Write a Chrome trace.

    Parameters
    ----------
    simulation : Simulation
        With a log of steps or the times of every request, or both.
    path : str or Path
        A .json file.
    requests : int
        Requests to draw, the first to arrive.

    Raises
    ------
    UsageError
        Another suffix, or there is nothing to draw.
    DataError
        The file cannot be written.
    """
    path = check_path(path, SUFFIXES)
    if not simulation.record.logged and not simulation.kept:
        raise UsageError("a trace needs a log of steps (log=N) or keep_requests=True")
    encode = json.JSONEncoder(allow_nan=False).encode
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[')
        for index, event in enumerate(events(simulation, requests)):
            file.write(("," if index else "") + "\n" + encode(event))
        file.write("\n]}\n")


def events(simulation: Simulation, requests: int = 1000) -> Iterator[Event]:
    """Events of a trace, see `write_trace`; the process of replica ``r`` is ``r``."""
    for index in range(len(simulation.cluster.replicas)):
        yield _named("process_name", index, 0, f"replica {index}")
        yield _named("thread_name", index, _STEPS, "steps")
    yield from _steps(simulation)
    if simulation.kept:
        yield from _requests(simulation, requests)


def _steps(simulation: Simulation) -> Iterator[Event]:
    log = simulation.record.log[: simulation.record.logged]
    at = {name: place for place, name in enumerate(LOG)}
    begins, ends = _nanoseconds(log[:, at["begin"]]), _nanoseconds(log[:, at["end"]])
    whole = log.astype(np.int64)
    for row, begin, end in zip(whole.tolist(), begins, ends, strict=True):
        decodes, prompt = row[at["decodes"]], row[at["prompt_tokens"]]
        name = "mixed" if decodes and prompt else "prefill" if prompt else "decode"
        said = {key: row[at[key]] for key in ("steps", "decodes", "prompt_tokens", "blocks")}
        yield _span(name, row[at["replica"]], _STEPS, begin, end, said)


def _requests(simulation: Simulation, most: int) -> Iterator[Event]:
    """Spans of the first requests to arrive, each in the first track that is free again."""
    record, asked = simulation.record, simulation.requests
    drawn = np.argsort(record.arrival, kind="stable")[: max(most, 0)]
    phases = ("queue", "prefill", "decode", "host")
    moments = zip(
        *(
            _nanoseconds(times[drawn])
            for times in (record.arrival, record.start, record.first, record.last, record.finish)
        ),
        strict=True,
    )
    homes: list[int] = record.replica[drawn].tolist()
    free: dict[int, list[tuple[int, int]]] = {home: [] for home in homes}
    for index, home, times in zip(drawn.tolist(), homes, moments, strict=True):
        tracks = free[home]
        if tracks and tracks[0][0] <= times[0]:
            _, track = heapq.heappop(tracks)
        else:
            track = len(tracks) + 1
            yield _named("thread_name", home, track, f"requests {track}")
        heapq.heappush(tracks, (times[-1], track))
        said = {
            "request": index, "prompt_tokens": int(asked.prompt[index]),
            "output_tokens": int(asked.output[index]), "hit_tokens": int(record.hits[index]),
            "preempted": int(record.preempted[index]),
        }  # fmt: skip
        for name, begin, end in zip(phases, times[:-1], times[1:], strict=True):
            if end > begin:
                yield _span(name, home, track, begin, end, said)


def _nanoseconds(times: Times) -> list[int]:
    """Whole nanoseconds: ends and beginnings that are equal stay so."""
    return np.rint(times * 1e9).astype(np.int64).tolist()


def _span(name: str, process: int, track: int, begin: int, end: int, said: Event) -> Event:
    return {
        "name": name, "ph": "X", "pid": process, "tid": track, "ts": begin / 1e3,
        "dur": (end - begin) / 1e3, "args": said,
    }  # fmt: skip


def _named(kind: str, process: int, track: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": process, "tid": track, "args": {"name": name}}
