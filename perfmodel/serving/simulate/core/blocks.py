"""Cache blocks and adapters of a replica, as `perfmodel.serving.simulate.twin.cache`."""

# pyright: basic

from __future__ import annotations

from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.content import find, insert, remove
from perfmodel.serving.simulate.core.lists import (
    clear_ring,
    idle_last,
    idle_out,
    is_idle,
    oldest,
)
from perfmodel.serving.simulate.core.memory import int8s, int32s, ints
from perfmodel.serving.simulate.core.numbers import blocks_of


@jit
def match(world, replica, call, goal):
    """Leading pieces of content that are here; at least one token remains to be computed."""
    ids = ints(replica.p_ids)
    if not replica.shared:
        return 0
    most = min(call.whole, (goal - 1) // world.hash_block)
    found = 0
    while found < most and find(replica, ids[call.content + found]) >= 0:
        found += 1
    return found


@jit
def idle_blocks(replica, call, found):
    """Blocks of the first ``found`` pieces that taking them would make busy."""
    links = int32s(replica.p_links)
    ids = ints(replica.p_ids)
    idle = 0
    for at in range(found):
        idle += is_idle(links, replica.at_links, find(replica, ids[call.content + at]))
    return replica.span * idle


@jit
def take_found(replica, call, found):
    """Hold the first ``found`` pieces."""
    links = int32s(replica.p_links)
    ids = ints(replica.p_ids)
    mine = int8s(replica.p_mine)
    base = replica.at_links
    for at in range(found):
        entry = find(replica, ids[call.content + at])
        if is_idle(links, base, entry):
            idle_out(links, base, entry)
            replica.idle -= 1
            replica.free -= replica.span
        links[base + 3 * entry] += 1
        mine[call.content + at] = 1
    call.shares = found
    call.blocks = found * replica.span


@jit
def allocate(replica, call, tokens):
    """Blocks so that ``tokens`` tokens of a call are cached."""
    more = blocks_of(tokens, replica.block_size) - call.blocks
    call.blocks += more
    replica.free -= more


@jit
def share(world, replica, call, tokens):
    """Let others find the call's whole pieces among its first ``tokens`` tokens."""
    links = int32s(replica.p_links)
    ids = ints(replica.p_ids)
    mine = int8s(replica.p_mine)
    if replica.shared:
        most = min(call.whole, tokens // world.hash_block)
        for at in range(call.content + call.shares, call.content + most):
            mine[at] = find(replica, ids[at]) < 0
            if mine[at]:
                links[replica.at_links + 3 * insert(replica, ids[at])] = 1
        call.shares = max(call.shares, most)


@jit
def release(world, replica, call):
    """Give all blocks back; the last piece of content is the first to be given up."""
    share(world, replica, call, call.cached)
    links = int32s(replica.p_links)
    ids = ints(replica.p_ids)
    mine = int8s(replica.p_mine)
    base, kept = replica.at_links, 0
    for back in range(call.shares):
        at = call.content + call.shares - 1 - back
        if mine[at]:
            kept += 1
            entry = find(replica, ids[at])
            links[base + 3 * entry] -= 1
            if links[base + 3 * entry] == 0:
                idle_last(links, base, replica.entries, entry)
                replica.idle += 1
                replica.free += replica.span
    replica.free += call.blocks - kept * replica.span
    call.blocks = call.shares = 0


@jit
def evict(replica):
    """Give up idle content for the blocks in use."""
    evict_for(replica, 0)


@jit
def evict_for(replica, more):
    """Give up idle content for the blocks in use and ``more``."""
    links = int32s(replica.p_links)
    base = replica.at_links
    while replica.idle * replica.span > replica.free - more:
        entry = oldest(links, base, replica.entries)
        idle_out(links, base, entry)
        remove(replica, entry)
        replica.idle -= 1
        replica.evicted += replica.span


@jit
def admits(replica, call):
    """Whether the call's adapter is here or can be."""
    if not replica.adapters or call.adapter < 0:
        return True
    return replica.adapter_users < replica.adapters or holds(replica, call.adapter)


@jit
def holds(replica, adapter):
    """Whether an adapter is in device memory."""
    links = int32s(replica.p_links)
    if not replica.adapters:
        return False
    base = replica.at_adapters
    return links[base + 3 * adapter] > 0 or is_idle(links, base, adapter)


@jit
def hold(replica, call):
    """Keep the call's adapter; whether it had to be loaded."""
    links = int32s(replica.p_links)
    if not replica.adapters or call.adapter < 0:
        return 0
    base, kinds, adapter = replica.at_adapters, replica.kinds, call.adapter
    loads = 0
    if links[base + 3 * adapter] == 0:
        if is_idle(links, base, adapter):
            idle_out(links, base, adapter)
            replica.adapter_idle -= 1
        else:
            loads = 1
            if replica.adapter_users + replica.adapter_idle == replica.adapters:
                idle_out(links, base, oldest(links, base, kinds))
                replica.adapter_idle -= 1
        replica.adapter_users += 1
    links[base + 3 * adapter] += 1
    replica.adapter_loads += loads
    return loads


@jit
def drop(replica, call):
    """No longer need the call's adapter."""
    links = int32s(replica.p_links)
    if replica.adapters and call.adapter >= 0:
        base, adapter = replica.at_adapters, call.adapter
        links[base + 3 * adapter] -= 1
        if links[base + 3 * adapter] == 0:
            replica.adapter_users -= 1
            replica.adapter_idle += 1
            idle_last(links, base, replica.kinds, adapter)


@jit
def lose_all(replica):
    """Lose all blocks and adapters."""
    links = int32s(replica.p_links)
    replica.free, replica.idle = replica.blocks, 0
    replica.adapter_users, replica.adapter_idle = 0, 0
    if replica.shared:
        clear_ring(links, replica.at_links, replica.entries)
        keys = ints(replica.p_keys)
        for at in range(replica.entries):
            keys[at] = 0
    if replica.adapters:
        clear_ring(links, replica.at_adapters, replica.kinds)
