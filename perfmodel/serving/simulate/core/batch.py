"""The running batch: joining, leaving, growing, preempting; as in the twin's `replica`."""

# pyright: basic

from __future__ import annotations

from perfmodel.serving.simulate.core.blocks import drop, evict, hold, release
from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.lists import (
    enqueue_first,
    forget_due,
    land_first,
    link,
    push_due,
    unlink,
)
from perfmodel.serving.simulate.core.memory import calls_at, ints
from perfmodel.serving.simulate.core.numbers import blocks_of
from perfmodel.serving.simulate.core.state import (
    CROSS,
    DECODE,
    FINISH,
    LANDED,
    PREFILL,
    SHOW,
    WAITING,
)


@jit
def final_blocks(replica, call):
    """Blocks of a request at its end here."""
    if replica.role == PREFILL:
        return blocks_of(call.goal, replica.block_size)
    return blocks_of(call.prompt + call.output - 1, replica.block_size)


@jit
def margin(replica, call, blocks):
    """Blocks that stay free if a request joins with so many."""
    if not replica.running:
        return 0
    if replica.foresight == 0.0:
        return replica.reserve
    yet = replica.promised - replica.owned + final_blocks(replica, call) - blocks
    return replica.reserve + int(replica.foresight * yet)


@jit
def admit(world, replica, call, slot):
    """Give a place, and the adapter; its blocks are allocated."""
    link(replica, call, slot)
    replica.owned += call.blocks
    replica.promised += final_blocks(replica, call)
    replica.loads += hold(replica, call)
    if replica.idle:
        evict(replica)


@jit
def cached(replica, call):
    """Tokens in the cache of a decoding call."""
    return call.prompt + call.offset + replica.steps - 1


@jit
def enter_piece(replica, call, slot, piece):
    """Count a decode in a linear piece of the attention's time; note when it leaves it."""
    m = ints(replica.p_m)
    shift, finish = call.prompt + call.offset, call.output - call.offset
    call.piece = piece
    m[replica.at_pieces + 2 * piece] += 1
    m[replica.at_pieces + 2 * piece + 1] += shift
    if piece + 1 < replica.pieces:
        step = m[replica.at_breaks + piece + 1] - shift
        if step < finish:
            push_due(replica, call, slot, step, CROSS, 0)


@jit
def cross(replica, call, slot):
    """Go on to the next piece."""
    m = ints(replica.p_m)
    m[replica.at_pieces + 2 * call.piece] -= 1
    m[replica.at_pieces + 2 * call.piece + 1] -= call.prompt + call.offset
    enter_piece(replica, call, slot, call.piece + 1)


@jit
def join(replica, call, slot):
    """Begin to decode with the next step."""
    m = ints(replica.p_m)
    call.state, call.offset, call.joined = DECODE, call.generated - replica.steps, replica.steps
    call.grown = -1
    shift = call.prompt + call.offset
    replica.decoding += 1
    replica.total += shift
    m[replica.at_tenants + call.tenant] += 1
    if replica.late == 0:
        replica.late_since, replica.late_odd = call.last, 0
    elif replica.late_since != call.last:
        replica.late_odd = 1
    m[replica.at_late + replica.late] = slot
    replica.late += 1
    if replica.speculates:
        return
    m[replica.at_phases + (shift - 1) % replica.block_size] += 1
    push_due(replica, call, slot, call.output - call.offset, FINISH, 1)
    if call.generated <= call.hidden:
        push_due(replica, call, slot, call.hidden + 1 - call.offset, SHOW, 0)
    if replica.pieces:
        piece = 0
        while (
            piece + 1 < replica.pieces and m[replica.at_breaks + piece + 1] <= shift + replica.steps
        ):
            piece += 1
        enter_piece(replica, call, slot, piece)


@jit
def forget_late(replica, slot):
    """Take a request out of those that began to decode since the last decode step."""
    m = ints(replica.p_m)
    replica.late -= 1
    last = m[replica.at_late + replica.late]
    at = replica.at_late
    while at < replica.at_late + replica.late:
        if m[at] == slot:
            m[at] = last
        at += 1


