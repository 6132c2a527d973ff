"""Cache blocks of a replica: how many are free, and which hold content that others can share.

Content has ids, one for every ``span`` blocks of a prompt and of the answer to it. A prompt's block
is shared from the step that computes it on, an answer's from its end; blocks that nobody holds
stay, the least recently released are given up first.
"""

from __future__ import annotations

from collections import OrderedDict

from perfmodel.serving.simulate.twin.request import Call


class Cache:
    """Blocks of one replica; idle ones count as free."""

    def __init__(self, blocks: int, size: int, hash_block: int, shared: bool) -> None:
        self.blocks, self.size, self.shared = blocks, size, shared
        self.hash_block, self.span = hash_block, hash_block // size
        self.free = blocks
        self.holders: dict[int, int] = {}  # content in use
        self.idle: OrderedDict[int, None] = OrderedDict()  # content nobody holds, oldest first
        self.evicted = 0

    @property
    def used(self) -> int:
        """Blocks in use."""
        return self.blocks - self.free

    def blocks_of(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.size)

    def match(self, call: Call, goal: int) -> int:
        """Leading pieces of content that are here; at least one token remains to be computed."""
        found = 0
        if self.shared:
            for content in call.content[: (goal - 1) // self.hash_block]:
                if content not in self.holders and content not in self.idle:
                    break
                found += 1
        return found

    def idle_blocks(self, call: Call, found: int) -> int:
        """Blocks of the first ``found`` pieces that taking them would make busy."""
        return self.span * sum(content in self.idle for content in call.content[:found])

    def take_found(self, call: Call, found: int) -> None:
        """Hold the first ``found`` pieces."""
        for content in call.content[:found]:
            if content in self.idle:
                del self.idle[content]
                self.free -= self.span
                self.holders[content] = 0
            self.holders[content] += 1
            call.shares.append(True)
        call.blocks = found * self.span

    def allocate(self, call: Call, tokens: int) -> None:
        """Blocks so that ``tokens`` tokens of a call are cached."""
        more = self.blocks_of(tokens) - call.blocks
        call.blocks += more
        self.free -= more

    def share(self, call: Call, tokens: int) -> None:
        """Let others find the call's whole pieces among its first ``tokens`` tokens."""
        if self.shared:
            for content in call.content[len(call.shares) : tokens // self.hash_block]:
                new = content not in self.holders and content not in self.idle
                if new:
                    self.holders[content] = 1
                call.shares.append(new)

    def release(self, call: Call) -> None:
        """Give all blocks back; the last piece of content is the first to be given up.

        What the call has generated can be found from now on.
        """
        self.share(call, call.cached)
        kept = 0
        for place in reversed(range(len(call.shares))):
            if call.shares[place]:
                kept += 1
                content = call.content[place]
                self.holders[content] -= 1
                if not self.holders[content]:
                    del self.holders[content]
                    self.idle[content] = None
                    self.free += self.span
        self.free += call.blocks - kept * self.span
        call.blocks = 0
        call.shares.clear()

    def evict(self) -> None:
        """Give up idle content for the blocks in use."""
        while len(self.idle) * self.span > self.free:
            self.idle.popitem(last=False)
            self.evicted += self.span

    def clear(self) -> None:
        """Lose everything."""
        self.free = self.blocks
        self.holders.clear()
        self.idle.clear()


class Adapters:
    """LoRA adapters in device memory; those of running requests stay."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.users: dict[int, int] = {}
        self.idle: OrderedDict[int, None] = OrderedDict()
        self.loads = 0

    def admits(self, call: Call) -> bool:
        """Whether the call's adapter is here or can be."""
        if not self.slots or call.adapter < 0 or call.adapter in self.users:
            return True
        return call.adapter in self.idle or len(self.users) < self.slots

    def hold(self, call: Call) -> bool:
        """Keep the call's adapter; whether it had to be loaded."""
        if not self.slots or call.adapter < 0:
            return False
        loads = call.adapter not in self.users and call.adapter not in self.idle
        if loads and len(self.users) + len(self.idle) == self.slots:
            self.idle.popitem(last=False)
        self.idle.pop(call.adapter, None)
        self.users[call.adapter] = self.users.get(call.adapter, 0) + 1
        self.loads += loads
        return loads

    def drop(self, call: Call) -> None:
        """No longer need the call's adapter."""
        if self.slots and call.adapter >= 0:
            self.users[call.adapter] -= 1
            if not self.users[call.adapter]:
                del self.users[call.adapter]
                self.idle[call.adapter] = None

    def has(self, adapter: int) -> bool:
        """Whether an adapter is in device memory."""
        return adapter in self.users or adapter in self.idle

    def clear(self) -> None:
        """Lose everything."""
        self.users.clear()
        self.idle.clear()
