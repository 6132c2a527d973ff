"""Readers of recorded workloads: what each format says, one clear line for what is malformed."""

import json

import numpy as np
import pytest

from perfmodel.core.errors import DataError, UsageError
from perfmodel.serving import plain, rows, traces
from perfmodel.serving.requests import Requests
from perfmodel.serving.traces import read, sniff

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:50.9951690,396,109\n"
    "2023-11-16 18:16:04.6805900,879,55\n"
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n"
    "45,ChatGPT,1087,230,1317,Conversation log\n"
    "60,ChatGPT,20,0,20,API log\n"
    "118,GPT-4,417,276,693,Conversation log\n"
)
MOONCAKE = (
    '{"timestamp": 1000, "input_length": 1200, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 4500, "input_length": 600, "output_length": 7, "hash_ids": [0, 9]}\n'
    '{"timestamp": 3000, "input_length": 513, "output_length": 6, "hash_ids": [0, 4]}\n'
)
SHAREGPT = json.dumps(
    [{"prompt_tokens": 12, "completion_tokens": 30}, {"prompt_tokens": 9, "completion_tokens": 2}]
)
PLAIN = "arrival_s,isl_tokens,osl_tokens\n0.5,10,3\n0.75,11,4\n"
SAMPLES = {"azure": AZURE, "burstgpt": BURSTGPT, "mooncake": MOONCAKE, "sharegpt": SHAREGPT,
           "plain": PLAIN}  # fmt: skip


@pytest.fixture
def put(tmp_path):
    def write(content):
        path = tmp_path / "trace"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_every_format_has_a_sample():
    assert set(SAMPLES) == set(traces.FORMATS)


@pytest.mark.parametrize("name", SAMPLES)
def test_sniffed_and_named_are_the_same(put, name):
    path = put(SAMPLES[name])
    assert sniff(path) == name
    sniffed, named = read(path), read(path, name)
    assert sniffed.format == named.format == name
    assert sniffed.requests.arrival.tolist() == named.requests.arrival.tolist()
    assert sniffed.timed == (name != "sharegpt")


def test_azure(put):
    trace = read(put(AZURE))
    assert trace.requests.arrival == pytest.approx([0, 4.314579, 18.0], abs=1e-7)
    assert trace.requests.prompt.tolist() == [374, 396, 879]
    assert trace.requests.output.tolist() == [44, 109, 55]
    assert (trace.rows, trace.failed, trace.requests.hash_ids) == (3, 0, None)


def test_azure_2024_has_time_zones(put):
    lines = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 02:00:01+02:00,2399,6\n"
    trace = read(put("TIMESTAMP,ContextTokens,GeneratedTokens\n" + lines))
    assert trace.requests.arrival == pytest.approx([0, 0.99007], abs=1e-7)


def test_burstgpt_drops_and_counts_failures(put):
    trace = read(put(BURSTGPT))
    assert trace.requests.arrival.tolist() == [0, 40, 113]
    assert trace.requests.output.tolist() == [18, 230, 276]
    assert (trace.rows, trace.failed) == (4, 1)


def test_burstgpt_with_its_later_columns(put):
    text = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens\n"
    assert read(put(text + "1,s,2,GPT-4,5,6,11\n")).requests.prompt.tolist() == [5]


def test_mooncake_sorts_requests_with_their_blocks(put):
    requests = read(put(MOONCAKE)).requests
    assert requests.arrival.tolist() == [0, 2, 3.5]
    assert requests.output.tolist() == [5, 6, 7]
    assert requests.hash_block == 512
    start, ids = requests.hash_ids
    assert start.tolist() == [0, 3, 5, 7]
    assert ids.tolist() == [0, 1, 2, 0, 4, 0, 9]


def test_mooncakes_last_block_may_be_partly_filled(put):
    """Lengths and numbers of blocks of four requests of its conversation trace."""
    real = [(2290, 5), (915, 2), (1066, 3), (6324, 13)]
    lines = [
        {"timestamp": 0, "input_length": prompt, "output_length": 1, "hash_ids": [0] * blocks}
        for prompt, blocks in real
    ]
    start, _ = read(put("\n".join(map(json.dumps, lines)))).requests.hash_ids
    assert np.diff(start).tolist() == [blocks for _, blocks in real]


def test_mooncake_blocks_of_another_size(put):
    line = '{"timestamp": 0, "input_length": 40, "output_length": 5, "hash_ids": [7, 8, 9]}'
    assert read(put(line), block=16).requests.hash_block == 16
    with pytest.raises(DataError, match=r":1: 'hash_ids' has 3 blocks; 40 tokens fill 1 blocks of"):
        read(put(line))


