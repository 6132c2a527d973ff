"""Linked lists through slots, least-recently-used lists, and the heap of what is due."""

# pyright: basic

from __future__ import annotations

from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.memory import calls_at, ints

# --- the running batch, in order of admission -----------------------------------------------------


@jit
def link(replica, call, slot):
    """Append to the running requests."""
    calls = calls_at(replica.p_calls)
    call.before, call.after = replica.tail, -1
    if replica.tail >= 0:
        calls[replica.tail].after = slot
    else:
        replica.head = slot
    replica.tail = slot
    replica.running += 1


@jit
def unlink(replica, call):
    """Take out of the running requests."""
    calls = calls_at(replica.p_calls)
    if call.before >= 0:
        calls[call.before].after = call.after
    else:
        replica.head = call.after
    if call.after >= 0:
        calls[call.after].before = call.before
    else:
        replica.tail = call.before
    replica.running -= 1


# --- queues: waiting requests by level, and those that have landed --------------------------------


@jit
def lowest(world, replica):
    """The first level where a request waits; the number of levels if none does."""
    m = ints(replica.p_m)
    if not replica.queued:
        return world.levels
    level = 0
    while m[replica.at_heads + level] < 0:
        level += 1
    return level


@jit
def enqueue(replica, call, slot):
    """Wait behind all others of the level."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    head, tail = replica.at_heads + call.level, replica.at_tails + call.level
    call.next = -1
    if m[head] >= 0:
        calls[m[tail]].next = slot
    else:
        m[head] = slot
    m[tail] = slot
    replica.queued += 1


@jit
def enqueue_first(replica, call, slot):
    """Wait before all others of the level."""
    m = ints(replica.p_m)
    head, tail = replica.at_heads + call.level, replica.at_tails + call.level
    call.next = m[head]
    if m[head] < 0:
        m[tail] = slot
    m[head] = slot
    replica.queued += 1


@jit
def dequeue(replica, call, before):
    """Take out of a level the one behind ``before``; the first if that is -1."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    if before < 0:
        m[replica.at_heads + call.level] = call.next
    else:
        calls[before].next = call.next
        if call.next < 0:
            m[replica.at_tails + call.level] = before
    replica.queued -= 1


@jit
def land(replica, call, slot):
    """Wait with its cache, behind the others."""
    calls = calls_at(replica.p_calls)
    call.next = -1
    if replica.landed >= 0:
        calls[replica.landed_last].next = slot
    else:
        replica.landed = slot
    replica.landed_last = slot


@jit
def land_first(replica, call, slot):
    """Wait with its cache, before the others."""
    call.next = replica.landed
    if replica.landed < 0:
        replica.landed_last = slot
    replica.landed = slot


# --- what is due, by decode step ------------------------------------------------------------------


@jit
def due_step(replica):
    """The next decode step at which something is due."""
    m = ints(replica.p_m)
    return m[replica.at_heap] >> replica.shift


@jit
def push_due(replica, call, slot, step, kind, finish):
    """Let something be due; of one step, finishes come last and in the order of the requests."""
    m = ints(replica.p_m)
    key = (step << replica.shift) | (finish << (replica.shift - 1)) | call.request
    base, child = replica.at_heap, replica.heap
    replica.heap += 1
    while child > 0:
        parent = (child - 1) >> 1
        if m[base + 2 * parent] <= key:
            break
        m[base + 2 * child] = m[base + 2 * parent]
        m[base + 2 * child + 1] = m[base + 2 * parent + 1]
        child = parent
    m[base + 2 * child] = key
    m[base + 2 * child + 1] = slot << 2 | kind


@jit
def remove_due(replica, at):
    """Take entry ``at`` out: the last entry moves there and settles."""
    m = ints(replica.p_m)
    replica.heap -= 1
    base, last = replica.at_heap, replica.heap
    key, value = m[base + 2 * last], m[base + 2 * last + 1]
    while at > 0 and m[base + 2 * ((at - 1) >> 1)] > key:
        parent = (at - 1) >> 1
        m[base + 2 * at], m[base + 2 * at + 1] = m[base + 2 * parent], m[base + 2 * parent + 1]
        at = parent
    while True:
        child = 2 * at + 1
        if child >= last:
            break
        if child + 1 < last and m[base + 2 * child + 2] < m[base + 2 * child]:
            child += 1
        if m[base + 2 * child] >= key:
            break
        m[base + 2 * at], m[base + 2 * at + 1] = m[base + 2 * child], m[base + 2 * child + 1]
        at = child
    m[base + 2 * at], m[base + 2 * at + 1] = key, value


@jit
def forget_due(replica, slot):
    """Take all entries of a request out."""
    m = ints(replica.p_m)
    at = replica.heap - 1
    while at >= 0:
        if m[replica.at_heap + 2 * at + 1] >> 2 == slot:
            remove_due(replica, at)
            at = min(at, replica.heap - 1)  # what moved here has not been looked at
        else:
            at -= 1


# --- least recently used: rings of three numbers an entry from `base`, the last one a sentinel ----
# The number of users; one more than the entry before (0: not in the ring); the entry after.


@jit
def is_idle(links, base, entry):
    """Whether an entry is in the ring."""
    return links[base + 3 * entry + 1] > 0


@jit
def idle_last(links, base, count, entry):
    """Append an entry as the most recently used."""
    last = links[base + 3 * count + 1] - 1
    links[base + 3 * entry + 1], links[base + 3 * entry + 2] = last + 1, count
    links[base + 3 * last + 2] = entry
    links[base + 3 * count + 1] = entry + 1


@jit
def idle_out(links, base, entry):
    """Take an entry out of the ring."""
    before, after = links[base + 3 * entry + 1], links[base + 3 * entry + 2]
    links[base + 3 * (before - 1) + 2] = after
    links[base + 3 * after + 1] = before
    links[base + 3 * entry + 1] = 0


@jit
def oldest(links, base, count):
    """The least recently used entry of a ring that is not empty."""
    return links[base + 3 * count + 2]


@jit
def clear_ring(links, base, count):
    """No users, no idle entries."""
    for at in range(base, base + 3 * count):
        links[at] = 0
    links[base + 3 * count + 1] = count + 1
    links[base + 3 * count + 2] = count
