"""Beginning a step: what it holds and how long it takes; as in the twin's `replica`."""

# pyright: basic

from __future__ import annotations

from perfmodel.serving.simulate.core.batch import (
    admit,
    cached,
    grow,
    growth,
    join,
    make_room,
    margin,
)
from perfmodel.serving.simulate.core.blocks import (
    admits,
    allocate,
    evict,
    idle_blocks,
    match,
    share,
    take_found,
)
from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.lists import dequeue, lowest
from perfmodel.serving.simulate.core.memory import calls_at, ints, reals, surfaces_at
from perfmodel.serving.simulate.core.numbers import attention, blocks_of, rest, tick
from perfmodel.serving.simulate.core.state import DECODE, PROMPT
from perfmodel.serving.simulate.core.stretch import extend
from perfmodel.serving.simulate.policy import FINETUNE_ROWS


@jit
def schedule(world, replica, now):
    """Begin a step, if there is anything to do."""
    surfaces = surfaces_at(world.p_surfaces)
    m = ints(replica.p_m)
    surface = surfaces[replica.surface]
    while True:
        fill(world, replica, now)
        if replica.decodes or replica.chunks:
            step_time(replica, surface)
            replica.pending, replica.slope, replica.attention_slope = 1, 0.0, 0.0
            replica.end = now + replica.spent
            replica.used = replica.blocks - replica.free
            if not (
                replica.chunks or replica.preempted or replica.swaps or replica.loads
                or replica.speculates
            ) and surface.pieces:  # fmt: skip
                extend(replica, surface)
            m[world.at_due + replica.index] = tick(replica.end)
            return
        if not replica.preempted:
            return


@jit
def fill(world, replica, now):
    """Decide what the step holds."""
    replica.preempted, replica.begin, replica.chunks = 0, now, 0
    replica.swaps, replica.loads, replica.proposed = 0, 0, 0
    replica.stamp += 1
    replica.grew = replica.drafted = 0
    if replica.landed >= 0:
        admit_landed(world, replica)
    room = replica.budget
    if replica.mixed:
        if replica.decoding:
            grow(world, replica)
        room -= replica.decoding + replica.proposed
    if replica.partial >= 0 and room > 0:
        room = go_on(world, replica, room)
    if replica.queued:
        admit_prompts(world, replica, room, now)
    replica.decodes = replica.decoding
    if not replica.mixed:
        if replica.chunks:
            replica.decodes = 0
        elif replica.decoding:
            grow(world, replica)
            replica.decodes = replica.decoding


@jit
def admit_landed(world, replica):
    """Requests with a cache of their own decode as soon as blocks are there for it."""
    calls = calls_at(replica.p_calls)
    while (
        replica.landed >= 0
        and replica.running < replica.max_num_seqs
        and (replica.refill or not replica.started)
    ):
        slot = replica.landed
        call = calls[slot]
        blocks = blocks_of(call.cached, replica.block_size)
        more = blocks + growth(replica, call)  # else someone would give way at once
        if more > replica.free - margin(replica, call, more) or not admits(replica, call):
            break
        replica.landed = call.next
        allocate(replica, call, call.cached)
        admit(world, replica, call, slot)
        if call.swapped:
            replica.swaps += blocks
            call.swapped = 0
        join(replica, call, slot)


@jit
def add_chunk(replica, slot, new):
    """Compute so many prompt tokens of a request in this step."""
    m = ints(replica.p_m)
    m[replica.at_chunks + 2 * replica.chunks] = slot
    m[replica.at_chunks + 2 * replica.chunks + 1] = new
    replica.chunks += 1


@jit
def go_on(world, replica, room):
    """The prompt under way; the tokens that are left of the budget."""
    calls = calls_at(replica.p_calls)
    slot = replica.partial
    call = calls[slot]
    new = min(call.goal - call.cached, room)
    tokens = call.goal if replica.layered else call.cached + new
    more = blocks_of(tokens, replica.block_size) - call.blocks
    if not make_room(world, replica, slot, more):
        return room
    replica.owned -= call.blocks
    allocate(replica, call, tokens)
    replica.owned += call.blocks
    share(world, replica, call, tokens)
    if replica.idle:
        evict(replica)
    add_chunk(replica, slot, new)
    return room - new