@jit
def quit_batch(replica, call, slot, done):
    """Give up place and adapter, but not the blocks; ``done``: nothing more is due."""
    m = ints(replica.p_m)
    if call.state == DECODE:
        shift = call.prompt + call.offset
        call.generated, call.cached = call.offset + replica.steps, cached(replica, call)
        replica.decoding -= 1
        replica.total -= shift
        m[replica.at_tenants + call.tenant] -= 1
        if call.joined == replica.steps:
            forget_late(replica, slot)
        else:
            call.last = replica.sync
        if not replica.speculates:
            m[replica.at_phases + (shift - 1) % replica.block_size] -= 1
            grew = replica.grew or call.grown == replica.stamp
            call.blocks = blocks_of(call.cached + grew, replica.block_size)
            if replica.pieces:
                m[replica.at_pieces + 2 * call.piece] -= 1
                m[replica.at_pieces + 2 * call.piece + 1] -= shift
            if not done:
                forget_due(replica, slot)
        elif replica.drafted:
            replica.proposed -= call.draft
    unlink(replica, call)
    if slot == replica.partial:
        replica.partial = -1
    replica.owned -= call.blocks
    replica.promised -= final_blocks(replica, call)
    drop(replica, call)
    if not replica.running:
        replica.started = 0
    if replica.moving == slot:
        replica.moving_gone = 1
        if call.leaving:
            replica.moving = -1
    call.target, call.leaving = -1, 0


@jit
def leave(world, replica, call, slot, done):
    """Give up place, blocks and adapter."""
    quit_batch(replica, call, slot, done)
    release(world, replica, call)


@jit
def preempt(world, replica, slot):
    """Take a request's place; it waits before its like, or for its swapped cache."""
    calls = calls_at(replica.p_calls)
    call = calls[slot]
    replica.preempted = 1
    decoding = call.state == DECODE
    leave(world, replica, call, slot, 0)
    replica.preemptions += 1
    call.lost += 1
    if decoding and replica.swap:
        call.state, call.swapped = LANDED, 1
        replica.swaps += blocks_of(call.cached, replica.block_size)
        land_first(replica, call, slot)
    else:
        call.state = WAITING
        enqueue_first(replica, call, slot)


@jit
def make_room(world, replica, slot, blocks):
    """Preempt until so many blocks are free; false if it is the request's own turn to go."""
    calls = calls_at(replica.p_calls)
    while replica.free < blocks:
        victim = replica.tail  # the youngest of the lowest priority
        if world.levels > 1:
            other = calls[victim].before
            while other >= 0:
                if calls[other].level > calls[victim].level:
                    victim = other
                other = calls[other].before
        preempt(world, replica, victim)
        if victim == slot:
            return False
    return True


@jit
def grow(world, replica):
    """Blocks for the tokens this step decodes, oldest first; others give way."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    if replica.speculates:
        grow_for_drafts(world, replica)
        return
    size = replica.block_size
    needed = m[replica.at_phases + (-replica.steps) % size]
    if needed <= replica.free:
        replica.free -= needed
        replica.owned += needed
        replica.grew = 1
        if replica.idle:
            evict(replica)
        return
    slot = replica.head
    while slot >= 0:
        call = calls[slot]
        if (
            call.state == DECODE
            and cached(replica, call) % size == 0
            and make_room(world, replica, slot, 1)
        ):
            replica.free -= 1
            replica.owned += 1
            call.grown = replica.stamp
            if replica.idle:
                evict(replica)
        slot = call.after  # right even if the call itself has gone


@jit
def draft_of(replica, call, length):
    """Tokens to propose for a decode."""
    return min(length, call.output - call.offset - replica.steps - 1)


@jit
def growth_for_draft(replica, call, draft):
    """Blocks that a decode lacks to verify a draft."""
    tokens = cached(replica, call) + draft + 1
    return max(blocks_of(tokens, replica.block_size) - call.blocks, 0)


@jit
def growth(replica, call):
    """Blocks that the next tokens of a landed request and of the decodes take."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    size = replica.block_size
    if not replica.speculates:
        return (call.cached % size == 0) + m[replica.at_phases + (-replica.steps) % size]
    length = m[replica.at_lengths + replica.decoding + 1]
    draft = min(length, call.output - call.generated - 1)
    more = blocks_of(call.cached + draft + 1, size) - blocks_of(call.cached, size)
    slot = replica.head
    while slot >= 0:
        other = calls[slot]
        if other.state == DECODE:
            more += growth_for_draft(replica, other, draft_of(replica, other, length))
        slot = other.after
    return more


@jit
def grow_for_drafts(world, replica):
    """Blocks for the tokens that are proposed and checked."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    length = m[replica.at_lengths + replica.decoding]
    slot = replica.head
    while slot >= 0:
        call = calls[slot]
        if call.state == DECODE:
            draft = draft_of(replica, call, length)
            more = growth_for_draft(replica, call, draft)
            if make_room(world, replica, slot, more):
                replica.free -= more
                call.blocks += more
                replica.owned += more
                if replica.idle:
                    evict(replica)
                call.draft = draft
        slot = call.after
    replica.drafted, replica.proposed, slot = 1, 0, replica.head
    while slot >= 0:
        if calls[slot].state == DECODE:
            replica.proposed += calls[slot].draft
        slot = calls[slot].after
