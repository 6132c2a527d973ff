"""The choice of a replica for a request, as `perfmodel.serving.simulate.twin.routes`."""

# pyright: basic

from __future__ import annotations

from perfmodel.serving.simulate.core.blocks import evict_for, holds, match
from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.content import find
from perfmodel.serving.simulate.core.lists import enqueue, land, lowest
from perfmodel.serving.simulate.core.memory import calls_at, ints, replicas_at
from perfmodel.serving.simulate.core.numbers import draw
from perfmodel.serving.simulate.core.state import (
    DECODES,
    LANDED,
    NEVER,
    PREFILL,
    UP,
    WAITING,
)
from perfmodel.serving.simulate.core.stretch import cut, mark, taken_by_now
from perfmodel.serving.simulate.fleet import UNEVEN_BY, UNEVEN_TIMES, Routing

_ROUND_ROBIN, _RANDOM, _KV = int(Routing.ROUND_ROBIN), int(Routing.RANDOM), int(Routing.LEAST_KV)
_TWO, _PREFIX = int(Routing.POWER_OF_TWO), int(Routing.PREFIX_AWARE)
_SESSION, _COST, _ADAPTER = int(Routing.SESSION), int(Routing.COST_AWARE), int(Routing.ADAPTER)


@jit
def find_ready(world, pool, unlike):
    """List the ready replicas of a pool that have not the role ``unlike``; how many."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    count = 0
    for index in range(world.replicas):
        replica = replicas[index]
        if replica.state == UP and replica.pool == pool and replica.role != unlike:
            m[world.at_ready + count] = index
            count += 1
    return count


@jit
def uniform(world, stream):
    """The next draw of a router."""
    if stream == 1:
        world.draws += 1
        return draw(world.seed, 1, world.draws)
    world.decode_draws += 1
    return draw(world.seed, 2, world.decode_draws)


@jit
def least(world, count):
    """The one with the fewest outstanding requests, the first of equals."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    best = m[world.at_ready]
    fewest = replicas[best].outstanding
    for at in range(1, count):
        index = m[world.at_ready + at]
        if replicas[index].outstanding < fewest:
            best, fewest = index, replicas[index].outstanding
    return best


@jit
def least_kv(world, count):
    """The one with the fewest prompt tokens given and not finished, per token of its cache."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    best, fewest = -1, 0.0
    for at in range(count):
        index = m[world.at_ready + at]
        replica = replicas[index]
        load = replica.prompts / (replica.blocks * replica.block_size)
        if best < 0 or load < fewest:
            best, fewest = index, load
    return best


@jit
def cheapest(world, count):
    """The cheapest with a free place, else the one with the most places per request."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    best = -1
    for at in range(count):
        index = m[world.at_ready + at]
        a, b = replicas[index], replicas[max(best, 0)]
        if a.outstanding < a.max_num_seqs and (
            best < 0 or a.price < b.price or (a.price == b.price and a.outstanding < b.outstanding)
        ):
            best = index
    if best >= 0:
        return best
    lowest_share = 0.0
    for at in range(count):
        index = m[world.at_ready + at]
        share = replicas[index].outstanding / replicas[index].max_num_seqs
        if best < 0 or share < lowest_share:
            best, lowest_share = index, share
    return best


@jit
def by_adapter(world, call, count):
    """The least loaded that holds the adapter and has a place, else the least loaded."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    best = -1
    for at in range(count):
        index = m[world.at_ready + at]
        replica = replicas[index]
        if (
            replica.outstanding < replica.max_num_seqs
            and holds(replica, call.adapter)
            and (best < 0 or replica.outstanding < replicas[best].outstanding)
        ):
            best = index
    return best if best >= 0 else least(world, count)


@jit
def by_prefix(world, call, count):
    """The longest cached prefix, unless the load is uneven."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    ids = ints(replicas[0].p_ids)
    fewest = most = replicas[m[world.at_ready]].outstanding
    for at in range(1, count):
        outstanding = replicas[m[world.at_ready + at]].outstanding
        fewest, most = min(fewest, outstanding), max(most, outstanding)
    if most - fewest > UNEVEN_BY and most > UNEVEN_TIMES * fewest:
        return least(world, count)
    goal, best, longest = call.prompt + call.generated, -1, 0
    for at in range(count):
        index = m[world.at_ready + at]
        replica = replicas[index]
        if longest and find(replica, ids[call.content + longest - 1]) < 0:
            continue  # shorter, so what its decodes have pushed out can be seen to later
        rounds = replica.pending // replica.block_size + 1
        if replica.idle * replica.span > replica.free - rounds * replica.decodes:
            # decodes may have taken the place of what nobody holds
            evict_for(replica, taken_by_now(world, replica))
        found = match(world, replica, call, goal)
        if best < 0 or found > longest or (
            found == longest and replica.outstanding < replicas[best].outstanding
        ):  # fmt: skip
            best, longest = index, found
    return best


