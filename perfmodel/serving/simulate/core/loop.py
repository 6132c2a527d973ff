"""The loop over events, as `perfmodel.serving.simulate.twin.cluster`."""

# pyright: basic

from __future__ import annotations

from perfmodel.serving.simulate.core.blocks import release
from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.events import pop, push
from perfmodel.serving.simulate.core.finish import complete, done, forget, release_task, stage
from perfmodel.serving.simulate.core.memory import calls_at, events_at, ints, reals, replicas_at
from perfmodel.serving.simulate.core.moves import change, copied, goes_on, rebalance, repeat, scale
from perfmodel.serving.simulate.core.numbers import tick
from perfmodel.serving.simulate.core.routes import arrive, dispatch
from perfmodel.serving.simulate.core.state import (
    CHANGE,
    COPIED,
    DONE,
    DRAINING,
    NEVER,
    NO_ROOM,
    NO_SLOT,
    READY,
    REBALANCE,
    SCALE,
    SENT,
    STAGE,
    UP,
)
from perfmodel.serving.simulate.core.step import schedule
from perfmodel.serving.simulate.core.stretch import catch_up, cut, mark

_ENDS, _ARRIVALS, _EVENTS = 0, 1, 2  # phases of a tick: where to go on


@jit
def ready(world, request):
    """A request comes: its host stages, then a replica."""
    calls = calls_at(world.p_calls)
    slot = world.vacant
    if slot >= 0:
        world.vacant = calls[slot].next
    else:
        slot = world.fresh
        world.fresh += 1
    call = calls[slot]
    call.request = request
    call.prompt, call.output = ints(world.p_prompt)[request], ints(world.p_output)[request]
    call.hidden = ints(world.p_hidden)[request] if world.p_hidden else 0
    call.level = ints(world.p_level)[request] if world.p_level else 0
    call.tenant = ints(world.p_tenant)[request] if world.p_tenant else 0
    call.adapter = ints(world.p_adapter)[request] if world.p_adapter else -1
    call.pool = ints(world.p_pool)[request] if world.p_pool else 0
    call.session = ints(world.p_session)[request] if world.p_session else 0
    call.whole = 0
    if world.p_starts:
        starts = ints(world.p_starts)
        call.content = starts[request]
        there = starts[request + 1] - call.content
        call.whole = min(there, (call.prompt + call.output) // world.hash_block)
    call.generated = call.blocks = call.shares = call.swapped = call.leaving = 0
    call.lost = call.hits = call.cached = call.trip = 0
    call.target = -1
    call.arrival, call.start = world.now, -1.0
    if world.before:
        stage(world, call, slot, 0)
    else:
        dispatch(world, call, slot)


@jit
def sent(world, call, slot, replica, trip):
    """A cache has been copied to where its request will decode."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    if call.trip != trip:  # the replica failed meanwhile
        return
    if call.before >= 0:
        calls[call.before].after = call.after
    else:
        replica.sending = call.after
    if call.after >= 0:
        calls[call.after].before = call.before
    catch_up(world, replica)
    release(world, replica, call)
    forget(world, replica, call)
    if m[world.at_due + replica.index] == NEVER:
        mark(world, replica)
    else:  # the next step finds more blocks free
        cut(world, replica)
    target, call.target = call.target, -1
    if target < 0:
        world.transfers += 1
    else:
        world.migrations += 1
    arrive(world, call, slot, target)


@jit
def pass_on(world, slot, place):
    """A host stage is over."""
    calls = calls_at(world.p_calls)
    call = calls[slot]
    if place == world.before:
        dispatch(world, call, slot)
    elif place == world.before + world.after:
        done(world, call, slot)
    else:
        stage(world, call, slot, place)


@jit
def handle(world):
    """The first event of the heap."""
    calls = calls_at(world.p_calls)
    replicas = replicas_at(world.p_replicas)
    event = pop(world)
    world.now = event.time
    kind, who, where, trip = event.kind, event.who, event.where, event.trip
    if kind == READY:
        ready(world, who)
    elif kind == STAGE:
        pass_on(world, who, where)
    elif kind == SENT:
        sent(world, calls[who], who, replicas[where], trip)
    elif kind == COPIED:
        copied(world, replicas[where], trip)
    elif kind == CHANGE:
        change(world, replicas[where], trip)
    else:
        world.idle_looks -= kind == REBALANCE
        if kind == REBALANCE:
            rebalance(world)
        else:
            scale(world)
        if goes_on(world):
            repeat(world, world.interval if kind == REBALANCE else world.scale_interval, kind)


@jit
def begin(worlds, times, places, states):
    """Events that are known before the run: changes, looks, the first tasks of a closed loop."""
    world = worlds[0]
    for at in range(len(times)):
        push(world, times[at], CHANGE, 0, places[at], states[at])
    if world.migrates:
        repeat(world, world.interval, REBALANCE)
    if world.scales:
        repeat(world, world.scale_interval, SCALE)
    while world.released < min(world.users, world.tasks):
        if world.p_left:
            release_task(world, world.released, 0.0)
        else:
            push(world, 0.0, READY, world.released, 0, 0)
        world.released += 1


@jit
def next_by_clock(world):
    """The next request that comes by the clock."""
    return ints(world.p_queue)[world.at] if world.p_queue else world.at


@jit
def next_moment(world):
    """Tick of whatever comes first."""
    events = events_at(world.p_events)
    m = ints(world.p_m)
    moment = NEVER
    for index in range(world.replicas):
        moment = min(moment, m[world.at_due + index])
    if world.at < world.queued:
        moment = min(moment, tick(reals(world.p_arrival)[next_by_clock(world)]))
    if world.events:
        moment = min(moment, events[0].tick)
    return moment


@jit
def serve(worlds):
    """Go on until all is served, nothing more can happen, or an array is full."""
    world = worlds[0]
    replicas, events, m = replicas_at(world.p_replicas), events_at(world.p_events), ints(world.p_m)
    arrivals = reals(world.p_arrival)
    while world.phase != _ENDS or world.unfinished:
        if world.phase == _ENDS:
            if world.events + world.slots + 2 * world.replicas + world.reserve >= world.room:
                return NO_ROOM
            world.moment = next_moment(world)
            if world.moment == NEVER:
                return DONE
            for index in range(world.replicas):
                if m[world.at_due + index] == world.moment:
                    replica = replicas[index]
                    complete(world, replica)
                    mark(world, replica)
            world.phase = _ARRIVALS
        if world.phase == _ARRIVALS:
            while world.at < world.queued:
                request = next_by_clock(world)
                if tick(arrivals[request]) > world.moment:
                    break
                if world.vacant < 0 and world.fresh == world.slots:
                    return NO_SLOT
                world.at += 1
                world.now = arrivals[request]
                ready(world, request)
            world.phase = _EVENTS
        while world.events and events[0].tick <= world.moment:
            full = world.vacant < 0 and world.fresh == world.slots
            if full and events[0].kind == READY:
                return NO_SLOT
            handle(world)
        for place in range(world.dirty):
            replica = replicas[m[world.at_dirty + place]]
            replica.dirty = 0
            if m[world.at_due + replica.index] == NEVER and replica.state in (UP, DRAINING):
                now = replica.boundary if replica.ended == world.moment else world.now
                schedule(world, replica, now)
        world.dirty, world.phase = 0, _ENDS
    return DONE
