"""A request in flight, and the clock that orders events."""

from __future__ import annotations

from dataclasses import dataclass, field

NEVER = 1 << 62  # a tick


def tick(time: float) -> int:
    """Time in whole nanoseconds, for comparisons between replicas."""
    return int(time * 1e9 + 0.5)


@dataclass(slots=True, eq=False)
class Call:
    """A request that the cluster holds.

    Its prompt is complete once ``goal`` tokens are cached; while it decodes, its tokens are counted
    by the replica's decode steps: ``offset`` plus those steps is what it has generated.

    Attributes
    ----------
    generated : int
        Tokens so far, while it does not decode.
    offset : int
        Tokens less the replica's decode steps, while it decodes.
    base, cached : int
        Tokens in the cache at admission and now, while it is in its prompt.
    blocks : int
        Cache blocks it holds, shared ones included.
    shares : list of bool
        For each leading block of content it has computed or found, whether it is shared.
    last : float
        Time of its latest token [s].
    began : int
        Number of its admission: running requests in order.
    home : int
        Replica it is on, -1 without.
    state : str
        ``waiting``, ``prompt``, ``decode``, ``landed`` (waits with its cache), ``moving`` (its
        cache is on the way) or ``done``.
    target : int
        Replica it migrates to, -1 without; ``leaving`` at the end of the step under way.
    trip : int
        Number of its latest move, by which an event knows whether it is out of date.
    """

    index: int
    prompt: int
    output: int
    hidden: int
    level: int
    tenant: int
    adapter: int
    content: list[int]
    generated: int = 0
    offset: int = 0
    goal: int = 0
    base: int = 0
    cached: int = 0
    blocks: int = 0
    shares: list[bool] = field(default_factory=list[bool])
    last: float = 0.0
    began: int = 0
    home: int = -1
    state: str = "waiting"
    swapped: bool = False
    target: int = -1
    stages: int = 0
    copied: int = 0
    leaving: bool = False
    trip: int = 0
