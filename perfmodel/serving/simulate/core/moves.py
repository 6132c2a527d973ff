"""Migration, scaling, failures and drains, as `perfmodel.serving.simulate.twin.moves`."""

# pyright: basic

from __future__ import annotations

import math

from perfmodel.serving.simulate.core.batch import cached
from perfmodel.serving.simulate.core.blocks import lose_all
from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.events import push
from perfmodel.serving.simulate.core.finish import depart, settle, transmit
from perfmodel.serving.simulate.core.lists import lowest
from perfmodel.serving.simulate.core.memory import calls_at, ints, reals, replicas_at
from perfmodel.serving.simulate.core.numbers import blocks_of
from perfmodel.serving.simulate.core.routes import arrive, dispatch
from perfmodel.serving.simulate.core.state import (
    CHANGE,
    COPIED,
    DECODE,
    DECODES,
    DRAINING,
    FAILED,
    NEVER,
    OFF,
    PREFILL,
    REBALANCE,
    STARTING,
    UP,
    WAITING,
)
from perfmodel.serving.simulate.core.stretch import catch_up, cut, mark
from perfmodel.serving.simulate.fleet import MOST_STAGES


@jit
def repeat(world, interval, kind):
    """Look again after ``interval``."""
    world.idle_looks += kind == REBALANCE  # a scaler may start what stranded requests wait for
    push(world, world.now + interval, kind, 0, 0, 0)


@jit
def goes_on(world):
    """Whether anything else than looks can happen."""
    replicas = replicas_at(world.p_replicas)
    if world.events > world.idle_looks or world.at < world.queued:
        return True
    outstanding = 0
    for index in range(world.replicas):
        outstanding += replicas[index].outstanding
    return outstanding > 0


# --- migration ------------------------------------------------------------------------------------


@jit
def freeness(world, replica):
    """Llumnix, section 4.4.1: free space less what the first in line wants, per request."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    if replica.state == DRAINING:
        return -math.inf
    wanted = 0
    if replica.landed >= 0:
        wanted = blocks_of(calls[replica.landed].cached, replica.block_size)
    elif replica.queued:
        call = calls[m[replica.at_heads + lowest(world, replica)]]
        wanted = blocks_of(call.prompt + call.generated, replica.block_size)
    return (replica.free - wanted) / max(1, replica.running)


@jit
def next_in(world, pool, sign):
    """The fullest (emptiest) replica of a pool that has not been picked; -1 without."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    x = reals(world.p_x)
    best = -1
    for index in range(world.replicas):
        replica = replicas[index]
        if (
            replica.pool != pool
            or replica.role == PREFILL
            or m[world.at_picked + 2 * index + (sign < 0)]
        ):
            continue
        free = x[world.at_freeness + index]
        if sign > 0:
            fits = replica.state in (UP, DRAINING) and free < world.low
        else:
            fits = replica.state == UP and free > world.high
        if fits and (best < 0 or sign * free < sign * x[world.at_freeness + best]):
            best = index
    if best >= 0:
        m[world.at_picked + 2 * best + (sign < 0)] = 1
    return best


