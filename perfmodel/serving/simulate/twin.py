"""The simulator in plain Python, one step and one request at a time: the oracle of the core.

Written to be read. `core` does the same with stretches of steps jumped in closed form; a property
test holds the two together.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.policy import Engine
from perfmodel.serving.simulate.result import ITL, Record, Slo, bin_of
from perfmodel.serving.simulate.surface import Surface


@dataclass(slots=True, eq=False)
class _Request:
    """A request in the engine; it decodes once ``goal`` tokens are cached."""

    index: int
    goal: int
    output: int
    cached: int = 0
    generated: int = 0
    blocks: int = 0
    last: float = 0.0


def run(
    surface: Surface,
    engine: Engine,
    requests: Requests,
    users: int,
    slo: Slo,
    record: Record,
) -> None:
    """Serve all requests and fill ``record``; ``users`` > 0 closes the loop."""
    _Twin(surface, engine, requests, users, slo, record).serve()


class _Twin:
    def __init__(
        self, surface: Surface, engine: Engine, requests: Requests, users: int, slo: Slo,
        record: Record,
    ) -> None:  # fmt: skip
        self.surface, self.engine, self.slo, self.record = surface, engine, slo, record
        self.users = users
        self.prompts, self.outputs = requests.prompt.tolist(), requests.output.tolist()
        self.arrivals: list[float] = requests.arrival.tolist()
        if users:
            self.arrivals = [0.0] * min(users, len(self.prompts))  # the others follow a finish
        self.count = len(self.prompts)
        self.arrived = 0
        self.finished = 0
        self.now = 0.0
        self.free = engine.blocks
        self.running: list[_Request] = []  # in order of admission
        self.waiting: deque[_Request] = deque()
        self.started = False  # whether the batch has begun to decode
        self.preempted = False  # whether this step had to preempt
        self.starts = [math.nan] * self.count
        self.firsts = [math.nan] * self.count
        self.finishes = [math.nan] * self.count
        self.losses = [0] * self.count

    def serve(self) -> None:
        while self.finished < self.count:
            self.take_arrivals()
            if not self.running and not self.waiting:
                self.now = self.arrivals[self.arrived]
                continue
            self.step()
        record = self.record
        record.makespan = self.now
        record.arrival[:] = self.arrivals
        record.start[:], record.first[:] = self.starts, self.firsts
        record.finish[:], record.preempted[:] = self.finishes, self.losses

    def take_arrivals(self) -> None:
        while self.arrived < len(self.arrivals) and self.arrivals[self.arrived] <= self.now:
            index = self.arrived
            self.waiting.append(_Request(index, self.prompts[index], self.outputs[index]))
            self.arrived += 1

    def step(self) -> None:
        self.preempted = False
        decodes: list[_Request] = []
        if self.engine.policy.mixed:
            decodes = self.schedule_decodes()
            chunks = self.schedule_prompts(self.engine.budget - len(decodes))
        else:
            chunks = self.schedule_prompts(self.engine.budget)
            if not chunks:
                decodes = self.schedule_decodes()
        spent = self.surface.time(
            [request.cached + 1 for request in decodes],
            [(new, request.cached) for request, new in chunks],
        )
        self.account(spent, len(decodes), chunks)
        self.give_tokens(decodes, spent)
        for request, new in chunks:
            request.cached += new
            if request.cached == request.goal:
                self.end_prompt(request)
        self.started = bool(self.running) and (self.started or bool(decodes))

    def schedule_decodes(self) -> list[_Request]:
        """One token for each request that decodes, oldest first; the youngest give way."""
        size, decodes = self.engine.block_size, list[_Request]()
        for request in self.running[:]:
            if request.cached < request.goal or request.blocks < 0:
                continue
            if request.cached % size == 0:
                while self.free == 0 and request.blocks >= 0:
                    self.preempt(self.running[-1])
                if request.blocks < 0:
                    break
                self.free -= 1
                request.blocks += 1
            decodes.append(request)
        return decodes

    def schedule_prompts(self, room: int) -> list[tuple[_Request, int]]:
        """The prompt under way, then waiting ones while tokens, places and blocks suffice."""
        policy, chunks = self.engine.policy, list[tuple[_Request, int]]()
        for request in self.running[-1:]:  # only the youngest can be in the middle of its prompt
            new = min(request.goal - request.cached, room)
            if new <= 0:
                break
            if self.blocks_for(request, new) > self.free:
                self.preempt(request)
            else:
                self.allocate(request, new)
                chunks.append((request, new))
                room -= new
        while (
            self.waiting
            and room > 0
            and not self.preempted
            and len(self.running) < self.engine.max_num_seqs
            and (policy.refill or not self.started)
        ):
            request = self.waiting[0]
            new = min(request.goal, room) if policy.chunked else request.goal
            reserve = self.engine.reserve if self.running else 0
            if new > room and chunks:
                break
            if self.blocks_for(request, new) > self.free - reserve:
                break
            self.waiting.popleft()
            self.running.append(request)
            self.allocate(request, new)
            chunks.append((request, new))
            room -= new
            if math.isnan(self.starts[request.index]):
                self.starts[request.index] = self.now
        return chunks

    def blocks_for(self, request: _Request, new: int) -> int:
        """Further blocks a request needs to cache ``new`` more tokens."""
        return -(-(request.cached + new) // self.engine.block_size) - request.blocks

    def allocate(self, request: _Request, new: int) -> None:
        more = self.blocks_for(request, new)
        request.blocks += more
        self.free -= more

    def preempt(self, request: _Request) -> None:
        """Drop a request's cache; it waits before all others and computes its tokens again."""
        self.running.remove(request)
        self.free += request.blocks
        again = _Request(request.index, self.prompts[request.index] + request.generated,
                         request.output, 0, request.generated, 0, request.last)  # fmt: skip
        request.blocks = -1  # marks the old entry, which a loop may still hold
        self.waiting.appendleft(again)
        self.losses[request.index] += 1
        self.record.preemptions += 1
        self.preempted = True

    def give_tokens(self, decodes: list[_Request], spent: float) -> None:
        """End the step: a token for each decode."""
        before, waited = self.now, list[float]()
        self.now = now = before + spent
        done: list[_Request] = []
        for request in decodes:
            request.cached += 1
            request.generated += 1
            if request.last != before:
                waited.append(now - request.last)
            request.last = now
            if request.generated == request.output:
                done.append(request)
        self.record.histogram[ITL, bin_of(spent)] += len(decodes) - len(waited)
        for gap in waited:
            self.record.histogram[ITL, bin_of(gap)] += 1
        for request in done:
            self.finish(request)

    def end_prompt(self, request: _Request) -> None:
        """A prompt is complete, which gives a token: the first one, or one after a preemption."""
        if request.generated:
            self.record.histogram[ITL, bin_of(self.now - request.last)] += 1
        else:
            self.firsts[request.index] = self.now
        request.generated += 1
        request.last = self.now
        if request.generated == request.output:
            self.finish(request)

    def finish(self, request: _Request) -> None:
        index, record = request.index, self.record
        self.running.remove(request)
        self.free += request.blocks
        self.finishes[index] = self.now
        self.finished += 1
        if self.users and len(self.arrivals) < self.count:
            self.arrivals.append(self.now)
        arrival, first = self.arrivals[index], self.firsts[index]
        e2el, ttft, queue = self.now - arrival, first - arrival, self.starts[index] - arrival
        several = request.output > 1
        tpot = (self.now - first) / (request.output - 1) if several else 0.0
        for row, value in enumerate((ttft, tpot, e2el, queue)):
            if several or row != 1:
                record.histogram[row, bin_of(value)] += 1
                record.sums[row] += value
        slo = self.slo
        record.good += ttft <= slo.ttft and tpot <= slo.tpot and e2el <= slo.e2el

    def account(self, spent: float, decodes: int, chunks: list[tuple[_Request, int]]) -> None:
        record, used = self.record, self.engine.blocks - self.free
        record.steps += 1
        record.busy += spent
        record.block_time += spent * used
        record.running_time += spent * len(self.running)
        record.decode_tokens += decodes
        record.prompt_tokens += sum([new for _, new in chunks])
        record.peak_blocks = max(record.peak_blocks, used)
