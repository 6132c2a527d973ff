"""Call graphs: hand-counted tasks, published totals, one clear line for graphs that cannot be."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving.arrivals import deterministic
from perfmodel.serving.graph import (
    Call,
    Common,
    Graph,
    Loop,
    New,
    Output,
    Prompt,
    Text,
    parse_graph,
)
from perfmodel.serving.lengths import Fixed, LogNormal
from perfmodel.serving.unroll import unroll

QUESTION = Text("question", Fixed(30))
SYSTEM = Common("system", 40)


TEN = Fixed(10)


def call(name, prompt=(QUESTION,), output=TEN, **more):
    return Call(name, prompt, output, **more)


def tasks(*calls, count=3, **more):
    return unroll(Graph("test", calls, source=""), count, 1.0, **more)


def followed(requests, i):
    start, ids = requests.after
    return ids[start[i] : start[i + 1]].tolist()


def blocks(requests, i):
    start, ids = requests.hash_ids
    return ids[start[i] : start[i + 1]].tolist()


def test_columns_by_hand():
    requests = tasks(
        call("draft", (SYSTEM, QUESTION), Fixed(50), hidden=Fixed(20), pool="big"),
        call("check", (Output("draft"), New(Fixed(5))), Fixed(1), pool="small", after=("draft",),
             delay_ms=Fixed(250)),
        count=2, process=deterministic, pools=("small", "other", "big"),
    )  # fmt: skip
    assert requests.arrival.tolist() == [1, 1, 2, 2]
    assert requests.task.tolist() == requests.session.tolist() == [0, 0, 1, 1]
    assert requests.prompt.tolist() == [70, 55, 70, 55]
    assert requests.output.tolist() == [70, 1, 70, 1]
    assert requests.hidden.tolist() == [20, 0, 20, 0]
    assert requests.pool.tolist() == [2, 0, 2, 0]
    assert requests.delay.tolist() == [0, 0.25, 0, 0.25]
    assert [followed(requests, i) for i in range(4)] == [[], [0], [], [2]]
    # 40 common tokens fill two blocks of 16; the third holds task 0's question as well.
    assert blocks(requests, 0)[:2] == blocks(requests, 2)[:2]
    assert blocks(requests, 0)[2] != blocks(requests, 2)[2]
    assert not set(blocks(requests, 1)) & set(blocks(requests, 0) + blocks(requests, 3))


def test_columns_that_say_nothing_are_left_out():
    requests = tasks(call("only"), hash_block=None)
    for name in ("after", "delay", "hidden", "hash_ids", "tenant", "priority", "adapter"):
        assert getattr(requests, name) is None


def test_copies_share_texts_but_not_what_is_new():
    requests = tasks(
        call("sample", (QUESTION, New(Fixed(34))), copies=3),
        call("judge", (Output("sample"),), after=("sample",)),
        count=1,
    )
    assert [followed(requests, i) for i in range(4)] == [[], [], [], [0, 1, 2]]
    assert requests.prompt.tolist() == [64, 64, 64, 30]
    firsts = [blocks(requests, i)[:4] for i in range(3)]  # of the prompts
    assert len({row[0] for row in firsts}) == 1  # 16 of the 30 tokens of the question
    assert len({block for row in firsts for block in row[1:]}) == 9


def test_a_context_that_goes_on_keeps_its_blocks():
    requests = tasks(
        call("turn", (SYSTEM, New(Fixed(24))), Fixed(32),
             loop=Loop(3, prompt=(Prompt("turn"), Output("turn"), New(Fixed(16))))),
        call("again", (Prompt("turn"), Output("turn"), New(Fixed(16))), after=("turn",)),
        count=1,
    )  # fmt: skip
    assert requests.prompt.tolist() == [64, 112, 160, 208]
    rows = [blocks(requests, i) for i in range(4)]
    for shorter, longer in pairwise(rows):  # prompt and answer of 32 tokens
        assert longer[: len(shorter)] == shorter
    assert [len(row) for row in rows[:3]] == [6, 9, 12]
    assert sorted(rows[3]) == list(range(len(rows[3])))


def test_a_skipped_call_is_bridged():
    requests = tasks(
        call("a", copies=2),
        call("never", after=("a",), probability=0.0),
        call("never too", after=("never",), given="never"),
        call("b", (Output("never"), QUESTION), after=("never", "never too")),
        count=2,
    )
    assert [followed(requests, i) for i in range(6)] == [[], [], [0, 1], [], [], [3, 4]]
    assert requests.prompt.tolist() == [30] * 6


def test_lanes_run_side_by_side():
    requests = tasks(
        call("draft", copies=2),
        call("fix", (Output("draft"), New(Fixed(7))), Fixed(3), after=("draft",), per="draft",
             loop=Loop(2, prompt=(Output("fix"), New(Fixed(5))), delay_ms=Fixed(500))),
        call("pick", (Output("fix"),), after=("fix",)),
        count=1,
    )  # fmt: skip
    assert [followed(requests, i) for i in range(7)] == [[], [], [0], [2], [1], [4], [3, 5]]
    assert requests.prompt.tolist() == [30, 30, 17, 8, 17, 8, 6]
    assert requests.delay.tolist() == [0, 0, 0, 0.5, 0, 0.5, 0]


def test_a_lane_without_correction_is_waited_for_all_the_same():
    requests = tasks(
        call("draft", copies=2),
        call("fix", after=("draft",), per="draft", probability=0.5),
        call("pick", after=("fix",)),
        count=50,
    )
    sizes = np.bincount(requests.task)
    assert set(sizes.tolist()) == {3, 4, 5}
    assert np.all(np.diff(requests.after[0])[np.cumsum(sizes) - 1] == 2)


def test_probabilities_and_rounds_are_met():
    count = 20_000
    requests = tasks(
        call("a"),
        call("maybe", after=("a",), probability=0.3),
        call("then", after=("maybe",), given="maybe", loop=Loop(50, stop=0.25)),
        count=count, hash_block=None,
    )  # fmt: skip
    per_task = np.bincount(requests.task, minlength=count)
    happened = per_task > 1
    assert abs(happened.sum() - 0.3 * count) < 4 * np.sqrt(0.21 * count)
    rounds = per_task[happened] - 2
    # Geometric: mean 1 / p, variance (1 - p) / p².
    assert abs(rounds.mean() - 4) < 4 * np.sqrt(12 / len(rounds))
    assert rounds.max() <= 50


def test_one_law_leaves_the_other_draws_alone():
    graph = parse_graph("text_to_sql")
    usual = unroll(graph, 300, 1.0)
    longer = dataclasses.replace(graph.calls[2], output=LogNormal.of(mean=2000, sigma=1.0))
    calls = (*graph.calls[:2], longer, *graph.calls[3:])
    changed = unroll(dataclasses.replace(graph, calls=calls), 300, 1.0)
    assert len(usual) == len(changed)
    differ = usual.output != changed.output
    # Two candidates per task, all of them drawn anew; nothing else.
    assert 590 <= differ.sum() <= 600
    assert np.array_equal(usual.arrival, changed.arrival)
    assert np.array_equal(usual.delay, changed.delay)
    # Prompts differ only where a first correction reads a candidate.
    read = usual.prompt != changed.prompt
    assert read.sum() == differ.sum()
    assert not np.any(read & differ)


def test_equal_seeds_give_equal_bits():
    first, again, other = (unroll(parse_graph("react_agent"), 100, 1.0, seed=s) for s in (3, 3, 4))
    for name in ("arrival", "prompt", "output", "delay"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
    assert first.hash_ids[1].tobytes() == again.hash_ids[1].tobytes()
    assert first.prompt[:100].tolist() != other.prompt[:100].tolist()


def test_text_to_sql_has_the_published_totals():
    """HexGen-Text2SQL's trace3: 20.9 calls, 65.6 thousand prompt and 2505 output tokens a query."""
    count = 4000
    requests = unroll(parse_graph("text_to_sql"), count, 1.0, hash_block=None)
    assert len(requests) / count == pytest.approx(20.9, rel=0.03)
    assert requests.prompt.sum() / count == pytest.approx(65_600, rel=0.03)
    assert requests.output.sum() / count == pytest.approx(2505, rel=0.03)


