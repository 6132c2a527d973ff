"""Migration of running requests, scaling, failures and drains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from perfmodel.serving.simulate.fleet import MOST_STAGES, Role, State
from perfmodel.serving.simulate.twin.replica import Replica
from perfmodel.serving.simulate.twin.request import NEVER, Call

if TYPE_CHECKING:
    from perfmodel.serving.simulate.twin.cluster import World


class Moves:
    """What changes the cluster while it runs."""

    def __init__(self, world: World) -> None:
        self.world, self.cluster = world, world.cluster
        self.idle_looks = 0  # events that change nothing unless something else happens
        for replica in world.replicas:
            if replica.state != State.OFF:
                replica.on_since = 0.0
        for change in self.cluster.changes:
            world.push(change.time, self.change, world.replicas[change.replica], change.state)
        if self.cluster.migration is not None:
            self.repeat(self.cluster.migration.interval, self.rebalance)
        if self.cluster.scaler is not None:
            self.repeat(self.cluster.scaler.interval, self.scale)

    def repeat(self, interval: float, look: Callable[[], None]) -> None:
        """Look every ``interval`` as long as anything else can happen."""
        world = self.world
        idle = look == self.rebalance  # a scaler may start what stranded requests wait for

        def again() -> None:
            self.idle_looks -= idle
            look()
            if (
                len(world.events) > self.idle_looks
                or world.at < len(world.queue)
                or any(replica.outstanding for replica in world.replicas)
            ):
                self.repeat(interval, look)

        self.idle_looks += idle
        world.push(world.now + interval, again)

    # --- migration --------------------------------------------------------------------------------

    def rebalance(self) -> None:
        """Pair the fullest replicas of each pool with the emptiest."""
        rule = self.cluster.migration
        assert rule is not None
        for pool in range(self.cluster.pools):
            group = [
                r
                for r in self.world.replicas
                if r.spec.pool == pool and r.spec.role != Role.PREFILL
                and r.state in (State.READY, State.DRAINING)
            ]  # fmt: skip
            freeness = {r.index: self.freeness(r) for r in group}
            full = sorted(
                (r for r in group if freeness[r.index] < rule.low),
                key=lambda r: (freeness[r.index], r.index),
            )
            free = sorted(
                (r for r in group if r.state == State.READY and freeness[r.index] > rule.high),
                key=lambda r: (-freeness[r.index], r.index),
            )
            for source, target in zip(full, free, strict=False):
                if source is not target and source.moving is None:
                    self.begin(source, target)

    def freeness(self, replica: Replica) -> float:
        """Llumnix, section 4.4.1: free space less what the first in line wants, per request."""
        if replica.state == State.DRAINING:
            return -math.inf
        wanted = 0
        if replica.landed:
            wanted = replica.cache.blocks_of(replica.landed[0].cached)
        else:
            queue = next((queue for queue in replica.waiting if queue), None)
            if queue is not None:
                wanted = replica.cache.blocks_of(queue[0].prompt + queue[0].generated)
        return (replica.cache.free - wanted) / max(1, len(replica.running))

    def begin(self, source: Replica, target: Replica) -> None:
        """Start to copy the cache of the request that is easiest to move."""
        able = [call for call in source.running if call.state == "decode"]
        if not able:
            return
        call = min(able, key=lambda c: (-c.level, source.cached(c), c.index))
        tokens = source.cached(call)
        if (
            target.cache.blocks_of(tokens) > target.cache.free
            or len(target.running) >= target.engine.max_num_seqs
        ):
            return
        call.target, call.stages = target.index, 0
        source.moving = call
        call.copied = 0
        self.copy(call, source)

    def copy(self, call: Call, source: Replica) -> None:
        """One more stage: copy what the cache holds by now."""
        tokens = source.cached(call)
        call.stages += 1
        call.trip += 1
        time = self.world.transmit(source, tokens - call.copied, self.world.now)
        call.copied = tokens
        self.world.push(time, self.copied, call, source, call.trip)

    def copied(self, call: Call, source: Replica, trip: int) -> None:
        """A stage is over: another one if much was added meanwhile, else the last."""
        if source.moving is not call or call.trip != trip:
            return
        if (
            call.target < 0  # finished or preempted meanwhile
            or self.world.replicas[call.target].state != State.READY
        ):
            source.moving, call.target = None, -1
            return
        more = source.cached(call) - call.copied
        if more > source.engine.block_size and call.stages < MOST_STAGES:
            self.copy(call, source)
            return
        call.leaving = True
        if source.due_tick == NEVER:
            self.depart(call, source, self.world.now)

    def depart(self, call: Call, source: Replica, now: float) -> None:
        """Leave the batch; what is not copied yet is, and then the request goes on elsewhere."""
        target = call.target
        source.quit(call)
        self.world.send(call, source, now, call.cached - call.copied, target)

    # --- changes of state -------------------------------------------------------------------------

    def settle(self, replica: Replica) -> None:
        """A draining replica without requests is switched off."""
        if replica.state == State.DRAINING and not replica.outstanding:
            replica.state = State.OFF
            self.world.record.on_time[replica.index] += self.world.now - replica.on_since
            replica.on_since = math.nan

    def change(self, replica: Replica, state: State) -> None:
        """A planned change, or the end of a start."""
        if state == State.DRAINING and replica.state == State.READY:
            replica.state = State.DRAINING
            self.settle(replica)
        elif state == State.READY and replica.state != State.READY:
            if math.isnan(replica.on_since):
                replica.on_since = self.world.now
            replica.state = State.READY
            self.world.unstrand()
        elif state == State.FAILED and replica.state in (State.READY, State.DRAINING):
            self.fail(replica)

    def fail(self, replica: Replica) -> None:
        """All caches are lost; the requests are computed again elsewhere."""
        calls = [*replica.running, *replica.landed]
        calls += [call for queue in replica.waiting for call in queue]
        calls += [*replica.sending]
        for call in calls:
            if call.state == "decode":
                call.generated = replica.generated(call)
                if call not in replica.late:
                    call.last = replica.sync
            call.cached = call.blocks = 0
            call.shares.clear()
            call.swapped = call.leaving = False
            call.target, call.home, call.state = -1, -1, "waiting"
            call.trip += 1
        replica.sending.clear()
        replica.link_free = self.world.now
        replica.clear()
        replica.outstanding = replica.prompts = 0
        replica.moving, replica.state = None, State.FAILED
        self.world.record.counts["retries"] += len(calls)
        for call in calls:
            self.world.dispatch(call)

    def scale(self) -> None:
        """Start a replica where requests pile up, drain one where they do not."""
        rule, world = self.cluster.scaler, self.world
        assert rule is not None
        groups = sorted({(r.spec.pool, int(r.spec.role)) for r in world.replicas})
        for pool, role in groups:
            group = [r for r in world.replicas if (r.spec.pool, r.spec.role) == (pool, role)]
            ready = [r for r in group if r.state == State.READY]
            coming = sum(r.state == State.STARTING for r in group)
            waiting = sum(
                world.pools[call.index] == pool
                and role != (Role.PREFILL if cached else Role.DECODE)
                for call, cached in world.stranded
            )
            load = (sum(r.outstanding for r in ready) + waiting) / max(1, len(ready) + coming)
            spare = next((r for r in group if r.state == State.OFF), None)
            few = len(ready) + coming < max(rule.least, waiting > 0)
            if (few or load > rule.high) and spare is not None:
                spare.state, spare.on_since = State.STARTING, world.now
                world.record.counts["scaled_up"] += 1
                world.push(world.now + rule.start_time, self.change, spare, State.READY)
            elif load < rule.low and len(ready) > rule.least:
                ready[-1].state = State.DRAINING
                world.record.counts["scaled_down"] += 1
                self.settle(ready[-1])
