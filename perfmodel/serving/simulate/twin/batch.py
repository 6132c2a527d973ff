"""The batch of a replica: who runs, what blocks they have, and who gives way."""

from __future__ import annotations

import math
from collections import defaultdict, deque

from perfmodel.serving.simulate.fleet import Replica as Spec
from perfmodel.serving.simulate.fleet import Role
from perfmodel.serving.simulate.twin.cache import Adapters, Cache
from perfmodel.serving.simulate.twin.clock import Clock
from perfmodel.serving.simulate.twin.request import NEVER, Call
from perfmodel.serving.simulate.twin.tally import Tally


class Batch:
    """What waits and what runs; a step is under way unless ``due_tick`` is `NEVER`."""

    def __init__(
        self, index: int, spec: Spec, clock: Clock, levels: int, hash_block: int, record: Tally
    ) -> None:
        engine = spec.engine
        self.index, self.spec, self.clock, self.record = index, spec, clock, record
        self.engine, self.policy, self.state = engine, engine.policy, spec.state
        self.cache = Cache(engine.blocks, engine.block_size, hash_block, engine.prefix_cache)
        self.adapters = Adapters(engine.adapters)
        self.waiting = [deque[Call]() for _ in range(levels)]
        self.sending: dict[Call, None] = {}  # their cache is being copied to another replica
        self.outstanding = 0
        self.prompts = 0  # tokens of the outstanding requests' prompts
        self.moving: Call | None = None
        self.link_free = 0.0
        self.on_since = math.nan
        self.boundary, self.boundary_tick = 0.0, -1  # end of the latest step
        self.steps: int = 0  # that decoded
        self.admissions = 0
        self.clear()

    def clear(self) -> None:
        """Nothing waits for a place, runs, or is in the cache."""
        for queue in self.waiting:
            queue.clear()
        self.landed = deque[Call]()
        self.running: dict[Call, None] = {}  # in order of admission
        self.partial: Call | None = None  # in the middle of its prompt
        self.decoding = 0
        self.total: int = 0  # sum of the decodes' prompts and offsets
        self.phases = [0] * self.engine.block_size  # decodes by (prompt + offset - 1) % block_size
        self.due = defaultdict[int, list[Call]](list)  # by the decode step that finishes them
        self.due_to_show = defaultdict[int, list[Call]](list)
        self.late: dict[Call, None] = {}  # began to decode since the last decode step
        self.sync = -1.0  # end of the last decode step
        self.started = False  # whether the batch has begun to decode
        self.owned, self.promised = 0, 0  # blocks running requests have, and will have in the end
        self.cache.clear()
        self.adapters.clear()
        self.end, self.due_tick = 0.0, NEVER  # of the step under way, never without one
        self.chunks: list[tuple[Call, int]] = []
        self.drafts: dict[Call, int] | None = None
        self.grown, self.grew = set[Call](), False  # decodes that have a block for the next token
        self.preempted = False  # of the step: whether somebody had to give way,
        self.swaps, self.loads, self.proposed = 0, 0, 0  # blocks, adapters, draft tokens

    # --- room -------------------------------------------------------------------------------------

    def admit(self, call: Call) -> None:
        """Give a place, and the adapter; its blocks are allocated."""
        self.running[call] = None
        call.began = self.admissions
        self.admissions += 1
        self.owned += call.blocks
        self.promised += self.final_blocks(call)
        if self.engine.adapters:
            self.loads += self.adapters.hold(call)
        self.cache.evict()

    def final_blocks(self, call: Call) -> int:
        """Blocks of a request at its end here."""
        prompt_only = self.spec.role == Role.PREFILL
        return self.cache.blocks_of(call.goal if prompt_only else call.prompt + call.output - 1)

    def margin(self, call: Call, blocks: int) -> int:
        """Blocks that stay free if a request joins with so many."""
        if not self.running:
            return 0
        yet = self.promised - self.owned + self.final_blocks(call) - blocks
        return self.engine.reserve + int(self.policy.foresight * yet)

    def growth(self, call: Call) -> int:
        """Blocks that the next tokens of a landed request and of the decodes take."""
        size, rule = self.engine.block_size, self.engine.speculation
        if rule is None:
            return (call.cached % size == 0) + self.phases[-self.steps % size]
        length = int(rule.lengths[self.decoding + 1])
        draft = min(length, call.output - call.generated - 1)
        own = self.cache.blocks_of(call.cached + draft + 1) - self.cache.blocks_of(call.cached)
        others = [other for other in self.running if other.state == "decode"]
        return own + sum(self.growth_for_draft(other, length)[1] for other in others)

    def grow(self) -> None:
        """Blocks for the tokens this step decodes, oldest first; others give way."""
        if self.engine.speculation is not None:
            self.grow_for_drafts(int(self.engine.speculation.lengths[self.decoding]))
            return
        size = self.engine.block_size
        needed = self.phases[-self.steps % size]
        if needed <= self.cache.free:
            if needed:
                self.cache.free -= needed
                self.owned += needed
                self.cache.evict()
            self.grew = True
            return
        for call in list(self.running):
            lacks = call.state == "decode" and self.cached(call) % size == 0
            if lacks and self.make_room(call, 1):
                self.cache.free -= 1
                self.owned += 1
                self.grown.add(call)
                self.cache.evict()

    def grow_for_drafts(self, length: int) -> None:
        """Blocks for the tokens that are proposed and checked."""
        self.drafts = {}
        for call in list(self.running):
            if call.state != "decode":
                continue
            draft, more = self.growth_for_draft(call, length)
            if self.make_room(call, more):
                self.cache.free -= more
                call.blocks += more
                self.owned += more
                self.cache.evict()
                self.drafts[call] = draft
        self.proposed = sum(self.drafts.values())

    def growth_for_draft(self, call: Call, length: int) -> tuple[int, int]:
        """Tokens to propose for a decode, and the blocks it lacks to verify them."""
        draft = min(length, call.output - self.generated(call) - 1)
        tokens = self.cached(call) + draft + 1
        return draft, max(self.cache.blocks_of(tokens) - call.blocks, 0)

    def make_room(self, call: Call, blocks: int) -> bool:
        """Preempt until so many blocks are free, unless it is the call's own turn to go."""
        while self.cache.free < blocks and call in self.running:
            self.preempt(max(self.running, key=lambda other: (other.level, other.began)))
        return call in self.running

    def preempt(self, call: Call) -> None:
        """Take a request's place; it waits before its like, or for its swapped cache."""
        self.preempted = True
        decoding = call.state == "decode"
        self.leave(call)
        self.record.preemptions[self.index] += 1
        if len(self.record.preempted):
            self.record.preempted[call.index] += 1
        if decoding and self.engine.swap_time is not None:
            call.state, call.swapped = "landed", True
            self.swaps += self.cache.blocks_of(call.cached)
            self.landed.appendleft(call)
        else:
            call.state = "waiting"
            self.waiting[call.level].appendleft(call)

    # --- joining and leaving ----------------------------------------------------------------------

    def generated(self, call: Call) -> int:
        """Tokens a decoding call has generated."""
        return call.offset + self.steps

    def cached(self, call: Call) -> int:
        """Tokens in the cache of a decoding call."""
        return call.prompt + call.offset + self.steps - 1

    def join(self, call: Call) -> None:
        """Begin to decode with the next step."""
        call.state, call.offset = "decode", call.generated - self.steps
        self.decoding += 1
        self.total += call.prompt + call.offset
        self.late[call] = None
        if self.engine.speculation is None:
            self.phases[(call.prompt + call.offset - 1) % self.engine.block_size] += 1
            self.due[call.output - call.offset].append(call)
            if call.generated <= call.hidden:
                self.due_to_show[call.hidden + 1 - call.offset].append(call)

    def leave(self, call: Call) -> None:
        """Give up place, blocks and adapter."""
        self.quit(call)
        self.cache.release(call)

    def quit(self, call: Call) -> None:
        """Give up place and adapter, but not the blocks."""
        if call.state == "decode":
            call.generated, call.cached = self.generated(call), self.cached(call)
            self.decoding -= 1
            self.total -= call.prompt + call.offset
            if call in self.late:
                del self.late[call]
            else:
                call.last = self.sync
            if self.engine.speculation is None:
                self.phases[(call.prompt + call.offset - 1) % self.engine.block_size] -= 1
                call.blocks = self.cache.blocks_of(call.cached + (self.grew or call in self.grown))
                for calendar, step in (
                    (self.due, call.output - call.offset),
                    (self.due_to_show, call.hidden + 1 - call.offset),
                ):
                    if call in calendar.get(step, ()):
                        calendar[step].remove(call)
            elif self.drafts is not None:
                self.proposed -= self.drafts.pop(call, 0)
        del self.running[call]
        if not self.running:
            self.started = False
        if call is self.partial:
            self.partial = None
        self.owned -= call.blocks
        self.promised -= self.final_blocks(call)
        if self.engine.adapters:
            self.adapters.drop(call)
        if call.leaving and self.moving is call:
            self.moving = None
        call.target, call.leaving = -1, False