def test_means_of_the_other_graphs():
    chat = unroll(parse_graph("chat"), 20_000, 1.0, hash_block=None)
    assert len(chat) / 20_000 == pytest.approx(2.0, rel=0.03)
    assert chat.output.mean() == pytest.approx(214.5, rel=0.03)
    waits = chat.delay[chat.delay > 0]
    assert np.percentile(waits, 50) == pytest.approx(7.18, rel=0.03)
    assert np.percentile(waits, 90) == pytest.approx(15.0, rel=0.05)
    agent = unroll(parse_graph("react_agent"), 5000, 1.0, hash_block=None)
    assert len(agent) / 5000 == pytest.approx(9.2, rel=0.03)
    rag = unroll(parse_graph("rag"), 10, 1.0)
    assert rag.prompt.tolist() == [32, *[128] * 16, 512] * 10
    assert rag.delay.tolist() == [0, *[0.1] * 16, 0] * 10
    bare = unroll(parse_graph("rag(rerank=0)"), 10, 1.0)
    assert bare.prompt.tolist() == [32, 512] * 10
    assert bare.delay.tolist() == [0, 0.1] * 10


def test_parameters_from_the_command_line():
    assert parse_graph("best_of_n(n=3)").calls[0].copies == 3
    assert parse_graph("cascade(0.25)").calls[2].probability == 0.25
    assert parse_graph("text_to_sql(rounds=3)").calls[3].loop.rounds == 3
    assert parse_graph("react_agent(tool_s=0)").calls[0].loop.delay_ms is None


