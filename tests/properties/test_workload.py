"""No malformed trace, law or process ends in anything but an answer or one clear line."""

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from perfmodel.core.errors import UsageError
from perfmodel.serving import arrivals, traces
from perfmodel.serving.lengths import Empirical, LogNormal, Pareto, Uniform, parse
from perfmodel.serving.requests import Requests
from perfmodel.serving.workload import SharedPrefix, generate, parse_arrivals, summarise

SAMPLES = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n"
    "2023-11-16 18:15:50.99,396,109\n",
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    '5,ChatGPT,472,18,490,"Conversation log"\n45,GPT-4,1087,0,1087,API log\n',
    '{"timestamp": 10, "input_length": 1200, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [0, 9]}\n',
    '[{"prompt_tokens": 3, "completion_tokens": 4, "timestamp": 2.5}]',
    "arrival_s,isl_tokens,osl_tokens\n0.5,10,3\n0.75,11,4\n",
)
FORMATS = st.sampled_from([None, *traces.FORMATS])
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-5, 10**9)
LAWS = st.one_of(
    st.tuples(st.integers(1, 10**8), st.integers(1, 10**8)).map(lambda x: Uniform(*sorted(x))),
    st.builds(LogNormal, st.floats(1e-3, 1e8), st.floats(1e-3, 10), st.integers(1, 10**8)),
    st.builds(
        Pareto, st.floats(1e-3, 100), st.integers(1, 1000), st.integers(1001, 10**8)
    ),
    st.lists(st.integers(1, 10**8), min_size=1).map(lambda x: Empirical(np.array(x))),
)  # fmt: skip


def outcome(use: Callable[[], Any]) -> tuple[Any, str]:
    """What was answered, or the line that refused."""
    try:
        return use(), ""
    except UsageError as error:
        line = str(error)
    assert len(line.splitlines()) == 1
    return None, line


def answer_or_line(content: bytes, name: str | None, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        path.write_bytes(content)
        trace, line = outcome(lambda: traces.read(path, name, **options))
    if line:
        return
    requests = trace.requests
    assert 1 <= len(requests) == trace.rows - trace.failed
    assert requests.arrival[0] == 0
    summarise(requests)


@given(st.binary(max_size=300), FORMATS)
@example(b"[" * 100_000, "sharegpt")
@example(b'"' * 200_000, "azure")
@example(b"TIMESTAMP,ContextTokens,GeneratedTokens\n0001-01-01 00:00:00+23:59,1,1\n", None)
@example(b"[" + b"9" * 5000 + b"]", None)
@example(b'{"timestamp": 1' + b"0" * 400 + b', "input_length": 1, "output_length": 1}', None)
def test_any_bytes_are_read_or_refused(content: bytes, name: str | None) -> None:
    answer_or_line(content, name)


@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_traces_are_read_or_refused(text: str, data: st.DataObject) -> None:
    """Cut a piece out of a sound trace and put something else there."""
    content = text.encode()
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(start + 20, len(content))))
    pieces = st.binary(max_size=12) | st.sampled_from(
        [b",", b"\n", b'"', b"\r", b"\x00", b"-1", b"1e9", b"nan", b"[]", b"{}", b"null", b"true"]
    )
    name = data.draw(FORMATS)
    answer_or_line(content[:start] + data.draw(pieces) + content[stop:], name)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["timestamp", "input_length", "output_length", "hash_ids", "prompt_tokens",
                 "completion_tokens"]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=4,
            ),
        ),
        max_size=3,
    ),
    st.booleans(),
)  # fmt: skip
def test_any_json_is_read_or_refused(entries: list[dict[str, object]], whole: bool) -> None:
    text = json.dumps(entries) if whole else "\n".join(map(json.dumps, entries))
    answer_or_line(text.encode(), "sharegpt" if whole else "mooncake")


