"""Random call graphs against a reading of them in plain Python, request by request."""

import dataclasses
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.serving import plain, traces
from perfmodel.serving.graph import Call, Common, Graph, Loop, New, Output, Part, Prompt, Text
from perfmodel.serving.lengths import Fixed
from perfmodel.serving.requests import Requests
from perfmodel.serving.tenants import Tenant, adapters, assign
from perfmodel.serving.unroll import unroll

COMMON = (Common("system", 5), Common("examples", 8))
TEXTS = (Text("question", Fixed(3)), Text("document", Fixed(7)))


@st.composite
def graphs(draw: Any) -> Graph:
    """Up to five calls that use every feature; all lengths fixed, each call its own pool."""
    calls: list[Call] = []
    before: dict[str, set[str]] = {}
    for place in range(draw(st.integers(1, 5))):
        name = f"call{place}"
        earlier = [call.name for call in calls]
        after = tuple(draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else ())
        known = sorted(set(after).union(*(before[one] for one in after)))
        before[name] = set(known)
        copies = draw(st.integers(1, 3))
        per = draw(st.sampled_from(("", *after)))
        bare = Call(name, (New(Fixed(1)),), Fixed(1), after=after, per=per,
                    copies=1 if per else copies)  # fmt: skip
        sofar = Graph("sofar", (*calls, bare), source="")
        call = dataclasses.replace(
            bare,
            prompt=draw(prompts(sofar, name, known)),
            output=Fixed(draw(st.integers(1, 6))),
            hidden=draw(st.sampled_from((None, Fixed(2)))),
            pool=name,
            given=draw(st.sampled_from(("", *known))),
            probability=draw(st.sampled_from((1.0, 1.0, 0.5))),
        )
        if draw(st.booleans()):
            again = draw(prompts(sofar, name, [*known, name]))
            call = dataclasses.replace(call, loop=Loop(draw(st.integers(1, 3)), 0.3, again))
        calls.append(call)
    return Graph("random", tuple(calls), source="")


@st.composite
def prompts(draw: Any, graph: Graph, name: str, known: list[str]) -> tuple[Part, ...]:
    """Parts a call may read; text of its own at the end, so that no prompt is empty."""
    goes_on = [
        one for one in known
        if graph.width(one) == 1 or graph.lane(one) == graph.lane(name)
    ]  # fmt: skip
    start = draw(st.sampled_from((None, *goes_on)))
    parts = st.sampled_from((*COMMON, *TEXTS, New(Fixed(2)), *map(Output, known)))
    return (
        *((Prompt(start),) if start else ()),
        *draw(st.lists(parts, max_size=3)),
        draw(st.sampled_from((*TEXTS, New(Fixed(4))))),
    )


class Reader:
    """Which request is what, and what each should follow and contain."""

    def __init__(self, graph: Graph, requests: Requests) -> None:
        self.graph, self.requests = graph, requests
        assert requests.pool is not None
        assert requests.task is not None
        self.call = [graph.calls[pool] for pool in requests.pool.tolist()]
        self.task = requests.task.tolist()
        self.after: list[list[int]] = [[] for _ in self.call]
        if requests.after is not None:
            start, ids = requests.after
            self.after = [ids[low:high].tolist() for low, high in pairwise(start)]
        self.first: list[int] = []  # of the rounds that a request belongs to
        self.last: dict[int, int] = {}
        self.lane: list[int] = []
        for i, call in enumerate(self.call):
            own = [b for b in self.after[i] if self.call[b].name == call.name]
            assert own in ([], [i - 1])
            self.first.append(self.first[i - 1] if own else i)
            self.last[self.first[i]] = i
            along = [b for b in self.after[self.first[i]] if self.call[b].name == call.per]
            self.lane.append(self.lane[along[0]] if call.per else self.first[i])

    def copies(self, i: int, name: str, lane: int | None, of: str) -> list[int | None]:
        """Lanes of a call that lane ``lane`` of ``of`` sees; None: one that did not happen."""
        root = self.graph.lane(name)
        if root == self.graph.lane(of):
            return [lane]
        there: list[int | None] = [
            first for first in self.last
            if self.task[first] == self.task[i] and self.call[first].name == root
        ]  # fmt: skip
        return there + [None] * (self.graph.width(name) > len(there))

    def at(self, i: int, name: str, lane: int | None) -> list[int]:
        """Last round of a call in the task of request i and in a lane."""
        return [
            last for first, last in self.last.items()
            if self.task[first] == self.task[i] and self.lane[first] == lane
            and self.call[first].name == name
        ]  # fmt: skip

    def seen(self, i: int, name: str) -> list[int]:
        """Last rounds of the copies of a call that request i sees."""
        if name == self.call[i].name:
            return [i - 1]
        lanes = self.copies(i, name, self.lane[i], self.call[i].name)
        return [last for lane in lanes for last in self.at(i, name, lane)]

    def follows(self, i: int, call: Call, lane: int | None) -> Iterator[int]:
        for name in call.after:
            for other in self.copies(i, name, lane, call.name):
                yield from self.at(i, name, other) or self.follows(i, self.graph[name], other)

    def content(self, i: int) -> tuple[Any, ...]:
        """Every token of a prompt."""
        tokens: list[Any] = []
        for place, part in enumerate(self.call[i].prompts()[self.first[i] != i]):
            if isinstance(part, Common):
                tokens += [(part.name, k) for k in range(part.tokens)]
            elif isinstance(part, Text):
                tokens += [(part.name, self.task[i], k) for k in range(int(part.law.mean))]
            elif isinstance(part, New):
                tokens += [("new", i, place, k) for k in range(int(part.law.mean))]
            else:
                for other in self.seen(i, part.call):
                    if isinstance(part, Prompt):
                        tokens += self.content(other)
                    else:
                        visible = int(self.call[other].output.mean)
                        tokens += [("said", other, k) for k in range(visible)]
        return tuple(tokens)


