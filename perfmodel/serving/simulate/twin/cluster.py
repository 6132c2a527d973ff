"""The loop over events: arrivals, host stages, dispatch, moves of caches, ends of requests."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.fleet import Cluster, HostStage, Role, State
from perfmodel.serving.simulate.record import METRICS, Record, Slo, bin_of
from perfmodel.serving.simulate.twin.clock import Clock
from perfmodel.serving.simulate.twin.moves import Moves
from perfmodel.serving.simulate.twin.replica import Replica
from perfmodel.serving.simulate.twin.request import NEVER, Call, tick
from perfmodel.serving.simulate.twin.routes import Router
from perfmodel.serving.simulate.twin.tally import Tally

Handler = Callable[..., None]
TPOT = METRICS.index("tpot")
Station = tuple[HostStage, list[float]]  # and when each server is free


def run(
    cluster: Cluster, requests: Requests, users: int, slos: tuple[Slo, ...], record: Record
) -> None:
    """Serve all requests and fill ``record``; ``users`` > 0 closes the loop.

    In a closed loop so many tasks are under way at once, the next begins when one is done. Requests
    that nobody serves (all replicas of their pool have failed) keep nan as their times.
    """
    World(cluster, requests, users, slos, record).serve()


class World:
    """The cluster and its requests as they are at ``now``."""

    def __init__(
        self, cluster: Cluster, requests: Requests, users: int, slos: tuple[Slo, ...],
        record: Record,
    ) -> None:  # fmt: skip
        self.cluster, self.slos, self.users = cluster, slos, users
        self.record, self.kept = Tally(record), record
        self.requests, self.count = requests, len(requests)
        self.now, self.unfinished, self.order = 0.0, self.count, 0
        self.events: list[tuple[int, int, float, Handler, tuple[Any, ...]]] = []
        columns = (requests.priority, requests.tenant, requests.adapter, requests.pool)
        zeros = np.zeros(self.count, np.int64)
        priority, tenant, adapter, pool = (zeros if c is None else c for c in columns)
        names, levels = np.unique(priority, return_inverse=True)
        self.levels: list[int] = levels.tolist()
        self.tenants: list[int] = tenant.tolist()
        self.adapters: list[int] = (adapter if requests.adapter is not None else zeros - 1).tolist()
        self.pools: list[int] = pool.tolist()
        self.prompts: list[int] = requests.prompt.tolist()
        self.outputs: list[int] = requests.output.tolist()
        self.hidden: list[int] = (zeros if requests.hidden is None else requests.hidden).tolist()
        clocks = [Clock(surface) for surface in cluster.surfaces]
        self.replicas = [
            Replica(i, spec, clocks[spec.surface], len(names), requests.hash_block, self)
            for i, spec in enumerate(cluster.replicas)
        ]
        sessions = None if requests.session is None else requests.session.tolist()
        self.router = Router(cluster.routing, cluster.seed, 1, sessions)
        self.decode_router = Router(cluster.decode_routing, cluster.seed, 2, sessions)
        self.stranded: list[tuple[Call, bool]] = []  # nobody is ready for them; with a cache or not
        stations = [(stage, [0.0] * stage.servers) for stage in cluster.stages]
        self.before = [each for each in stations if not each[0].after]
        self.after = [each for each in stations if each[0].after]
        self.times = {
            name: [math.nan] * self.count
            for name in ("arrival", "start", "first", "visible", "last", "finish")
        }
        self.hits, self.homes = [0] * self.count, [-1] * self.count
        self.moves = Moves(self)
        self.prepare_arrivals()

    def prepare_arrivals(self) -> None:
        """What follows what, which requests come by the clock, and which tasks are released."""
        count, requests = self.count, self.requests
        self.followers = defaultdict[int, list[int]](list)
        self.missing = [0] * count  # requests that one still waits for
        if requests.after is not None:
            start, ids = requests.after[0].tolist(), requests.after[1].tolist()
            for index in range(count):
                before = ids[start[index] : start[index + 1]]
                self.missing[index] = len(before)
                for other in before:
                    self.followers[other].append(index)
        self.delays: list[float] = [0.0] * count if requests.delay is None else \
            requests.delay.tolist()  # fmt: skip
        self.tasks: list[int] = list(range(count)) if requests.task is None else \
            requests.task.tolist()  # fmt: skip
        roots = [index for index in range(count) if not self.missing[index]]
        self.left = defaultdict[int, int](int)  # unfinished requests of each task
        self.roots = defaultdict[int, list[int]](list)
        for task in self.tasks:
            self.left[task] += 1
        for index in roots:
            self.roots[self.tasks[index]].append(index)
        self.queue: list[int] = []  # roots that come by the clock, and the place in that list
        self.at = 0
        self.unreleased: list[int] = []
        if self.users:
            tasks = list(self.left)
            self.unreleased = tasks[self.users :][::-1]
            for task in tasks[: self.users]:
                self.release(task, 0.0)
        else:
            self.queue = roots

    # --- the loop ---------------------------------------------------------------------------------

    def serve(self) -> None:
        """Go on until all is served or nothing more can happen."""
        arrivals: list[float] = self.requests.arrival.tolist()
        queue, events, replicas = self.queue, self.events, self.replicas
        coming = [*(tick(arrivals[index]) for index in queue), NEVER]
        able = (State.READY, State.DRAINING)
        while self.unfinished:
            moment = min([replica.due_tick for replica in replicas])
            moment = min(moment, coming[self.at], events[0][0] if events else NEVER)
            if moment == NEVER:
                break
            for replica in replicas:
                if replica.due_tick == moment:
                    self.now = replica.end
                    replica.complete()
                    replica.boundary, replica.boundary_tick = self.now, moment
            while coming[self.at] <= moment:
                index = queue[self.at]
                self.at += 1
                self.now = arrivals[index]
                self.ready(index)
            while events and events[0][0] <= moment:
                _, _, self.now, handler, payload = heapq.heappop(events)
                handler(*payload)
            for replica in replicas:
                if replica.due_tick == NEVER and replica.state in able:
                    ended = replica.boundary_tick == moment
                    replica.schedule(replica.boundary if ended else self.now)
        self.leave_behind()

    def push(self, time: float, handler: Handler, *payload: Any) -> None:
        """Let ``handler`` be called at ``time``."""
        self.order += 1
        heapq.heappush(self.events, (tick(time), self.order, time, handler, payload))

    def release(self, task: int, now: float) -> None:
        """Let a task's first requests come."""
        for index in self.roots[task]:
            self.push(now, self.ready, index)

    # --- a request's way in -----------------------------------------------------------------------

    def ready(self, index: int) -> None:
        """A request comes: its host stages, then a replica."""
        self.times["arrival"][index] = self.now
        content: list[int] = []
        if self.requests.hash_ids is not None:
            start, ids = self.requests.hash_ids
            whole = (self.prompts[index] + self.outputs[index]) // self.requests.hash_block
            content = ids[start[index] : start[index + 1]][:whole].tolist()
        call = Call(
            index, self.prompts[index], self.outputs[index], self.hidden[index],
            self.levels[index], self.tenants[index], self.adapters[index], content,
        )  # fmt: skip
        self.stage(call, self.before, 0, self.dispatch)

    def stage(self, call: Call, stages: list[Station], place: int, then: Handler) -> None:
        """Pass through the host stages from ``place`` on."""
        if place == len(stages):
            then(call)
            return
        stage, servers = stages[place]
        server = min(range(stage.servers), key=servers.__getitem__)
        begin = max(self.now, servers[server])
        servers[server] = begin + (stage.base + stage.per_token * call.prompt)
        self.push(servers[server], self.stage, call, stages, place + 1, then)

    def dispatch(self, call: Call) -> None:
        """Give a request without a cache to a replica."""
        pool = self.pools[call.index]
        ready = [
            r
            for r in self.replicas
            if r.state == State.READY and r.spec.pool == pool and r.spec.role != Role.DECODE
        ]
        if not ready:
            self.stranded.append((call, False))
            return
        replica = self.router.choose(call, pool, ready)
        self.entrust(call, replica)
        call.state = "waiting"
        replica.waiting[call.level].append(call)

    def land(self, call: Call, target: int = -1) -> None:
        """Give a request with its cache to a replica, the target if that is ready."""
        pool = self.pools[call.index]
        ready = [
            r
            for r in self.replicas
            if r.state == State.READY and r.spec.pool == pool and r.spec.role != Role.PREFILL
        ]
        if not ready:
            self.stranded.append((call, True))
            return
        aimed = [r for r in ready if r.index == target]
        replica = aimed[0] if aimed else self.decode_router.choose(call, pool, ready)
        self.entrust(call, replica)
        call.state = "landed"
        replica.landed.append(call)

    def entrust(self, call: Call, replica: Replica) -> None:
        """A replica has one more request."""
        call.home = replica.index
        replica.outstanding += 1
        replica.prompts += call.prompt

    def forget(self, call: Call, replica: Replica) -> None:
        """A replica is done with a request."""
        call.home = -1
        replica.outstanding -= 1
        replica.prompts -= call.prompt
        self.moves.settle(replica)

    def unstrand(self) -> None:
        """A replica is ready: offer it what waited for one."""
        waiting, self.stranded = self.stranded, []
        for call, cached in waiting:
            (self.land if cached else self.dispatch)(call)

    # --- what replicas tell -----------------------------------------------------------------------

    def started(self, call: Call, now: float) -> None:
        """A prompt is begun, for the first time or again."""
        self.record.counts["hit_tokens"] += call.base
        if math.isnan(self.times["start"][call.index]):
            self.times["start"][call.index] = max(now, self.times["arrival"][call.index])
            self.hits[call.index] = call.base

    def prompted(self, call: Call, now: float) -> None:
        """The first token is there."""
        self.times["first"][call.index] = now

    def showed(self, call: Call, now: float) -> None:
        """The first token that the user sees is there."""
        self.times["visible"][call.index] = now

    def send(self, call: Call, replica: Replica, now: float, tokens: int, target: int = -1) -> None:
        """Copy the last ``tokens`` of a cache to where its request will decode."""
        call.state, call.trip = "moving", call.trip + 1
        replica.sending[call] = None
        time = self.transmit(replica, tokens, now)
        self.push(time, self.sent, call, replica, call.trip, target)

    def transmit(self, replica: Replica, tokens: int, now: float) -> float:
        """When a copy that is the next to leave a replica is over."""
        link = self.cluster.link
        begin = max(now, replica.link_free)
        replica.link_free = begin + (link.latency + link.per_token * tokens)
        return replica.link_free

    def sent(self, call: Call, replica: Replica, trip: int, target: int) -> None:
        """A cache has been copied to where its request will decode."""
        if call.trip != trip:  # the replica failed meanwhile
            return
        del replica.sending[call]
        replica.cache.release(call)
        self.forget(call, replica)
        self.record.counts["transfers" if target < 0 else "migrations"] += 1
        self.land(call, target)

    def depart(self, call: Call, replica: Replica, now: float) -> None:
        """A request that migrates leaves the batch."""
        self.moves.depart(call, replica, now)

    def finished(self, call: Call, replica: Replica, now: float) -> None:
        """The last token is there; host stages may follow."""
        self.homes[call.index] = replica.index
        self.times["last"][call.index] = now
        self.forget(call, replica)
        self.stage(call, self.after, 0, self.done)

    def done(self, call: Call) -> None:
        """A request is over: note it, and begin what waited for it."""
        index, now = call.index, self.now
        self.times["finish"][index] = now
        self.unfinished -= 1
        self.record.makespan = max(self.record.makespan, now)
        self.observe(call)
        for other in self.followers.pop(index, ()):
            self.missing[other] -= 1
            if not self.missing[other]:
                self.push(now + self.delays[other], self.ready, other)
        task = self.tasks[index]
        self.left[task] -= 1
        if not self.left[task] and self.unreleased:
            self.release(self.unreleased.pop(), now)

    # --- results ----------------------------------------------------------------------------------

    def observe(self, call: Call) -> None:
        """Record a finished request."""
        index, record, slo = call.index, self.record, self.slos[call.tenant]
        arrival, start, first, visible, last, finish = [
            column[index] for column in self.times.values()
        ]
        several = call.output > 1
        tpot = (last - first) / (call.output - 1) if several else 0.0
        found = (first - arrival, tpot, finish - arrival, start - arrival, visible - arrival)
        histogram, sums = record.histogram[call.tenant], record.sums[call.tenant]
        for row, value in enumerate(found):
            if several or row != TPOT:
                histogram[row][bin_of(value)] += 1
                sums[row] += value
        record.finished[call.tenant] += 1
        record.several[call.tenant] += several
        record.good[call.tenant] += (
            found[0] <= slo.ttft and tpot <= slo.tpot and found[2] <= slo.e2el
            and found[4] <= slo.visible
        )  # fmt: skip

    def leave_behind(self) -> None:
        """Close the books."""
        record = self.record
        for replica in self.replicas:
            if not math.isnan(replica.on_since):
                record.on_time[replica.index] += record.makespan - replica.on_since
            record.counts["evicted_blocks"] += replica.cache.evicted
            record.counts["adapter_loads"] += replica.adapters.loads
        record.write(self.kept)
        if len(self.kept.arrival):
            for name, column in self.times.items():
                getattr(self.kept, name)[:] = column
            self.kept.hits[:], self.kept.replica[:] = self.hits, self.homes
