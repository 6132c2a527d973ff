"""Ending a step: tokens for decodes and for whole prompts; what follows a request's end."""

# pyright: basic

from __future__ import annotations

import math

from perfmodel.serving.simulate.core.batch import cross, join, leave, quit_batch
from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.events import push
from perfmodel.serving.simulate.core.lists import push_due, remove_due
from perfmodel.serving.simulate.core.memory import calls_at, ints, reals
from perfmodel.serving.simulate.core.numbers import bin_at, draw
from perfmodel.serving.simulate.core.state import (
    DECODE,
    DRAINING,
    FINISH,
    MOVING,
    NEVER,
    OFF,
    PREFILL,
    READY,
    SENT,
    SHOW,
    STAGE,
)
from perfmodel.serving.simulate.core.stretch import commit
from perfmodel.serving.simulate.record import BINS, ITL


@jit
def complete(world, replica):
    """End the step or stretch under way: tokens for decodes and for prompts that are complete."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    now = replica.end
    world.now = now
    m[world.at_due + replica.index] = NEVER
    replica.boundary, replica.ended = now, world.moment
    commit(world, replica, replica.pending)
    replica.stamp += 1  # from here on the blocks follow from the steps
    replica.grew = 0
    if replica.decodes:
        if replica.speculates:
            accept(world, replica, now)
        until = (replica.steps + 1) << replica.shift
        while replica.heap and m[replica.at_heap] < until:
            value = m[replica.at_heap + 1]
            remove_due(replica, 0)
            slot = value >> 2
            call = calls[slot]
            if value & 3 == FINISH:
                finish(world, replica, call, slot, now)
            elif value & 3 == SHOW:
                call.visible = now
            else:
                cross(replica, call, slot)
    for at in range(replica.chunks):
        slot = m[replica.at_chunks + 2 * at]
        call = calls[slot]
        call.cached += m[replica.at_chunks + 2 * at + 1]
        if call.cached < call.goal:
            replica.partial = slot
        else:
            if replica.partial == slot:
                replica.partial = -1
            end_prompt(world, replica, call, slot, now)
    slot = replica.moving
    if slot >= 0 and not replica.moving_gone and calls[slot].leaving:
        depart(world, replica, calls[slot], slot, now)


@jit
def accept(world, replica, now):
    """Give each decode its accepted draft tokens beside the one of the step."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    slot = replica.head
    while slot >= 0:
        call = calls[slot]
        if call.state == DECODE:
            before = call.offset + replica.steps - 1
            number, accepted = draw(replica.seed, call.request, before), 0
            chance = replica.acceptance
            while accepted < call.draft and number < chance:
                accepted += 1
                chance *= replica.acceptance
            call.offset += accepted
            replica.total += accepted
            world.proposed += call.draft
            world.accepted += accepted
            replica.decode_tokens += accepted
            m[world.at_histogram + call.tenant * world.histogram + ITL * BINS] += accepted
            after = call.offset + replica.steps
            if before <= call.hidden < after:
                call.visible = now
            if after == call.output:
                push_due(replica, call, slot, replica.steps, FINISH, 1)
        slot = call.after


@jit
def end_prompt(world, replica, call, slot, now):
    """A prompt is complete, which gives a token: the first one, or one after a preemption."""
    m = ints(replica.p_m)
    if call.generated:
        row = world.at_histogram + call.tenant * world.histogram + ITL * BINS
        m[row + bin_at(now - call.last)] += 1
    else:
        call.first = now
    call.generated += 1
    call.last = now
    if call.generated == call.hidden + 1:
        call.visible = now
    if call.generated == call.output:
        finish(world, replica, call, slot, now)
    elif replica.role == PREFILL:
        quit_batch(replica, call, slot, 0)
        send(world, replica, call, slot, now, call.cached, -1)
    else:
        join(replica, call, slot)


@jit
def finish(world, replica, call, slot, now):
    """The last token is there; host stages may follow."""
    leave(world, replica, call, slot, 1)
    call.last, call.home = now, replica.index
    forget(world, replica, call)
    if world.after:
        stage(world, call, slot, world.before)
    else:
        done(world, call, slot)


@jit
def forget(world, replica, call):
    """A replica is done with a request."""
    replica.outstanding -= 1
    replica.prompts -= call.prompt
    settle(world, replica)


@jit
def settle(world, replica):
    """A draining replica without requests is switched off."""
    if replica.state == DRAINING and not replica.outstanding:
        replica.state = OFF
        replica.on_time += world.now - replica.on_since
        replica.on_since = math.nan