@jit
def choose(world, call, stream, count):
    """One of the ready replicas."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    policy = world.routing if stream == 1 else world.decode_routing
    if policy == _ROUND_ROBIN:
        turn = world.at_turns + 2 * call.pool + stream - 1
        m[turn] += 1
        return m[world.at_ready + (m[turn] - 1) % count]
    if policy == _RANDOM:
        return m[world.at_ready + int(uniform(world, stream) * count)]
    if policy == _TWO:
        one, two = int(uniform(world, stream) * count), int(uniform(world, stream) * count)
        one, two = m[world.at_ready + min(one, two)], m[world.at_ready + max(one, two)]
        return two if replicas[two].outstanding < replicas[one].outstanding else one
    if policy == _KV:
        return least_kv(world, count)
    if policy == _PREFIX:
        return by_prefix(world, call, count)
    if policy == _SESSION and world.sessions:
        home = world.at_homes + 2 * call.session + stream - 1
        for at in range(count):
            if m[world.at_ready + at] == m[home]:
                return m[home]
        m[home] = least(world, count)
        return m[home]
    if policy == _COST:
        return cheapest(world, count)
    if policy == _ADAPTER and call.adapter >= 0:
        return by_adapter(world, call, count)
    return least(world, count)


@jit
def strand(world, call, slot):
    """Nobody is ready for a request: it waits for somebody who is."""
    calls = calls_at(world.p_calls)
    call.next = -1
    if world.stranded >= 0:
        calls[world.stranded_last].next = slot
    else:
        world.stranded = slot
    world.stranded_last = slot


@jit
def reaches(world, replica):
    """A request comes to a replica that might admit it: the step under way is its last alone."""
    m = ints(replica.p_m)
    if m[world.at_due + replica.index] == NEVER:
        mark(world, replica)
    elif (
        replica.pending > 1
        and replica.running < replica.max_num_seqs
        and replica.refill
        and replica.landed < 0
    ):
        cut(world, replica)


@jit
def dispatch(world, call, slot):
    """Give a request without a cache to a replica."""
    replicas = replicas_at(world.p_replicas)
    call.landing = 0
    index = 0
    if world.replicas > 1 or replicas[0].state != UP or replicas[0].pool != call.pool:
        count = find_ready(world, call.pool, DECODES)
        if count == 0:
            strand(world, call, slot)
            return
        index = choose(world, call, 1, count)
    replica = replicas[index]
    replica.outstanding += 1
    replica.prompts += call.prompt
    call.home, call.state = index, WAITING
    # else others wait before it, which only lack of an adapter's place lets it pass
    if call.level < lowest(world, replica) or replica.adapters:
        reaches(world, replica)
    enqueue(replica, call, slot)


@jit
def arrive(world, call, slot, target):
    """Give a request with its cache to a replica, the target if that is ready."""
    replicas = replicas_at(world.p_replicas)
    m = ints(world.p_m)
    call.landing = 1
    count = find_ready(world, call.pool, PREFILL)
    if count == 0:
        strand(world, call, slot)
        return
    index = -1
    for at in range(count):
        if m[world.at_ready + at] == target:
            index = target
    if index < 0:
        index = choose(world, call, 2, count)
    replica = replicas[index]
    replica.outstanding += 1
    replica.prompts += call.prompt
    call.home, call.state = index, LANDED
    reaches(world, replica)
    land(replica, call, slot)
