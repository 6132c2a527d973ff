"""One engine: what its steps hold, how long they take, and what they leave."""

from __future__ import annotations

from typing import Protocol

from perfmodel.serving.simulate.draws import draw
from perfmodel.serving.simulate.fleet import Replica as Spec
from perfmodel.serving.simulate.fleet import Role
from perfmodel.serving.simulate.policy import FINETUNE_ROWS
from perfmodel.serving.simulate.record import ITL, bin_of
from perfmodel.serving.simulate.twin.batch import Batch
from perfmodel.serving.simulate.twin.clock import Clock
from perfmodel.serving.simulate.twin.request import NEVER, Call, tick
from perfmodel.serving.simulate.twin.tally import Tally


class World(Protocol):
    """What a replica tells the cluster."""

    record: Tally

    def started(self, call: Call, now: float) -> None:
        """A request's prompt is begun."""
        ...

    def prompted(self, call: Call, now: float) -> None:
        """A request's first token is there."""
        ...

    def showed(self, call: Call, now: float) -> None:
        """The first token that the user sees is there."""
        ...

    def finished(self, call: Call, replica: Replica, now: float) -> None:
        """A request's last token is there."""
        ...

    def send(self, call: Call, replica: Replica, now: float, tokens: int) -> None:
        """Copy the last ``tokens`` of a cache to where its request will decode."""
        ...

    def depart(self, call: Call, replica: Replica, now: float) -> None:
        """A request that migrates leaves the batch."""
        ...


