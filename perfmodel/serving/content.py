"""Which prompts begin alike: block ids of prompts that are built from pieces of text.

Prompts form a tree: a node is a piece of text behind all that comes before it, and owns the blocks
that end in it. Two prompts share a block exactly if they share all text up to its end. Nothing is
hashed, so no two ids are equal by accident, and ids count from 0 without gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.core.errors import UsageError
from perfmodel.serving.ragged import Ragged, find, starts
from perfmodel.serving.requests import Counts

# Block ids of all requests together; 1.6 GB.
MOST_BLOCKS = 200_000_000
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class _Seen:
    """A piece of text where it has been read: by which tasks, behind what, and as which node."""

    tasks: Counts
    parent: Counts
    piece: Counts
    node: Counts


class Contexts:
    """The tree, grown piece by piece for many tasks at once. Node 0 is the empty prompt.

    All array arguments have one entry per task.

    Parameters
    ----------
    block : int
        Tokens per block.

    Examples
    --------
    >>> one, two = np.array([0]), np.array([0, 1])
    >>> tree = Contexts(16)
    >>> system = tree.common("system", two, np.zeros(2, int), np.zeros(2, int), 40)
    >>> asked = tree.new(system, np.array([40, 40]), np.array([10, 20]))
    >>> [x.tolist() for x in tree.blocks(asked, np.array([50, 60]))]
    [[0, 4, 8], [0, 1, 2, 4, 0, 1, 3, 5]]
    """

    def __init__(self, block: int) -> None:
        if block < 1:
            raise UsageError(f"blocks of {block} tokens; at least 1")
        self._block = block
        self._parents, self._ends = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        self._starts = [np.zeros(1, np.int64)]
        self._count = 1
        self._common: dict[tuple[str, int], int] = {}
        self._seen: dict[str, list[_Seen]] = {}

    def new(self, parent: Counts, start: Counts, length: Counts) -> Counts:
        """Nodes of text that nothing else contains, which begins at token ``start``."""
        self._parents.append(parent)
        self._starts.append(start)
        self._ends.append(start + length)
        first, self._count = self._count, self._count + len(parent)
        return np.arange(first, self._count)

    def common(
        self, name: str, tasks: Counts, parent: Counts, start: Counts, tokens: int
    ) -> Counts:
        """Nodes of text that is the same in all tasks."""
        node = np.full(len(tasks), -1)
        for before in {0, *self._common.values()}:
            here = np.flatnonzero(parent == before)
            if len(here):
                if (name, before) not in self._common:
                    one = here[:1]
                    made = self.new(parent[one], start[one], np.array([tokens]))
                    self._common[name, before] = int(made[0])
                node[here] = self._common[name, before]
        rest = node < 0
        if rest.any():
            count = int(rest.sum())
            node[rest] = self.piece(
                f"common {name}", tasks[rest], parent[rest], start[rest],
                np.full(count, tokens), np.zeros(count, np.int64),
            )  # fmt: skip
        return node

    def piece(
        self, kind: str, tasks: Counts, parent: Counts, start: Counts, length: Counts,
        piece: Counts,
    ) -> Counts:  # fmt: skip
        """Nodes of text that other prompts of the task may contain: piece ``piece`` of a kind.

        Text of no length leaves the prompt as it is.
        """
        node = np.where(length > 0, -1, parent)
        seen = self._seen.setdefault(kind, [])
        for old in seen:
            at = find(old.tasks, tasks)
            same = np.flatnonzero((at >= 0) & (node < 0))
            there = at[same]
            equal = (old.parent[there] == parent[same]) & (old.piece[there] == piece[same])
            node[same[equal]] = old.node[there[equal]]
        made = np.flatnonzero(node < 0)
        if len(made):
            node[made] = self.new(parent[made], start[made], length[made])
            seen.append(_Seen(tasks[made], parent[made], piece[made], node[made]))
        return node

    def blocks(self, node: Counts, length: Counts) -> Ragged:
        """Block ids of texts that end at these nodes, as ``Requests.hash_ids``.

        A block that the text does not fill is its own alone.

        Raises
        ------
        UsageError
            Too many.
        """
        total = float((-(-length // self._block)).sum(dtype=np.float64))
        if total > MOST_BLOCKS:
            raise UsageError(
                f"prompts of {total:.3g} blocks of {self._block} tokens; at most "
                f"{MOST_BLOCKS:.0e}: fewer tasks or larger blocks"
            )
        start = starts(-(-length // self._block))
        parent, full = np.concatenate(self._parents), length % self._block == 0
        first = np.concatenate(self._starts) // self._block
        owned = np.concatenate(self._ends) // self._block - first
        base = np.cumsum(owned) - owned
        final = base + owned - 1
        # Nearest piece above that owns blocks.
        up = parent.copy()
        while len(bare := np.flatnonzero((up > 0) & (owned[up] == 0))):
            up[bare] = parent[up[bare]]
        deepest = np.where(owned[node] > 0, node, up[node])
        partial = int(owned.sum()) + np.cumsum(~full) - 1
        # Ids rise by one from block to block, except from piece to piece and row to row: write
        # these rises, and sum.
        ids = np.ones(int(start[-1]), np.int64)
        rise = base - np.where(up > 0, final[up], 0)
        for low in range(0, len(node), _CHUNK):
            at, row = deepest[low : low + _CHUNK], start[low : low + _CHUNK]
            while len(on := np.flatnonzero(at)):
                at, row = at[on], row[on]
                ids[row + first[at]] = rise[at]
                at = up[at]
        last = np.where(deepest > 0, final[deepest], 0)
        ids[start[1:][~full] - 1] = (partial - last)[~full]
        ids[start[1:-1]] -= np.where(full, last, partial)[:-1]
        return start, np.cumsum(ids, out=ids)