@jit
def rebalance(world):
    """Pair the fullest replicas of each pool with the emptiest."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    x = reals(world.p_x)
    for index in range(world.replicas):
        replica = replicas[index]
        m[world.at_picked + 2 * index] = m[world.at_picked + 2 * index + 1] = 0
        catch_up(world, replica)
    for pool in range(world.pools):
        for index in range(world.replicas):
            x[world.at_freeness + index] = freeness(world, replicas[index])
        while True:
            source = next_in(world, pool, 1)
            target = next_in(world, pool, -1)
            if source < 0 or target < 0:
                break
            if source != target and replicas[source].moving < 0:
                begin(world, replicas[source], replicas[target])


@jit
def begin(world, source, target):
    """Start to copy the cache of the request that is easiest to move."""
    calls = calls_at(world.p_calls)
    best, slot = -1, source.head
    while slot >= 0:
        call = calls[slot]
        if call.state == DECODE:
            if best < 0:
                best = slot
            else:
                other = calls[best]
                a, b = cached(source, call), cached(source, other)
                if call.level > other.level or (
                    call.level == other.level
                    and (a < b or (a == b and call.request < other.request))
                ):
                    best = slot
        slot = call.after
    if best < 0:
        return
    call = calls[best]
    if (
        blocks_of(cached(source, call), target.block_size) > target.free
        or target.running >= target.max_num_seqs
    ):
        return
    call.target, call.stages, call.copied = target.index, 0, 0
    source.moving, source.moving_gone = best, 0
    copy(world, source, call)


@jit
def copy(world, source, call):
    """One more stage: copy what the cache holds by now."""
    tokens = cached(source, call)
    world.trips += 1
    call.stages += 1
    source.moving_trip = world.trips
    time = transmit(world, source, tokens - call.copied, world.now)
    call.copied = tokens
    push(world, time, COPIED, 0, source.index, source.moving_trip)


@jit
def copied(world, source, trip):
    """A stage is over: another one if much was added meanwhile, else the last."""
    calls = calls_at(world.p_calls)
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    if source.moving < 0 or source.moving_trip != trip:
        return
    slot = source.moving
    call = calls[slot]
    if source.moving_gone or replicas[call.target].state != UP:
        source.moving = -1
        if not source.moving_gone:
            call.target = -1
        return
    catch_up(world, source)
    more = cached(source, call) - call.copied
    if more > source.block_size and call.stages < MOST_STAGES:
        copy(world, source, call)
        return
    call.leaving = 1
    if m[world.at_due + source.index] == NEVER:
        depart(world, source, call, slot, world.now)
        mark(world, source)
    else:
        cut(world, source)


# --- changes of state -----------------------------------------------------------------------------


@jit
def change(world, replica, state):
    """A planned change, or the end of a start."""
    if state == DRAINING and replica.state == UP:
        replica.state = DRAINING
        settle(world, replica)
    elif state == UP and replica.state != UP:
        if math.isnan(replica.on_since):
            replica.on_since = world.now
        replica.state = UP
        mark(world, replica)
        unstrand(world)
    elif state == FAILED and replica.state in (UP, DRAINING):
        catch_up(world, replica)
        fail(world, replica)


@jit
def unstrand(world):
    """A replica is ready: offer it what waited for one."""
    calls = calls_at(world.p_calls)
    slot = world.stranded
    world.stranded = -1
    while slot >= 0:
        call = calls[slot]
        following = call.next
        if call.landing:
            arrive(world, call, slot, -1)
        else:
            dispatch(world, call, slot)
        slot = following


@jit
def lose(world, replica, call):
    """A request loses its cache."""
    if call.state == DECODE:
        call.generated = call.offset + replica.steps
        if call.joined != replica.steps:
            call.last = replica.sync
    call.cached = call.blocks = call.shares = 0
    call.swapped = call.leaving = 0
    call.target, call.home, call.state = -1, -1, WAITING
    world.trips += 1
    call.trip, call.copied = world.trips, -1
    world.retries += 1


@jit
def chain(calls, slot, first, last):
    """Append to the chain of lost requests, by their field ``copied``; its new ends."""
    if last >= 0:
        calls[last].copied = slot
        return first, slot
    return slot, slot


@jit
def fail(world, replica):
    """All caches are lost; the requests are computed again elsewhere."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    first = last = -1
    slot = replica.head
    while slot >= 0:
        lose(world, replica, calls[slot])
        first, last = chain(calls, slot, first, last)
        slot = calls[slot].after
    slot = replica.landed
    while slot >= 0:
        lose(world, replica, calls[slot])
        first, last = chain(calls, slot, first, last)
        slot = calls[slot].next
    for level in range(world.levels):
        slot = m[replica.at_heads + level]
        while slot >= 0:
            lose(world, replica, calls[slot])
            first, last = chain(calls, slot, first, last)
            slot = calls[slot].next
        m[replica.at_heads + level] = -1
    slot = replica.sending
    while slot >= 0 and calls[slot].after >= 0:
        slot = calls[slot].after
    while slot >= 0:  # the first sent comes first
        lose(world, replica, calls[slot])
        first, last = chain(calls, slot, first, last)
        slot = calls[slot].before
    empty(world, replica)
    replica.link_free = world.now
    while first >= 0:
        call = calls[first]
        following = call.copied
        dispatch(world, call, first)
        first = following


@jit
def empty(world, replica):
    """Nothing waits, runs or is in the cache of a replica that fails."""
    m = ints(replica.p_m)
    lose_all(replica)
    replica.head = replica.tail = replica.landed = replica.sending = replica.partial = -1
    replica.queued = replica.running = replica.decoding = replica.total = replica.heap = 0
    replica.late = replica.started = replica.owned = replica.promised = 0
    replica.outstanding = replica.prompts = 0
    replica.sync, replica.moving, replica.state = -1.0, -1, FAILED
    for at in range(replica.block_size):
        m[replica.at_phases + at] = 0
    for at in range(world.tenants):
        m[replica.at_tenants + at] = 0
    for at in range(2 * replica.pieces):
        m[replica.at_pieces + at] = 0
    m[world.at_due + replica.index] = NEVER


@jit
def scale(world):
    """Start a replica where requests pile up, drain one where they do not."""
    calls = calls_at(world.p_calls)
    replicas = replicas_at(world.p_replicas)
    for pool in range(world.pools):
        for role in range(3):
            outstanding = ready = coming = 0
            spare = newest = -1
            for index in range(world.replicas):
                replica = replicas[index]
                if replica.pool != pool or replica.role != role:
                    continue
                if replica.state == UP:
                    outstanding += replica.outstanding
                    ready += 1
                    newest = index
                elif replica.state == STARTING:
                    coming += 1
                elif replica.state == OFF and spare < 0:
                    spare = index
            slot, waiting = world.stranded, 0
            while slot >= 0:
                call = calls[slot]
                other = PREFILL if call.landing else DECODES
                waiting += call.pool == pool and role != other
                slot = call.next
            load = (outstanding + waiting) / max(1, ready + coming)
            few = ready + coming < max(world.least, int(waiting > 0))
            if (few or load > world.scale_high) and spare >= 0:
                replicas[spare].state, replicas[spare].on_since = STARTING, world.now
                world.scaled_up += 1
                push(world, world.now + world.start_time, CHANGE, 0, spare, UP)
            elif load < world.scale_low and ready > world.least:
                replicas[newest].state = DRAINING
                world.scaled_down += 1
                settle(world, replicas[newest])