class Replica(Batch):
    """An engine of the cluster."""

    def __init__(
        self, index: int, spec: Spec, clock: Clock, levels: int, hash_block: int, world: World
    ) -> None:
        super().__init__(index, spec, clock, levels, hash_block, world.record)
        self.world = world

    # --- beginning a step -------------------------------------------------------------------------

    def schedule(self, now: float) -> None:
        """Begin a step, if there is anything to do; who has just made room is looked at again."""
        self.fill(now)
        while self.due_tick == NEVER and self.preempted:
            self.fill(now)

    def fill(self, now: float) -> None:
        """Decide what the step holds."""
        self.preempted, self.begin = False, now
        self.swaps, self.loads, self.proposed = 0, 0, 0
        self.grown.clear()
        self.grew, self.drafts = False, None
        if self.landed:
            self.admit_landed()
        self.chunks = []
        decodes = self.policy.mixed
        if decodes and self.decoding:
            self.grow()
        room = self.engine.budget
        if decodes:
            room -= self.decoding + self.proposed
        self.schedule_prompts(room)
        if not decodes and not self.chunks:
            if self.decoding:
                self.grow()
            decodes = True
        self.decodes = self.decoding if decodes else 0
        if self.decodes or self.chunks:
            self.spent = self.step_time()
            self.end = now + self.spent
            self.due_tick = tick(self.end)
            self.used = self.cache.used

    def admit_landed(self) -> None:
        """Requests with a cache of their own decode as soon as blocks are there for it."""
        while self.landed and len(self.running) < self.engine.max_num_seqs:
            call = self.landed[0]
            blocks = self.cache.blocks_of(call.cached)
            growth = self.growth(call)  # else someone would give way at once
            if (
                not (self.policy.refill or not self.started)
                or blocks + growth > self.cache.free - self.margin(call, blocks + growth)
                or not self.adapters.admits(call)
            ):
                break
            self.landed.popleft()
            self.cache.allocate(call, call.cached)
            self.admit(call)
            if call.swapped:
                self.swaps += blocks
                call.swapped = False
            self.join(call)

    def schedule_prompts(self, room: int) -> None:
        """The prompt under way, then waiting ones while tokens, places and blocks suffice."""
        policy, cache = self.policy, self.cache
        call = self.partial
        if call is not None and room > 0:
            new = min(call.goal - call.cached, room)
            tokens = call.goal if policy.layered else call.cached + new
            if self.make_room(call, cache.blocks_of(tokens) - call.blocks):
                self.owned -= call.blocks
                cache.allocate(call, tokens)
                self.owned += call.blocks
                cache.share(call, tokens)
                cache.evict()
                self.chunks.append((call, new))
                room -= new
        while (
            room > 0
            and not self.preempted
            and not self.landed
            and len(self.running) < self.engine.max_num_seqs
            and (policy.refill or not self.started)
        ):
            call = self.first_waiting()
            if call is None:
                break
            goal = call.goal = call.prompt + call.generated
            found = cache.match(call, goal) if cache.shared else 0
            cached = found * cache.hash_block
            new = min(goal - cached, room) if policy.chunked else goal - cached
            if new > room and self.chunks:
                break
            tokens = goal if policy.layered else cached + new
            blocks = cache.blocks_of(goal)  # the whole prompt must fit, not its first chunk alone
            taken = blocks - found * cache.span + cache.idle_blocks(call, found)
            if taken > cache.free - self.margin(call, blocks):
                break
            self.waiting[call.level].remove(call)
            cache.take_found(call, found)
            call.base, call.cached, call.state = cached, cached, "prompt"
            cache.allocate(call, tokens)
            cache.share(call, tokens)
            self.admit(call)
            self.world.started(call, self.begin)
            self.chunks.append((call, new))
            room -= new

    def first_waiting(self) -> Call | None:
        """The first that waits and whose adapter is here or can be; the others let it pass."""
        for queue in self.waiting:
            for call in queue:
                if self.adapters.admits(call):
                    return call
        return None

    def step_time(self) -> float:
        """Duration of the step; notes what it computes."""
        engine, clock, decodes = self.engine, self.clock, self.decodes
        drafts, parts = self.proposed, self.chunks
        self.new = sum([new for _, new in parts])
        extra = 0
        if engine.finetune:
            extra = min(engine.finetune, max(engine.budget - decodes - drafts - self.new, 0))
        self.finetuned, extra_rows = extra, FINETUNE_ROWS * extra
        self.rows = decodes + drafts + self.new + extra_rows
        self.sequences = decodes + drafts + len(parts)
        self.decode_time = 0.0
        if decodes:
            total = self.total + decodes * self.steps + drafts
            self.decode_time = clock.decoding(decodes, total, self.contexts())
        if self.policy.layered and parts:
            alone = 0.0
            if decodes or extra:
                rest = clock.rest(
                    decodes + drafts + extra_rows, decodes + drafts, 0, decodes > 0, False
                )
                alone = self.decode_time + rest
            spent, self.prefill_time = alone, 0.0
            for call, new in parts:
                whole = call.goal - call.base
                share = new / whole
                attention = clock.prefilling([(whole, call.base)])
                rest = clock.rest(
                    decodes + drafts + extra_rows + whole, decodes + drafts + 1, call.base,
                    decodes > 0, True,
                )  # fmt: skip
                spent += share * (self.decode_time + attention + rest - alone)
                self.prefill_time += share * attention
        else:
            self.prefill_time, past = 0.0, 0
            if parts:
                self.prefill_time = clock.prefilling([(new, call.cached) for call, new in parts])
                past = sum([call.cached for call, _ in parts])
            rest = clock.rest(self.rows, self.sequences, past, decodes > 0, bool(parts))
            spent = self.decode_time + self.prefill_time + rest
        if self.swaps:
            spent += self.swaps * (engine.swap_time or 0.0)
        if engine.adapters:
            spent += self.loads * engine.adapter_time
            spent += len(self.adapters.users) * engine.adapter_step
        if engine.speculation is not None and drafts:
            length = int(engine.speculation.lengths[decodes])
            spent += length * float(engine.speculation.draft[decodes])
        return max(spent, engine.host_time * (decodes + len(parts)))

    def contexts(self) -> list[int]:
        """Tokens each decode reads, its own included; none where their sum will do."""
        if self.clock.linear:
            return []
        drafts = self.drafts or {}
        return [
            self.cached(call) + 1 + drafts.get(call, 0)
            for call in self.running
            if call.state == "decode"
        ]

    # --- ending a step ----------------------------------------------------------------------------

    def complete(self) -> None:
        """End the step: a token for each decode and for each prompt that is complete."""
        now, self.due_tick = self.end, NEVER
        self.account(now)
        self.grown.clear()  # from here on blocks follow from the steps
        self.grew = False
        done = list[Call]()
        if self.decodes:
            self.steps += 1
            self.count_gaps(now)
            self.sync, self.started = now, True
            if self.drafts is not None:
                done = self.accept(now)
            else:
                for call in self.due_to_show.pop(self.steps, ()):
                    self.world.showed(call, now)
                done = self.due.pop(self.steps, [])
        if len(done) > 1:
            done.sort(key=lambda call: call.index)
        for call in done:
            self.finish(call, now)
        for call, new in self.chunks:
            call.cached += new
            if call.cached < call.goal:
                self.partial = call
            else:
                self.partial = None
                self.end_prompt(call, now)
        call = self.moving
        if call is not None and call.leaving:
            self.world.depart(call, self, now)

    def accept(self, now: float) -> list[Call]:
        """Give each decode its accepted draft tokens and one more; those who are done."""
        assert self.engine.speculation is not None
        assert self.drafts is not None
        rule, done, counts = self.engine.speculation, list[Call](), self.record.counts
        for call, draft in self.drafts.items():
            before = call.offset + self.steps - 1
            number, accepted, chance = draw(rule.seed, call.index, before), 0, rule.acceptance
            while accepted < draft and number < chance:
                accepted += 1
                chance *= rule.acceptance
            call.offset += accepted
            self.total += accepted
            counts["proposed"] += draft
            counts["accepted"] += accepted
            self.record.decode_tokens[self.index] += accepted
            self.record.histogram[call.tenant][ITL][0] += accepted
            after = self.generated(call)
            if before <= call.hidden < after:
                self.world.showed(call, now)
            if after == call.output:
                done.append(call)
        return done

    def end_prompt(self, call: Call, now: float) -> None:
        """A prompt is complete, which gives a token: the first one, or one after a preemption."""
        if call.generated:
            self.record.histogram[call.tenant][ITL][bin_of(now - call.last)] += 1
        else:
            self.world.prompted(call, now)
        call.generated += 1
        call.last = now
        if call.generated == call.hidden + 1:
            self.world.showed(call, now)
        if call.generated == call.output:
            self.finish(call, now)
        elif self.spec.role == Role.PREFILL:
            self.quit(call)
            self.world.send(call, self, now, call.cached)
        else:
            self.join(call)

    def finish(self, call: Call, now: float) -> None:
        """The last token is there."""
        self.leave(call)
        call.state, call.last = "done", now
        self.world.finished(call, self, now)

    def account(self, now: float) -> None:
        """Note what the step was."""
        record, at, surface, spent = self.record, self.index, self.spec.surface, self.spent
        record.steps[at] += 1
        record.busy[at] += spent
        record.block_time[at] += spent * self.used
        record.running_time[at] += spent * len(self.running)
        record.prompt_tokens[at] += self.new
        record.decode_tokens[at] += self.decodes
        if self.used > record.peak_blocks[at]:
            record.peak_blocks[at] = self.used
        record.row_steps[surface][self.rows] += 1
        record.sequence_steps[surface][self.sequences] += 1
        attention, launches = record.attention[surface], record.launches[surface]
        if self.decodes:
            attention[0] += self.decode_time
            launches[0] += 1
        if self.chunks:
            attention[1] += self.prefill_time
            launches[1] += 1
        record.counts["finetune_tokens"] += self.finetuned
        record.counts["swapped_blocks"] += self.swaps
        if len(record.log) < record.most:
            record.log.append((at, self.begin, now, 1, self.decodes, self.new, self.used))

    def count_gaps(self, now: float) -> None:
        """Put the gaps between tokens into the histogram; most began with the last decode step."""
        histogram, late = self.record.histogram, self.late
        for call in late:
            histogram[call.tenant][ITL][bin_of(now - call.last)] += 1
        usual = bin_of(now - self.sync)
        if len(histogram) == 1:
            histogram[0][ITL][usual] += self.decodes - len(late)
        else:
            for call in self.running:
                if call.state == "decode" and call not in late:
                    histogram[call.tenant][ITL][usual] += 1
        late.clear()
