"""The heap of events, by tick and then in the order they were made."""

# pyright: basic

from __future__ import annotations

from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.memory import events_at
from perfmodel.serving.simulate.core.numbers import tick


@jit
def comes_first(a, b):
    """Whether event ``a`` is handled before ``b``."""
    return a.tick < b.tick or (a.tick == b.tick and a.order < b.order)


@jit
def copy_event(a, b):
    """Make ``a`` equal to ``b``."""
    a.tick, a.order, a.time, a.kind = b.tick, b.order, b.time, b.kind
    a.who, a.where, a.trip = b.who, b.where, b.trip


@jit
def push(world, time, kind, who, where, trip):
    """Let something happen at ``time``."""
    events = events_at(world.p_events)
    world.order += 1
    at, child = tick(time), world.events
    world.events += 1
    while child > 0:
        parent = (child - 1) >> 1
        if events[parent].tick <= at:  # made earlier
            break
        copy_event(events[child], events[parent])
        child = parent
    made = events[child]
    made.tick, made.order, made.time, made.kind = at, world.order, time, kind
    made.who, made.where, made.trip = who, where, trip


@jit
def pop(world):
    """Take the first event out, to the place behind the last."""
    events = events_at(world.p_events)
    world.events -= 1
    last = world.events
    spare = events[last + 1]
    copy_event(spare, events[last])
    if last:
        copy_event(events[last], events[0])
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= last:
            break
        if child + 1 < last and comes_first(events[child + 1], events[child]):
            child += 1
        if not comes_first(events[child], spare):
            break
        copy_event(events[parent], events[child])
        parent = child
    if last:
        copy_event(events[parent], spare)
    return events[last]
