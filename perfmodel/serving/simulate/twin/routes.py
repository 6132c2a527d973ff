"""The choice of a replica for a request."""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.serving.simulate.draws import draw
from perfmodel.serving.simulate.fleet import UNEVEN_BY, UNEVEN_TIMES, Routing
from perfmodel.serving.simulate.twin.replica import Replica
from perfmodel.serving.simulate.twin.request import Call


class Router:
    """One routing policy with what it remembers; ``stream`` tells routers' draws apart."""

    def __init__(self, policy: Routing, seed: int, stream: int, sessions: list[int] | None) -> None:
        self.policy, self.seed, self.stream, self.sessions = policy, seed, stream, sessions
        self.turns: dict[int, int] = {}  # of round robin, by pool
        self.draws = 0
        self.homes: dict[int, int] = {}  # replica of each session

    def choose(self, call: Call, pool: int, ready: Sequence[Replica]) -> Replica:
        """One of the ready replicas, which are in the order of their indices."""
        policy = self.policy
        if policy == Routing.LEAST_OUTSTANDING:
            return least(*ready)
        if policy == Routing.ROUND_ROBIN:
            turn = self.turns.get(pool, 0)
            self.turns[pool] = turn + 1
            return ready[turn % len(ready)]
        if policy == Routing.RANDOM:
            return ready[int(self.uniform() * len(ready))]
        if policy == Routing.POWER_OF_TWO:
            picks = sorted(int(self.uniform() * len(ready)) for _ in range(2))
            return least(ready[picks[0]], ready[picks[1]])
        if policy == Routing.LEAST_KV:
            return min(ready, key=lambda r: r.prompts / (r.engine.blocks * r.engine.block_size))
        if policy == Routing.PREFIX_AWARE:
            return self.by_prefix(call, ready)
        if policy == Routing.SESSION and self.sessions is not None:
            session = self.sessions[call.index]
            home = self.homes.get(session, -1)
            chosen = next((r for r in ready if r.index == home), None) or least(*ready)
            self.homes[session] = chosen.index
            return chosen
        if policy == Routing.COST_AWARE:
            open_ = [r for r in ready if r.outstanding < r.engine.max_num_seqs]
            if open_:
                return min(open_, key=lambda r: (r.spec.price, r.outstanding))
            return min(ready, key=lambda r: r.outstanding / r.engine.max_num_seqs)
        if policy == Routing.ADAPTER and call.adapter >= 0:
            holders = [
                r
                for r in ready
                if r.adapters.has(call.adapter) and r.outstanding < r.engine.max_num_seqs
            ]
            return least(*(holders or ready))
        return least(*ready)

    def by_prefix(self, call: Call, ready: Sequence[Replica]) -> Replica:
        """The longest cached prefix, unless the load is uneven."""
        fewest = min(r.outstanding for r in ready)
        most = max(r.outstanding for r in ready)
        if most - fewest > UNEVEN_BY and most > UNEVEN_TIMES * fewest:
            return least(*ready)
        goal = call.prompt + call.generated
        return min(ready, key=lambda r: (-r.cache.match(call, goal), r.outstanding))

    def uniform(self) -> float:
        """The next draw."""
        self.draws += 1
        return draw(self.seed, self.stream, self.draws)


def least(*replicas: Replica) -> Replica:
    """The one with the fewest outstanding requests, the first of equals."""
    return min(replicas, key=lambda replica: replica.outstanding)