@jit
def first_waiting(world, replica):
    """The first that waits and whose adapter is here or can be, and who is before it; -1: none."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    level = lowest(world, replica)
    slot = m[replica.at_heads + level]
    if admits(replica, calls[slot]):
        return slot, -1
    while level < world.levels:
        before, slot = -1, m[replica.at_heads + level]
        while slot >= 0:
            if admits(replica, calls[slot]):
                return slot, before
            before, slot = slot, calls[slot].next
        level += 1
    return -1, -1


@jit
def admit_prompts(world, replica, room, now):
    """Waiting requests, while tokens, places and blocks suffice."""
    calls = calls_at(replica.p_calls)
    while (
        room > 0
        and replica.queued
        and not replica.preempted
        and replica.landed < 0
        and replica.running < replica.max_num_seqs
        and (replica.refill or not replica.started)
    ):
        slot, before = first_waiting(world, replica)
        if slot < 0:
            break
        call = calls[slot]
        goal = call.goal = call.prompt + call.generated
        found = match(world, replica, call, goal)
        done = found * world.hash_block
        new = min(goal - done, room) if replica.chunked else goal - done
        if new > room and replica.chunks:
            break
        tokens = goal if replica.layered else done + new
        # the whole prompt must fit, not its first chunk alone
        taken = blocks = blocks_of(goal, replica.block_size)
        if found:
            taken += idle_blocks(replica, call, found) - found * replica.span
        if taken > replica.free - margin(replica, call, blocks):
            break
        dequeue(replica, call, before)
        call.blocks = 0
        if found:
            take_found(replica, call, found)
        call.base, call.cached, call.state = done, done, PROMPT
        allocate(replica, call, tokens)
        share(world, replica, call, tokens)
        admit(world, replica, call, slot)
        world.hit_tokens += done
        if call.start < 0.0:
            call.start, call.hits = max(now, call.arrival), done
        add_chunk(replica, slot, new)
        room -= new


@jit
def decode_attention(replica, surface):
    """Decode attention of the step [s]."""
    m = ints(replica.p_m)
    x = reals(replica.p_x)
    if not surface.pieces or (replica.speculates and not surface.linear):
        return gathered(replica, surface)
    if replica.speculates:
        total = replica.total + replica.decodes * replica.steps + replica.proposed
        return x[surface.at_pieces] * replica.decodes + x[surface.at_pieces + 1] * total
    spent = 0.0
    for piece in range(surface.pieces):
        count, total = m[replica.at_pieces + 2 * piece], m[replica.at_pieces + 2 * piece + 1]
        spent += x[surface.at_pieces + 2 * piece] * count
        spent += x[surface.at_pieces + 2 * piece + 1] * (total + count * replica.steps)
    return spent


@jit
def gathered(replica, surface):
    """Decode attention, each sequence looked up on its own [s]."""
    calls = calls_at(replica.p_calls)
    x = reals(replica.p_x)
    spent, slot = 0.0, replica.head
    while slot >= 0:
        call = calls[slot]
        if call.state == DECODE:
            context = cached(replica, call) + 1
            if replica.speculates:
                context += call.draft
            spent += x[surface.at_decode + context]
        slot = call.after
    return spent


@jit
def step_time(replica, surface):
    """Duration of the step; notes what it computes."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    x = reals(replica.p_x)
    decodes, drafts, chunks = replica.decodes, replica.proposed, replica.chunks
    new = past = 0
    for at in range(chunks):
        new += m[replica.at_chunks + 2 * at + 1]
        past += calls[m[replica.at_chunks + 2 * at]].cached
    extra = 0
    if replica.finetune:
        extra = min(replica.finetune, max(replica.budget - decodes - drafts - new, 0))
    replica.new, replica.finetuned, fill_rows = new, extra, FINETUNE_ROWS * extra
    replica.rows = decodes + drafts + new + fill_rows
    replica.sequences = decodes + drafts + chunks
    replica.decode_time = replica.prefill_time = 0.0
    if decodes:
        replica.decode_time = decode_attention(replica, surface)
    if replica.layered and chunks:
        spent = layered_time(replica, surface, fill_rows)
    else:
        for at in range(chunks):
            call = calls[m[replica.at_chunks + 2 * at]]
            part = m[replica.at_chunks + 2 * at + 1]
            replica.prefill_time += attention(surface, part, call.cached)
        spent = replica.decode_time + replica.prefill_time
        spent += rest(surface, replica.rows, replica.sequences, past, decodes > 0, chunks > 0)
    spent += replica.swaps * replica.swap_time + replica.loads * replica.adapter_time
    spent += replica.adapter_users * replica.adapter_step
    if drafts:
        spent += m[replica.at_lengths + decodes] * x[replica.at_draft + decodes]
    replica.raw = spent
    replica.spent = max(spent, replica.host_time * (decodes + chunks))


@jit
def layered_time(replica, surface, fill_rows):
    """Duration of a step of which each prompt passes through a part of the layers [s]."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    decodes, drafts = replica.decodes, replica.proposed
    beside, alone = decodes + drafts + fill_rows, 0.0
    if decodes or fill_rows:
        alone = rest(surface, beside, decodes + drafts, 0, decodes > 0, False)
        alone += replica.decode_time
    spent = alone
    for at in range(replica.chunks):
        call = calls[m[replica.at_chunks + 2 * at]]
        whole = call.goal - call.base
        share_ = m[replica.at_chunks + 2 * at + 1] / whole
        each = attention(surface, whole, call.base)
        other = rest(surface, beside + whole, decodes + drafts + 1, call.base, decodes > 0, True)
        spent += share_ * (replica.decode_time + each + other - alone)
        replica.prefill_time += share_ * each
    return spent
