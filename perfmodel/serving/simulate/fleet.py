"""What serves: replicas, how requests find them, and what happens to them.

Plain data for the twin and the core. Moves of KV cache cost a latency and a time per token; changes
of a replica's state come from a list made before the run or from the scaler.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from perfmodel.core.errors import UsageError, near
from perfmodel.serving.simulate.policy import Engine
from perfmodel.serving.simulate.surface import Surface


class Role(IntEnum):
    """What a replica does: whole requests, prompts only, or the decoding after them."""

    BOTH = 0
    PREFILL = 1
    DECODE = 2


class State(IntEnum):
    """Whether a replica serves; only a ready one is given requests."""

    READY = 0
    DRAINING = 1
    OFF = 2
    STARTING = 3
    FAILED = 4


class Routing(IntEnum):
    """How a request is given to one of the ready replicas; ties go to the lowest index.

    ``LEAST_KV`` counts the prompts a replica has been given and not finished, per token of its
    cache; ``PREFIX_AWARE`` takes the longest cached prefix unless the load is uneven (SGLang's
    router: Zheng et al., arXiv 2312.07104); ``SESSION`` stays where the session's first request
    went; ``COST_AWARE`` takes the cheapest replica with a free place; ``ADAPTER`` prefers one that
    holds the request's adapter (Sheng et al., S-LoRA, arXiv 2311.03285).
    """

    ROUND_ROBIN = 0
    RANDOM = 1
    LEAST_OUTSTANDING = 2
    LEAST_KV = 3
    POWER_OF_TWO = 4
    PREFIX_AWARE = 5
    SESSION = 6
    COST_AWARE = 7
    ADAPTER = 8


# The load is uneven if the most outstanding requests exceed the fewest by so many and by so much.
UNEVEN_BY: Final = 32
UNEVEN_TIMES: Final = 1.5
# Stages of a migration before the request is stopped for the last one.
MOST_STAGES: Final = 8


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine of the cluster.

    Parameters
    ----------
    engine : Engine
    surface : int
        Which of the cluster's step-time surfaces is its own.
    pool : int
        Which model it serves.
    role : Role
    state : State
        At the start: ready or off.
    price : float
        Rent [USD/s].
    """

    engine: Engine
    surface: int = 0
    pool: int = 0
    role: Role = Role.BOTH
    state: State = State.READY
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """Copies of KV cache between replicas; one at a time leaves each of them.

    Parameters
    ----------
    latency : float
        [s].
    per_token : float
        Time of one token's keys and values [s].
    """

    latency: float = 0.0
    per_token: float = 0.0


@dataclass(frozen=True, slots=True)
class Migration:
    """Llumnix: running requests move from full replicas to empty ones (arXiv 2406.03243).

    A replica's freeness is its free blocks, less those its first waiting request wants, per running
    request. Every ``interval`` the least free below ``low`` are paired with the most free above
    ``high``; the shortest decoding request of the lowest priority moves, its cache copied in stages
    while it goes on, and only the last stage stops it.
    """

    interval: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scaler:
    """Starts and drains replicas by the outstanding requests per replica.

    Parameters
    ----------
    interval : float
        Between decisions; each starts or drains at most one replica of each pool [s].
    low, high : float
        Outstanding requests per replica below which one is drained, above which one is started.
    least : int
        Replicas of each pool that stay.
    start_time : float
        From the decision until the replica is ready [s].
    """

    interval: float
    low: float
    high: float
    least: int = 1
    start_time: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """A planned change: at ``time``, ``replica`` becomes ``state``.

    Draining ends in off; failed loses all its requests' caches, and they go elsewhere; ready also
    ends a failure.
    """

    time: float
    replica: int
    state: State


@dataclass(frozen=True, slots=True)
class HostStage:
    """Work of the host with a queue of its own: tokenise, decode images, build masks.

    Parameters
    ----------
    servers : int
        Requests served at once, first come first served.
    base, per_token : float
        Time of a request: base and per prompt token [s].
    after : bool
        Whether it follows the last token (detokenise, decode a picture) or precedes the first.
    """

    servers: int
    base: float
    per_token: float = 0.0
    after: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """Replicas and the rules that hold between them.

    ``decode_routing`` gives requests that arrive with their cache (after a prefill elsewhere) to
    replicas that decode.
    """

    surfaces: tuple[Surface, ...]
    replicas: tuple[Replica, ...]
    routing: Routing = Routing.LEAST_OUTSTANDING
    decode_routing: Routing = Routing.LEAST_OUTSTANDING
    link: Link = field(default_factory=Link)
    migration: Migration | None = None
    scaler: Scaler | None = None
    changes: tuple[Change, ...] = ()
    stages: tuple[HostStage, ...] = ()
    seed: int = 0

    @property
    def pools(self) -> int:
        """Models served."""
        return max(replica.pool for replica in self.replicas) + 1


def routing_name(routing: Routing) -> str:
    """Name of a routing policy on the command line.

    >>> routing_name(Routing.LEAST_KV)
    'least-kv'
    """
    return routing.name.lower().replace("_", "-")


def routing(name: str) -> Routing:
    """Look a routing policy up by its name on the command line (``least-outstanding``).

    Raises
    ------
    UsageError
        There is none of that name.
    """
    names = {routing_name(each): each for each in Routing}
    if name not in names:
        known = ", ".join(names)
        raise UsageError(f"no routing named {name!r}{near(name, names)} (there are {known})")
    return names[name]
