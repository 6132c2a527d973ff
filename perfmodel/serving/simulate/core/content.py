"""Which content a replica's cache has: a hash table of ids with linear probing.

It is as large as the cache, whatever the number of ids. Entry ``e`` of the table is entry ``e`` of
the replica's least-recently-used ring (see `lists`); ids that follow each other lie side by side.
"""

# pyright: basic

from __future__ import annotations

from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.memory import int32s, ints

_NEAR = 3  # low bits of an id that are kept, so that few cache lines are read
_GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: Knuth, TAOCP vol. 3, section 6.4


@jit
def home(key, last):
    """Where the search for an id begins, in a table that ends with entry ``last``."""
    spread = ((key >> 2) & 0x3FFFFFFF) * _GOLDEN >> 12
    return ((spread & ~_NEAR) | (key & _NEAR)) & last


@jit
def find(replica, content):
    """Entry of an id; -1 if it is not here."""
    keys = ints(replica.p_keys)
    key, last = content + 1, replica.entries - 1
    entry = home(key, last)
    while True:
        there = keys[entry]
        if there == key:
            return entry
        if there == 0:
            return -1
        entry = (entry + 1) & last


@jit
def insert(replica, content):
    """Entry of an id that was not here: no users, not idle."""
    keys = ints(replica.p_keys)
    last = replica.entries - 1
    entry = home(content + 1, last)
    while keys[entry]:
        entry = (entry + 1) & last
    keys[entry] = content + 1
    return entry


@jit
def remove(replica, entry):
    """Forget an id without users that is not idle; those that were pushed on move up."""
    keys = ints(replica.p_keys)
    links = int32s(replica.p_links)
    base, last, gap, at = replica.at_links, replica.entries - 1, entry, entry
    while True:
        at = (at + 1) & last
        key = keys[at]
        if key == 0:
            break
        if ((at - home(key, last)) & last) >= ((at - gap) & last):
            keys[gap] = key
            users, before, after = base + 3 * at, links[base + 3 * at + 1], links[base + 3 * at + 2]
            links[base + 3 * gap] = links[users]
            links[base + 3 * gap + 1], links[base + 3 * gap + 2] = before, after
            links[users] = links[users + 1] = 0
            if before:  # it is idle: its neighbours must know
                links[base + 3 * (before - 1) + 2] = gap
                links[base + 3 * after + 1] = gap + 1
            gap = at
    keys[gap] = 0