def test_mooncake_without_blocks(put):
    line = '{"timestamp": 0, "input_length": 40, "output_length": 5}\n'
    assert read(put(line)).requests.hash_ids is None


def test_sharegpt_has_no_times(put):
    trace = read(put(SHAREGPT))
    assert not trace.timed
    assert trace.requests.arrival.tolist() == [0, 0]
    assert trace.requests.prompt.tolist() == [12, 9]


def test_equal_times_keep_the_order_of_the_file(put):
    body = "".join(f"{i % 3},{i + 1},1\n" for i in range(3000))
    prompts = read(put("arrival_s,isl_tokens,osl_tokens\n" + body)).requests.prompt
    assert prompts.tolist() == [i + 1 for second in range(3) for i in range(second, 3000, 3)]


def test_scale_is_a_factor_on_the_rate(put):
    assert read(put(BURSTGPT), scale=2).requests.arrival.tolist() == [0, 20, 56.5]


def test_limit_counts_usable_requests_and_stops_reading(put):
    trace = read(put(BURSTGPT + "not,a,row,at,all,\n"), limit=3)
    assert len(trace.requests) == 3
    assert trace.rows == 4


def test_window_is_relative_and_half_open(put):
    trace = read(put(BURSTGPT), window=(40, 113))
    assert trace.requests.prompt.tolist() == [1087]
    assert trace.requests.arrival.tolist() == [0]
    assert (trace.rows, trace.failed) == (2, 1)
    assert read(put(BURSTGPT), window=(0, 41)).requests.prompt.tolist() == [472, 1087]


def test_a_byte_order_mark_and_windows_line_ends(put):
    text = "\ufeff" + AZURE.replace("\n", "\r\n")
    assert len(read(put(text)).requests) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "trace: the file is empty"),
        ("\n \n", "trace: the file is empty"),
        ("a,b\n1,2\n", "trace:1: not a known trace; known: azure"),
        (b"\x00\xff\xfe\x80", "trace:1: not a known trace"),
        (AZURE.splitlines()[0], "no usable request in 0 selected rows"),
        (AZURE + "2023-11-16 18:17:00,abc,3\n", "trace:5: column 'ContextTokens' is 'abc'; a"),
        (AZURE + "2023-11-16 18:17:00,-4,3\n", "trace:5: column 'ContextTokens' is '-4'"),
        (AZURE + "2023-11-16 18:17:00,4.5,3\n", "trace:5: column 'ContextTokens' is '4.5'"),
        (AZURE + "2023-11-16 18:17:00,nan,3\n", "trace:5: column 'ContextTokens' is 'nan'"),
        (AZURE + "2023-11-16 18:17:00,4,1e30\n", "trace:5: column 'GeneratedTokens' is '1e30'"),
        (AZURE + "yesterday,4,3\n", "trace:5: column 'TIMESTAMP' is 'yesterday'; a date and time"),
        (AZURE + "2023-11-16 18:17:00,4\n", "trace:5: 2 columns where the header has 3"),
        (BURSTGPT + "soon,GPT-4,1,1,2,API log\n", "trace:6: column 'Timestamp' is 'soon'; a time"),
        (BURSTGPT + "inf,GPT-4,1,1,2,API log\n", "trace:6: column 'Timestamp' is 'inf'"),
        ("Timestamp,Request tokens,Response tokens\n1,5,0\n", r"no usable request in 1 .*1 failed"),
        (MOONCAKE + "{\n", "trace:4: not JSON"),
        (MOONCAKE + "[1]\n", r"trace:4: \[1\] where a JSON object should be"),
        (MOONCAKE + "[" * 100_000, "trace:4: JSON nested too deeply"),
        ('{"timestamp": 1, "input_len": 2}', "trace:1: no 'input_length'; nearest: input_len"),
        ('{"timestamp": true, "input_length": 2, "output_length": 1}', "'timestamp' is True"),
        ('{"timestamp": 1, "input_length": "x", "output_length": 1}', "'input_length' is 'x'"),
        ('{"timestamp": 1, "input_length": false, "output_length": 1}', "'input_length' is False"),
        ('{"timestamp": 1, "input_length": 2, "output_length": 1, "hash_ids": [true]}',
         "trace:1: 'hash_ids' is .*; a list of whole"),
        ('{"timestamp": 1, "input_length": 2, "output_length": 1, "hash_ids": 3}', "a list of"),
        ('{"timestamp": 1, "input_length": 2, "output_length": 1, "hash_ids": [1e400]}', "a list"),
        ("[]", "no usable request"),
        ("[", "trace: not JSON"),
        ("[3]", "trace: entry 0: 3 where a JSON object should be"),
        ('[{"conversations": []}]', "no token count of the prompt.*text must be tokenised first"),
        ('[{"prompt_tokens": 3}]', "no token count of the response"),
        ('[{"prompt_tokens": 3, "output_tokens": null}]', "'output_tokens' is None"),
        ('[{"prompt_tokens": 3, "output_tokens": 1, "timestamp": 0}, '
         '{"prompt_tokens": 3, "output_tokens": 1}]', "1 of 2 requests have no time"),
    ],
)  # fmt: skip
def test_malformed_files_get_one_clear_line(put, content, said):
    with pytest.raises(DataError, match=said) as caught:
        read(put(content))
    assert "\n" not in str(caught.value)