@given(st.sampled_from(SAMPLES), NUMBERS, NUMBERS, NUMBERS, st.integers(-3, 3))
def test_any_options_are_used_or_refused(
    text: str, scale: float, low: float, high: float, limit: int
) -> None:
    answer_or_line(text.encode(), None, scale=scale, window=(low, high), limit=limit)


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2000), st.integers(0, 9)), min_size=1),
    st.integers(1, 64),
)
def test_mooncake_rows_survive_a_round_trip(rows: list[tuple[int, int, int]], block: int) -> None:
    lines = [
        {"timestamp": time, "input_length": prompt, "output_length": output,
         "hash_ids": list(range(time, time + -(-prompt // block)))}
        for time, prompt, output in rows
    ]  # fmt: skip
    usable = sorted((row for row in rows if row[1] and row[2]), key=lambda row: row[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        path.write_text("\n".join(map(json.dumps, lines)))
        if not usable:
            return
        trace = traces.read(path, block=block)
    assert trace.failed == len(rows) - len(usable)
    assert trace.requests.prompt.tolist() == [row[1] for row in usable]
    assert trace.requests.output.tolist() == [row[2] for row in usable]
    assert trace.requests.hash_ids is not None
    start, ids = trace.requests.hash_ids
    for place, (time, prompt, _) in enumerate(usable):
        mine = ids[start[place] : start[place + 1]].tolist()
        assert mine == list(range(time, time + -(-prompt // block)))


@given(st.text(max_size=40))
@example("uniform(1e999,2)")
@example("lognormal(mean=1e-300,p99=1e-200)")
@example("lognormal(median=1e-300,mean=1e300)")
@example("uniform(1,2)*1e308")
@example("uniform(-1e308,1e308)*1e8")
@example("pareto(1e-3,1,1e8)")
def test_any_length_is_a_law_or_refused(text: str) -> None:
    law, line = outcome(lambda: parse(text))
    if line:
        return
    values = law.sample(10, np.random.default_rng(0))
    assert values.min() >= 1
    assert 1 <= law.mean <= 1e8


CALLS = st.sampled_from(["uniform", "lognormal", "pareto", "gamma", "on_off", "diurnal", "nothing"])
KEYS = st.sampled_from(
    ["", "low=", "high=", "median=", "mean=", "sigma=", "p90=", "p99=", "alpha=", "burstiness=",
     "on=", "off=", "quiet=", "period=", "swing="]
)  # fmt: skip


@given(CALLS, st.lists(st.tuples(KEYS, NUMBERS), max_size=4), st.sampled_from(["", "*100", "*"]))
def test_any_call_is_used_or_refused(
    name: str, parts: list[tuple[str, float]], end: str
) -> None:  # fmt: skip
    text = f"{name}({','.join(f'{key}{value!r}' for key, value in parts)}){end}"
    for use in (
        lambda: parse(text).sample(5, np.random.default_rng(0)),
        lambda: parse_arrivals(text)(5, 2.0, np.random.default_rng(0)),
    ):
        drawn, line = outcome(use)
        if line:
            continue
        assert np.all(np.isfinite(drawn))
        assert np.all(drawn >= 0)


@given(LAWS, st.integers(0, 2**32))
def test_samples_lie_where_the_mean_can(law: LogNormal, seed: int) -> None:
    values = law.sample(200, np.random.default_rng(seed))
    assert values.dtype == np.int64
    assert np.all(values >= 1)
    assert 1 <= law.mean <= 1e8
    low, high = (getattr(law, name, None) for name in ("low", "high"))
    if high is not None:
        assert values.max() <= high
        assert law.mean <= high * (1 + 1e-9)
    if low is not None:
        assert values.min() >= low
        assert law.mean >= low * (1 - 1e-9)


@given(
    st.sampled_from(sorted(arrivals.PROCESSES)),
    st.integers(1, 300),
    st.floats(1e-9, 1e9),
    LAWS,
    LAWS,
    st.none() | st.builds(SharedPrefix, st.integers(1, 300), st.integers(1, 5), st.floats(0, 1)),
    st.integers(0, 2**64),
)
def test_generated_workloads_are_sound_and_repeat(
    process: str, count: int, rate: float, prompt: Uniform, output: Uniform,
    prefix: SharedPrefix | None, seed: int,
) -> None:  # fmt: skip
    """`Requests` checks its columns itself; blocks must cover the prompts."""

    def draw() -> Requests:
        return generate(
            Uniform(1, 500) if prefix else prompt, output, count, rate,
            process=arrivals.PROCESSES[process], prefix=prefix, seed=seed,
        )  # fmt: skip

    both, line = outcome(lambda: (draw(), draw()))
    if line:
        assert "too short" in line
        return
    first, again = both
    assert len(first) == count
    assert first.arrival.tobytes() == again.arrival.tobytes()
    assert first.prompt.tobytes() == again.prompt.tobytes()
    assert first.output.tobytes() == again.output.tobytes()
    seen = summarise(first)
    assert not math.isnan(seen.rate)
    if first.hash_ids is not None:
        start, ids = first.hash_ids
        assert np.array_equal(np.diff(start), -(-first.prompt // 16))
        assert len(ids) == start[-1]
        assert seen.repeated is not None
        assert 0 <= seen.repeated < 1
