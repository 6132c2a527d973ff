"""Tasks drawn from a call graph: their requests, what follows what, and what prompts share.

Vectorised over tasks: Python loops run over calls, copies and rounds only. Each law of each call
draws from a stream of its own, named after the call: changing a length or a delay leaves all other
draws as they were, and changing a probability those of calls that do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from perfmodel.core.errors import UsageError, near
from perfmodel.serving import arrivals
from perfmodel.serving.arrivals import Process
from perfmodel.serving.content import Contexts
from perfmodel.serving.graph import Call, Common, Graph, New, Part, Prompt, Text
from perfmodel.serving.lengths import Fixed, LengthLaw
from perfmodel.serving.ragged import Ragged, find, from_pairs
from perfmodel.serving.requests import Counts, Requests, Times
from perfmodel.serving.workload import generate


def unroll(
    graph: Graph,
    count: int,
    rate: float,
    *,
    process: Process = arrivals.poisson,
    seed: int = 0,
    pools: Sequence[str] | None = None,
    hash_block: int | None = 16,
) -> Requests:
    """Draw tasks.

    Parameters
    ----------
    graph : Graph
    count : int
        Tasks, at least 1.
    rate : float
        Mean rate of tasks [1/s]; infinite: all at time 0.
    process : Process
        How tasks scatter about the rate.
    seed : int
        Equal seeds give equal bits.
    pools : sequence of str, optional
        Names of the cluster's models, in the order of ``Requests.pool``; those of the graph in
        order of first use if not given.
    hash_block : int, optional
        Tokens per block of ``hash_ids``; None leaves them out.

    Returns
    -------
    Requests
        In order of task and, within it, of the graph; with ``task``, ``session`` (the task),
        ``pool``, and where there are any ``after``, ``delay``, ``hidden``.

    Raises
    ------
    UsageError
        A pool that the cluster does not have, an empty prompt, too many blocks; else as `generate`.

    Examples
    --------
    >>> from perfmodel.serving.graph import parse_graph
    >>> requests = unroll(parse_graph("best_of_n(n=2)"), count=2, rate=1.0)
    >>> requests.task.tolist(), requests.after[0].tolist(), requests.after[1].tolist()
    ([0, 0, 0, 1, 1, 1], [0, 0, 0, 2, 2, 2, 4], [0, 1, 3, 4])
    """
    names = graph.pools if pools is None else tuple(pools)
    for pool in graph.pools:
        if pool not in names:
            raise UsageError(
                f"graph {graph.name!r} asks pool {pool!r}, which the cluster does not have"
                f"{near(pool, names)}; it has {', '.join(names)}"
            )
    # The same arrivals as any other workload of that seed.
    times = generate(Fixed(1), Fixed(1), count, rate, process=process, seed=seed).arrival
    drawn = _Tasks(graph, count, seed, None if hash_block is None else Contexts(hash_block))
    for call in graph.calls:
        drawn.add(call)
    requests = drawn.requests(times, names)
    return replace(requests, hash_block=hash_block) if hash_block else requests


@dataclass(frozen=True, slots=True)
class _Batch:
    """Requests of one call, copy and round: at most one per task, in order of task.

    ``ids`` number all requests in the order in which they were drawn. ``visible`` is what others
    read of the answer; ``node`` is the end of the prompt.
    """

    tasks: Counts
    ids: Counts
    prompt: Counts
    visible: Counts
    node: Counts


@dataclass(frozen=True, slots=True)
class _Columns:
    """What else is known of a batch, for `Requests`.

    ``end`` is the node where the answer ends if all of it can be read, else the prompt's; ``reach``
    are the tokens up to there.
    """

    pool: str
    hidden: Counts
    delay: Times
    end: Counts
    reach: Counts


class _Tasks:
    def __init__(self, graph: Graph, count: int, seed: int, contexts: Contexts | None) -> None:
        self._graph, self._count, self._seed, self._contexts = graph, count, seed, contexts
        self._last: dict[str, list[_Batch]] = {}  # of each call and copy, the last rounds
        self._batches: list[tuple[_Batch, _Columns]] = []
        self._edges: list[tuple[Counts, Counts]] = []
        self._texts: dict[str, Counts] = {}
        self._drawn = 0

    def add(self, call: Call) -> None:
        """Draw all copies and rounds of a call, the ones it names having been drawn."""
        copies = range(self._graph.width(call.name))
        self._last[call.name] = [self._rounds(call, copy) for copy in copies]

    def _rounds(self, call: Call, copy: int) -> _Batch:
        loop = call.again
        tasks = self._who(call, copy)
        batch = last = self._batch(call, copy, 0, tasks, None)
        for ids, before in self._ends(call, copy, tasks, batch.ids):
            self._edges.append((ids, before))
        for number in range(1, loop.rounds):
            goes_on = self._rng(call.name, "stop", copy, number).random(len(tasks)) >= loop.stop
            tasks = tasks[goes_on]
            if len(tasks) == 0:
                break
            before, batch = batch, self._batch(call, copy, number, tasks, batch)
            self._edges.append((batch.ids, before.ids[find(before.tasks, tasks)]))
            last = _overwritten(last, batch)
        return last

    def _who(self, call: Call, copy: int) -> Counts:
        """Tasks in which a copy happens."""
        who = np.ones(self._count, bool)
        for name in filter(None, (call.given, call.per)):
            happened = np.zeros(self._count, bool)
            for other in self._copies_seen(call, copy, name):
                happened[self._last[name][other].tasks] = True
            who &= happened
        tasks = np.flatnonzero(who)
        if call.probability == 1:
            return tasks
        lucky = self._rng(call.name, "happens", copy).random(len(tasks)) < call.probability
        return tasks[lucky]

    def _copies_seen(self, call: Call, copy: int, name: str) -> Sequence[int]:
        """Copies of a named call that a copy of a call sees."""
        together = self._graph.lane(name) == self._graph.lane(call.name)
        return (copy,) if together else range(self._graph.width(name))

    def _ends(
        self, call: Call, copy: int, tasks: Counts, ids: Counts
    ) -> Iterator[tuple[Counts, Counts]]:
        """What requests ``ids`` of ``tasks`` follow, if they follow what ``call`` does."""
        for name in call.after:
            for other in self._copies_seen(call, copy, name):
                batch = self._last[name][other]
                at = find(batch.tasks, tasks)
                happened = at >= 0
                yield ids[happened], batch.ids[at[happened]]
                if not happened.all():
                    skipped = self._graph[name]
                    yield from self._ends(skipped, other, tasks[~happened], ids[~happened])

    def _batch(
        self, call: Call, copy: int, number: int, tasks: Counts, before: _Batch | None
    ) -> _Batch:
        def draw(law: LengthLaw, *what: str | int) -> Counts:
            return law.sample(len(tasks), self._rng(call.name, *what, copy, number))

        parts = call.prompts()[number > 0]
        length, node = np.zeros(len(tasks), np.int64), np.zeros(len(tasks), np.int64)
        for place, part in enumerate(parts):
            fresh = draw(part.law, "new", place) if isinstance(part, New) else None
            length, node = self._read(call, copy, part, tasks, length, node, fresh, before)
        if np.any(length < 1):
            raise UsageError(
                f"call {call.name!r} has an empty prompt where what it reads did not happen; give "
                "it text of its own"
            )
        visible = draw(call.output, "output")
        hidden = draw(call.hidden, "hidden") if call.hidden else np.zeros_like(visible)
        waits = call.again.delay_ms if number else call.delay_ms
        delay = np.asarray(draw(waits, "delay") if waits else np.zeros(len(tasks)), np.float64)
        ids = np.arange(self._drawn, self._drawn + len(tasks))
        self._drawn += len(tasks)
        end, reach = node, length
        if self._contexts and not call.hidden:
            # as a later call would read it right behind the prompt
            kind = _answers(call.name, copy)
            end = self._contexts.piece(kind, tasks, node, length, visible, ids)
            reach = length + visible
        batch = _Batch(tasks, ids, length, visible, node)
        self._batches.append((batch, _Columns(call.pool, hidden, delay * 1e-3, end, reach)))
        return batch

    def _read(
        self, call: Call, copy: int, part: Part, tasks: Counts, length: Counts, node: Counts,
        fresh: Counts | None, before: _Batch | None,
    ) -> tuple[Counts, Counts]:  # fmt: skip
        """Length and node of prompts after one more part."""
        tree = self._contexts
        if isinstance(part, New):
            assert fresh is not None
            return length + fresh, tree.new(node, length, fresh) if tree else node
        if isinstance(part, Common):
            if tree:
                node = tree.common(part.name, tasks, node, length, part.tokens)
            return length + part.tokens, node
        if isinstance(part, Text):
            if part.name not in self._texts:
                lengths = part.law.sample(self._count, self._rng("text", part.name))
                self._texts[part.name] = lengths
            read = self._texts[part.name][tasks]
            if tree:
                only = np.zeros(len(tasks), np.int64)
                node = tree.piece(f"text {part.name}", tasks, node, length, read, only)
            return length + read, node
        for other in self._copies_seen(call, copy, part.call):
            own = before is not None and part.call == call.name
            batch = before if own else self._last[part.call][other]
            assert batch is not None
            at = find(batch.tasks, tasks)
            happened = np.flatnonzero(at >= 0)
            there = at[happened]
            if isinstance(part, Prompt):  # the first part: nothing has been read so far
                length[happened], node[happened] = batch.prompt[there], batch.node[there]
                continue
            read, which = np.zeros(len(tasks), np.int64), np.zeros(len(tasks), np.int64)
            read[happened], which[happened] = batch.visible[there], batch.ids[there]
            if tree:
                kind = _answers(part.call, other)
                node = tree.piece(kind, tasks, node, length, read, which)
            length = length + read
        return length, node

    def _rng(self, *what: str | int) -> Generator:
        key = tuple("/".join(map(str, what)).encode())
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))

    def requests(self, arrival: Times, pools: Sequence[str]) -> Requests:
        """All that was drawn, in order of task."""
        batches = [batch for batch, _ in self._batches]
        more = [columns for _, columns in self._batches]
        sizes = [len(batch.ids) for batch in batches]
        task = np.concatenate([batch.tasks for batch in batches])
        order = np.argsort(task, kind="stable")
        task = task[order]
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))

        hidden = np.concatenate([columns.hidden for columns in more])[order]
        delay = np.concatenate([columns.delay for columns in more])[order]
        prompt = np.concatenate([batch.prompt for batch in batches])[order]
        visible = np.concatenate([batch.visible for batch in batches])[order]
        blocks = None
        if self._contexts is not None:
            end = np.concatenate([columns.end for columns in more])[order]
            reach = np.concatenate([columns.reach for columns in more])[order]
            blocks = self._contexts.blocks(end, reach)
        return Requests(
            arrival[task],
            prompt,
            visible + hidden,
            hidden=hidden if hidden.any() else None,
            session=task,
            pool=np.repeat([pools.index(columns.pool) for columns in more], sizes)[order],
            task=task,
            after=self._after(rank),
            delay=delay if delay.any() else None,
            hash_ids=blocks,
        )

    def _after(self, rank: Counts) -> Ragged | None:
        if not any(len(ids) for ids, _ in self._edges):
            return None
        follower = rank[np.concatenate([ids for ids, _ in self._edges])]
        before = rank[np.concatenate([ids for _, ids in self._edges])]
        return from_pairs(follower, before, len(rank))


def _answers(call: str, copy: int) -> str:
    """Kind of text that the answers of a copy of a call are."""
    return f"output {call} {copy}"


def _overwritten(last: _Batch, batch: _Batch) -> _Batch:
    """The last rounds, a further round being known."""
    at = find(last.tasks, batch.tasks)
    columns: dict[str, Counts] = {}
    for name in ("ids", "prompt", "visible", "node"):
        columns[name] = getattr(last, name).copy()
        columns[name][at] = getattr(batch, name)
    return replace(last, **columns)