@jit
def stage(world, call, slot, place):
    """Pass through a host stage."""
    m = ints(world.p_m)
    x = reals(world.p_x)
    base = world.at_stages + 2 * place
    first, servers = m[world.at_servers + 2 * place], m[world.at_servers + 2 * place + 1]
    best = first
    for server in range(first + 1, first + servers):
        if x[server] < x[best]:
            best = server
    begin = max(world.now, x[best])
    x[best] = begin + (x[base] + x[base + 1] * call.prompt)
    push(world, x[best], STAGE, slot, place + 1, 0)


@jit
def transmit(world, replica, tokens, now):
    """When a copy that is the next to leave a replica is over."""
    begin = max(now, replica.link_free)
    replica.link_free = begin + (world.latency + world.per_token * tokens)
    return replica.link_free


@jit
def send(world, replica, call, slot, now, tokens, target):
    """Copy the last ``tokens`` of a cache to where its request will decode."""
    calls = calls_at(replica.p_calls)
    world.trips += 1
    call.state, call.trip, call.target = MOVING, world.trips, target
    call.before, call.after = -1, replica.sending
    if replica.sending >= 0:
        calls[replica.sending].before = slot
    replica.sending = slot
    time = transmit(world, replica, tokens, now)
    push(world, time, SENT, slot, replica.index, call.trip)


@jit
def depart(world, replica, call, slot, now):
    """Leave the batch; what is not copied yet is, and then the request goes on elsewhere."""
    target = call.target
    quit_batch(replica, call, slot, 0)
    send(world, replica, call, slot, now, call.cached - call.copied, target)


@jit
def done(world, call, slot):
    """A request is over: note it, and begin what waited for it."""
    now, request = world.now, call.request
    world.unfinished -= 1
    world.makespan = max(world.makespan, now)
    observe(world, call, now)
    call.next, world.vacant = world.vacant, slot
    if world.p_followers:
        start, follower = ints(world.p_followers), ints(world.p_follower)
        missing = ints(world.p_missing)
        for at in range(start[request], start[request + 1]):
            other = follower[at]
            missing[other] -= 1
            if missing[other] == 0:
                push(world, now + reals(world.p_delay)[other], READY, other, 0, 0)
    if world.released < world.tasks:
        if world.p_left:
            task, left = ints(world.p_task)[request], ints(world.p_left)
            left[task] -= 1
            if left[task] == 0:
                release_task(world, world.released, now)
                world.released += 1
        else:
            push(world, now, READY, world.released, 0, 0)
            world.released += 1


@jit
def release_task(world, task, now):
    """Let a task's first requests come."""
    start, root = ints(world.p_root_start), ints(world.p_root)
    for at in range(start[task], start[task + 1]):
        push(world, now, READY, root[at], 0, 0)


@jit
def keep(world, call, now):
    """Fill a request's place in the record's columns."""
    at = call.request
    reals(world.p_out_arrival)[at], reals(world.p_out_start)[at] = call.arrival, call.start
    reals(world.p_out_first)[at], reals(world.p_out_visible)[at] = call.first, call.visible
    reals(world.p_out_last)[at], reals(world.p_out_finish)[at] = call.last, now
    ints(world.p_out_preempted)[at], ints(world.p_out_hits)[at] = call.lost, call.hits
    ints(world.p_out_replica)[at] = call.home


@jit
def observe(world, call, now):
    """Record a finished request."""
    m = ints(world.p_m)
    x = reals(world.p_x)
    if world.keep:
        keep(world, call, now)
    tenant, several = call.tenant, call.output > 1
    ttft, e2el = call.first - call.arrival, now - call.arrival
    queue, visible = call.start - call.arrival, call.visible - call.arrival
    row, sums = world.at_histogram + tenant * world.histogram, world.at_sums + 9 * tenant
    tpot = 0.0
    if several:
        tpot = (call.last - call.first) / (call.output - 1)
        m[row + BINS + bin_at(tpot)] += 1
    found = bin_at(ttft)
    m[row + found] += 1
    m[row + 4 * BINS + (found if visible == ttft else bin_at(visible))] += 1
    m[row + 2 * BINS + bin_at(e2el)] += 1
    m[row + 3 * BINS + bin_at(queue)] += 1
    x[sums] += ttft
    x[sums + 1] += tpot
    x[sums + 2] += e2el
    x[sums + 3] += queue
    x[sums + 4] += visible
    counts = world.at_tenants + 3 * tenant
    m[counts] += 1
    m[counts + 2] += several
    if ttft <= x[sums + 5] and tpot <= x[sums + 6] and e2el <= x[sums + 7]:
        m[counts + 1] += visible <= x[sums + 8]