def test_the_wrong_format_named(put):
    with pytest.raises(DataError, match="no column 'TIMESTAMP'; nearest: Timestamp"):
        read(put(BURSTGPT), "azure")
    with pytest.raises(DataError, match=r"no trace format 'azur'; nearest: azure"):
        read(put(AZURE), "azur")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scale": 0.0}, "scaled by 0"),
        ({"scale": float("nan")}, "scaled by nan"),
        ({"limit": 0}, "limit of 0"),
        ({"window": (5, 5)}, "window 5 to 5 s is empty"),
        ({"block": 0}, "blocks of 0"),
    ],
)
def test_questions_that_cannot_be(put, wrong, said):
    with pytest.raises(UsageError, match=said):
        read(put(BURSTGPT), **wrong)


def test_a_window_needs_times(put):
    with pytest.raises(DataError, match="no times for a window"):
        read(put(SHAREGPT), window=(0, 1))


def test_no_file(tmp_path):
    (tmp_path / "conv.csv").write_text(AZURE)
    with pytest.raises(DataError, match=r"con\.csv': no such file; nearest: conv\.csv"):
        read(tmp_path / "con.csv")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path)
    with pytest.raises(DataError):
        read(tmp_path / ("x" * 5000))


def test_large_files_are_refused(put, monkeypatch):
    path = put(AZURE)
    monkeypatch.setattr(rows, "LARGEST_FILE", 50)
    with pytest.raises(DataError, match="give a limit"):
        read(path)
    assert len(read(path, limit=2).requests) == 2
    monkeypatch.setattr(rows, "_LONGEST_LINE", 20)
    with pytest.raises(DataError, match="trace:1: a line of more than 20 characters"):
        read(path, limit=2)
    monkeypatch.setattr(traces, "LARGEST_DOCUMENT", 10)
    with pytest.raises(DataError, match="more than 10 bytes"):
        read(put(SHAREGPT), "sharegpt", limit=1)


def test_a_large_trace_is_read_as_it_comes(put):
    count = 50_000
    times = np.arange(count) / 8
    body = "".join(f"{time},{i % 99 + 1},{i % 7 + 1}\n" for i, time in enumerate(times))
    trace = read(put("arrival_s,isl_tokens,osl_tokens\n" + body))
    assert len(trace.requests) == count
    assert np.array_equal(trace.requests.arrival, times)
    assert trace.requests.prompt.sum() == sum(i % 99 + 1 for i in range(count))


FULL = (
    "arrival_s,isl_tokens,osl_tokens,hidden_tokens,priority,tenant,session,adapter,pool,task,"
    "after,delay_s,hash_ids\n"
    "7,40,5,2,-1,0,0,3,0,0,,,0;1;2\n"
    "5,20,9,,,1,1,,1,1,,,\n"
    "7,50,3,0,0,0,0,-1,0,0,0,0.25,0;1;2;9\n"
    "7,0,3,0,0,0,0,-1,0,0,0,0.25,\n"
    "7,16,4,0,0,0,0,-1,0,0,2;0;3,1e-3,7\n"
)