def rows(pair: tuple[Any, Any]) -> list[list[int]]:
    start, ids = pair
    return [ids[low:high].tolist() for low, high in pairwise(start)]


def drawn(graph: Graph, tasks: int, seed: int, block: int | None = None) -> Requests | None:
    """None where, by chance, nothing happened."""
    if all(call.probability < 1 or call.given or call.per for call in graph.calls):
        return None
    return unroll(graph, tasks, 1.0, seed=seed, hash_block=block)


@given(graphs(), st.integers(1, 5), st.integers(0, 9))
def test_requests_follow_what_the_graph_says(graph: Graph, tasks: int, seed: int) -> None:
    requests = drawn(graph, tasks, seed)
    if requests is None:
        return
    order = list(zip(requests.task, requests.pool, strict=True))
    assert order == sorted(order)
    assert np.array_equal(requests.arrival, np.sort(requests.arrival))
    reader = Reader(graph, requests)
    for i, call in enumerate(reader.call):
        if reader.first[i] != i:
            assert reader.after[i] == [i - 1]
        else:
            assert reader.after[i] == sorted(set(reader.follows(i, call, reader.lane[i])))
        if call.given:
            assert reader.seen(i, call.given)
    counts = {call.name: sum(one.name == call.name for one in reader.call) for call in graph.calls}
    for call in graph.calls:
        most = tasks * graph.width(call.name) * (call.loop.rounds if call.loop else 1)
        always = call.probability == 1 and not call.given and not call.per
        assert (tasks * call.copies if always else 0) <= counts[call.name] <= most


@given(graphs(), st.integers(1, 4), st.integers(0, 9), st.integers(1, 6))
def test_blocks_are_equal_exactly_where_all_before_is(
    graph: Graph, tasks: int, seed: int, block: int
) -> None:
    requests = drawn(graph, tasks, seed, block)
    if requests is None:
        return
    reader = Reader(graph, requests)
    assert requests.hash_ids is not None
    assert requests.hash_block == block
    id_of: dict[Any, int] = {}
    used: list[int] = []
    for i, ids in enumerate(rows(requests.hash_ids)):
        content = reader.content(i)
        assert len(content) == requests.prompt[i]
        if reader.call[i].hidden is None:  # the answer follows, as a later call would read it
            content += tuple(("said", i, k) for k in range(int(requests.output[i])))
        assert len(ids) == -(-len(content) // block)
        for place, found in enumerate(ids):
            end = (place + 1) * block
            key = content[:end] if end <= len(content) else ("partial", i)
            assert id_of.setdefault(key, found) == found
        used += ids
    assert len(set(id_of.values())) == len(id_of)
    assert set(used) == set(range(len(id_of)))


@given(graphs(), st.integers(1, 20), st.integers(0, 2**64))
def test_equal_seeds_give_equal_bits(graph: Graph, tasks: int, seed: int) -> None:
    if (first := drawn(graph, tasks, seed, 4)) is None:
        return
    assert_equal(first, unroll(graph, tasks, 1.0, seed=seed, hash_block=4))


@given(graphs(), st.integers(1, 5), st.integers(0, 9))
def test_plain_traces_hold_all_of_it(graph: Graph, tasks: int, seed: int) -> None:
    if (requests := drawn(graph, tasks, seed, 4)) is None:
        return
    requests = adapters(assign(requests, (Tenant("a"), Tenant("b", priority=-1))), 3)
    requests = dataclasses.replace(requests, arrival=requests.arrival - requests.arrival[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        plain.write(requests, path)
        assert_equal(requests, traces.read(path, block=4).requests)


def assert_equal(first: Requests, again: Requests) -> None:
    for field in dataclasses.fields(Requests):
        one, two = getattr(first, field.name), getattr(again, field.name)
        if isinstance(one, np.ndarray):
            assert one.tobytes() == two.tobytes(), field.name
        elif isinstance(one, tuple):
            assert all(np.array_equal(x, y) for x, y in zip(one, two, strict=True)), field.name
        else:
            assert one == two