A = call("a")


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ((), "graph 'test' has no calls"),
        ((A, A), "two calls 'a'"),
        ((call("b", after=("a",)), A), "follows 'a', which is not before it: a graph has no cycle"),
        ((call("a", after=("a",)),), "follows 'a', which is not before it"),
        ((A, call("b", after=("aa",))), "follows 'aa', which the graph does not have; nearest: a"),
        ((A, call("b", given="a")), "'b' depends on 'a', which it does not follow; add it"),
        ((A, call("b", (Output("a"),))), "'b' reads 'a', which it does not follow"),
        ((A, call("b", per="a")), "'b' goes along with 'a', which it does not follow"),
        ((call("a", (Output("a"), QUESTION)),), "'a' reads itself in its first round"),
        ((call("a", copies=2), call("b", (Prompt("a"),), after=("a",))), "several copies; say per"),
        ((A, call("b", (Text("question", Fixed(31)),))), "text 'question' has two lengths"),
    ],
)  # fmt: skip
def test_graphs_that_cannot_be(calls, said):
    with pytest.raises(UsageError, match=said) as caught:
        Graph("test", calls, source="")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"probability": 1.5}, "call 'x': probability is 1.5; between 0 and 1"),
        ({"probability": -0.1}, "between 0 and 1"),
        ({"probability": float("nan")}, "probability is nan"),
        ({"copies": 0}, "copies is 0; a whole number from 1"),
        ({"copies": 1.5}, "copies is 1.5"),
        ({"copies": 2, "per": "a"}, "copies are those of 'a'"),
        ({"loop": Loop(0)}, "rounds is 0"),
        ({"loop": Loop(2, stop=2.0)}, "stop is 2"),
        ({"prompt": ()}, "has no prompt"),
        ({"prompt": (QUESTION, Prompt("a"))}, "comes first or not at all"),
    ],
)
def test_calls_that_cannot_be(wrong, said):
    with pytest.raises(UsageError, match=said):
        call("x", **wrong)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("best_of_n(n=0)", "n is 0; a whole number from 1"),
        ("best_of_n(m=2)", "no argument 'm'.*it has n, examples"),
        ("cascade(escalated=2)", "probability is 2"),
        ("chat(turns=0)", "turns is 0; at least 1"),
        ("chat(think_s=-1)", "think_s is -1 s; from 0"),
        ("chat(user=0)", "mean is 0"),
        ("rag(k=0)", "k is 0"),
        ("rag(rerank=-1)", "rerank is -1; a whole number from 0"),
        ("react_agent(steps=0.5)", "steps is 0.5"),
        ("text_to_sql(candidates=1.5)", "candidates is 1.5"),
        ("text_to_sql(stop=-1)", "stop is -1"),
    ],
)
def test_parameters_that_cannot_be(text, said):
    with pytest.raises(UsageError, match=said):
        parse_graph(text)


class Backwards:
    """A law that breaks its promise."""

    mean = -1.0

    def sample(self, count, rng):
        return np.full(count, -1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"count": 0}, "0 requests; at least 1"),
        ({"seed": -1}, "a seed of -1"),
        ({"pools": ("lm", "other")}, "asks pool 'llm', which the cluster does not have; nearest"),
        ({"hash_block": 0}, "blocks of 0 tokens"),
    ],
)  # fmt: skip
def test_draws_that_cannot_be(more, said):
    with pytest.raises(UsageError, match=said):
        tasks(A, **more)


def test_negative_delays_and_empty_prompts_are_refused():
    with pytest.raises(UsageError, match="delays must be finite and not negative"):
        tasks(A, call("b", after=("a",), delay_ms=Backwards()))
    maybe = call("maybe", probability=0.5)
    with pytest.raises(UsageError, match="call 'b' has an empty prompt where what it reads did"):
        tasks(maybe, call("b", (Output("maybe"),), after=("maybe",)), count=100)
    with pytest.raises(UsageError, match=r"prompts of 3e\+08 blocks of 1 tokens"):
        tasks(call("a", (Common("book", 100_000_000),)), hash_block=1)


def test_tasks_in_which_nothing_happens_are_numbered_all_the_same():
    requests = tasks(call("a", probability=0.5), count=1000)
    assert len(requests) == len(np.unique(requests.task)) < 600
    assert requests.task.max() > 900
    with pytest.raises(UsageError, match="there are no requests"):
        tasks(call("a", probability=0.0))