def test_plain_traces_may_say_more(put):
    trace = read(put(FULL), block=16)
    assert (trace.format, trace.rows, trace.failed) == ("plain", 5, 1)
    requests = trace.requests
    assert requests.arrival.tolist() == [0, 2, 2, 2]
    assert requests.prompt.tolist() == [20, 40, 50, 16]
    assert requests.hidden.tolist() == [0, 2, 0, 0]
    assert requests.priority.tolist() == [0, -1, 0, 0]
    assert requests.tenant.tolist() == requests.session.tolist() == [1, 0, 0, 0]
    assert requests.adapter.tolist() == [-1, 3, -1, -1]
    assert requests.pool.tolist() == requests.task.tolist() == [1, 0, 0, 0]
    assert requests.delay.tolist() == [0, 0, 0.25, 0.001]
    # Row 0 has become request 1, row 2 request 2; row 3, which failed, is followed by nobody.
    assert [column.tolist() for column in requests.after] == [[0, 0, 0, 1, 3], [1, 1, 2]]
    assert [column.tolist() for column in requests.hash_ids] == [
        [0, 0, 3, 7, 8], [0, 1, 2, 0, 1, 2, 9, 7]
    ]  # fmt: skip
    windowed = read(put(FULL), block=16, window=(-2, 0)).requests
    assert windowed.prompt.tolist() == [20]
    assert windowed.after[1].tolist() == []


@pytest.mark.parametrize(
    ("header", "cell", "said"),
    [
        ("hidden_tokens", "5", "trace:3: column 'hidden_tokens' is 5; fewer than the 5 of 'osl_to"),
        ("hidden_tokens", "-1", "trace:3: column 'hidden_tokens' is '-1'; a whole number of tok"),
        ("priority", "high", "trace:3: column 'priority' is 'high'; a whole number$"),
        ("tenant", "", "trace:3: column 'tenant' is ''; a whole number from 0"),
        ("session", "1.5", "trace:3: column 'session' is '1.5'; a whole number from 0"),
        ("adapter", "-2", "trace:3: column 'adapter' is '-2'; a whole number from -1"),
        ("pool", "nan", "trace:3: column 'pool' is 'nan'"),
        ("task", "1e300", "trace:3: column 'task' is '1e300'"),
        ("after", "1", "trace:3: column 'after' names row 1; this is row 1, and it can follow ear"),
        ("after", "0;;0", "trace:3: column 'after' is ''; a whole number from 0"),
        ("after", "0,0", None),
        ("delay_s", "-1", "trace:3: column 'delay_s' is '-1'; a time of 0 or more"),
        ("delay_s", "soon", "trace:3: column 'delay_s' is 'soon'; a time as a number"),
        ("hash_ids", "0;1", "trace:3: 'hash_ids' has 2 blocks; 14 tokens fill 1 blocks of 512"),
    ],
)
def test_malformed_plain_columns(put, header, cell, said):
    first = "" if header in ("after", "hash_ids") else "0"
    text = f"arrival_s,isl_tokens,osl_tokens,{header}\n1,9,5,{first}\n1,9,5,{cell}\n"
    if said is None:  # a comma ends the cell
        assert read(put(text)).requests.after[1].tolist() == [0]
        return
    with pytest.raises(DataError, match=said) as caught:
        read(put(text))
    assert "\n" not in str(caught.value)


def test_followers_do_not_arrive_first(put):
    text = "arrival_s,isl_tokens,osl_tokens,after\n2,9,5,\n1,9,5,0\n"
    with pytest.raises(DataError, match="trace:3: column 'after' names row 0, which arrives later"):
        read(put(text))


def test_written_and_read_again(tmp_path, put):
    requests = read(put(FULL), block=16).requests
    path = tmp_path / "again.csv"
    plain.write(requests, path)
    again = read(path, block=16).requests
    for name in ("arrival", "prompt", "output", "hidden", "priority", "tenant", "session",
                 "adapter", "pool", "task", "delay"):  # fmt: skip
        assert getattr(again, name).tobytes() == getattr(requests, name).tobytes()
    for name in ("after", "hash_ids"):
        for one, two in zip(getattr(again, name), getattr(requests, name), strict=True):
            assert np.array_equal(one, two)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    def broken(pair):
        yield [1]
        raise RuntimeError("out of paper")

    path = tmp_path / "trace.csv"
    ids = (np.array([0, 1, 2]), np.array([1, 2]))
    requests = Requests(np.zeros(2), np.array([1, 2]), np.array([3, 4]), hash_ids=ids)
    plain.write(requests, path)
    before = path.read_text()
    with monkeypatch.context() as context:
        context.setattr(plain, "lists", broken)
        with pytest.raises(RuntimeError):
            plain.write(requests, path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        plain.write(requests, tmp_path / "nowhere" / "trace.csv")
    with pytest.raises(DataError, match="cannot be written"):
        plain.write(requests, tmp_path)
