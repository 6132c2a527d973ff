"""Who asks: tenants with shares, priorities and limits, and LoRA adapters by popularity.

Functions from `Requests` to `Requests` with more columns. All requests of a task, or of a session
where there are no tasks, belong to one tenant and use one adapter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from perfmodel.core.errors import UsageError
from perfmodel.serving import arrivals
from perfmodel.serving.arrivals import Process
from perfmodel.serving.lengths import LengthLaw
from perfmodel.serving.requests import Counts, Requests, Times
from perfmodel.serving.workload import generate


@dataclass(frozen=True, slots=True)
class Tenant:
    """A class of service.

    Parameters
    ----------
    name : str
    share : float
        Of the requests; shares are relative to their sum.
    priority : int
        Smaller is served first.
    ttft, tpot, e2el : float, optional
        Limits that the tenant was promised [s].
    prompt, output : LengthLaw, optional
        The tenant's own lengths, for `mix`.
    """

    name: str
    share: float = 1.0
    priority: int = 0
    ttft: float | None = None
    tpot: float | None = None
    e2el: float | None = None
    prompt: LengthLaw | None = None
    output: LengthLaw | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1e9:
            raise UsageError(f"tenant {self.name!r}: share is {self.share:g}; more than 0")
        for name in ("ttft", "tpot", "e2el"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < 1e9:
                raise UsageError(
                    f"tenant {self.name!r}: {name} is limited to {limit:g} s; more than 0"
                )


def assign(requests: Requests, tenants: Sequence[Tenant], seed: int = 0) -> Requests:
    """Requests with ``tenant``, the place in ``tenants``, and ``priority``.

    Raises
    ------
    UsageError
        No tenants, two of one name, one with lengths of its own.

    Examples
    --------
    >>> from perfmodel.serving.lengths import Fixed
    >>> plain = generate(Fixed(100), Fixed(10), 100_000, 5.0)
    >>> both = assign(plain, (Tenant("paid", share=1), Tenant("free", share=3, priority=1)))
    >>> bool(np.all(both.tenant == both.priority)), round(float(both.tenant.mean()), 2)
    (True, 0.75)
    """
    for tenant in tenants:
        if tenant.prompt or tenant.output:
            raise UsageError(
                f"tenant {tenant.name!r} has lengths of its own: mix them instead of assigning"
            )
    return _assigned(requests, tenants, _generator(seed, "tenants"))


def mix(
    tenants: Sequence[Tenant],
    prompt: LengthLaw,
    output: LengthLaw,
    count: int,
    rate: float,
    *,
    process: Process = arrivals.poisson,
    seed: int = 0,
) -> Requests:
    """Draw a workload of several tenants.

    Parameters
    ----------
    tenants : sequence of Tenant
    prompt, output : LengthLaw
        Of tenants that have no laws of their own.
    count : int
        Requests of all tenants together.
    rate : float
        Mean rate of all together [1/s].
    process : Process
    seed : int
        Equal seeds give equal bits; a tenant's law leaves the others' draws as they were.

    Raises
    ------
    UsageError
        No tenants, two of one name; else as `generate`.

    Examples
    --------
    >>> from perfmodel.serving.lengths import Fixed
    >>> tenants = (Tenant("chat"), Tenant("batch", prompt=Fixed(4000)))
    >>> requests = mix(tenants, Fixed(100), Fixed(10), 1000, 5.0)
    >>> np.unique(requests.prompt[requests.tenant == 1]).tolist()
    [4000]
    """
    drawn = generate(prompt, output, count, rate, process=process, seed=seed)
    requests = _assigned(drawn, tenants, _generator(seed, "tenants"))
    lengths = {"prompt": requests.prompt.copy(), "output": requests.output.copy()}
    assert requests.tenant is not None
    for place, tenant in enumerate(tenants):
        who = np.flatnonzero(requests.tenant == place)
        for name, law in (("prompt", tenant.prompt), ("output", tenant.output)):
            if law:
                lengths[name][who] = law.sample(
                    len(who), _generator(seed, f"{name} of {tenant.name}")
                )
    return dataclasses.replace(requests, **lengths)


def adapters(
    requests: Requests, count: int, skew: float = 1.0, base_share: float = 0.0, seed: int = 0
) -> Requests:
    """Requests with ``adapter``, drawn from a power law.

    Adapter i, from 0, is used in proportion to ``(i + 1)**-skew``. (S-LoRA's generator, arXiv
    2311.03285, ``benchmarks/trace.py``, draws ``count * u**(1 / alpha)`` for uniform u, a density
    of power alpha - 1: for many adapters ``skew = 1 - alpha``, and its usual alpha of 1 is no skew
    at all.)

    Keys and values depend on the adapter, so prompts that share blocks no longer do where adapters
    differ.

    Parameters
    ----------
    requests : Requests
    count : int
        Adapters.
    skew : float
        0: all equally popular; 1: Zipf's law.
    base_share : float
        Share of the requests (tasks, sessions) that use the base model, -1.
    seed : int

    Raises
    ------
    UsageError
        No adapters, a skew that is not from 0 to 10, a share outside 0 to 1.

    Examples
    --------
    >>> from perfmodel.serving.lengths import Fixed
    >>> plain = generate(Fixed(100), Fixed(10), 60_000, 5.0)
    >>> used = np.bincount(adapters(plain, 2, skew=1.0).adapter)
    >>> round(float(used[0] / used[1]), 1)
    2.0
    """
    if count < 1:
        raise UsageError(f"{count} adapters; at least 1")
    if not 0 <= skew <= 10:
        raise UsageError(f"a skew of {skew:g}; from 0 (all alike) to 10")
    if not 0 <= base_share <= 1:
        raise UsageError(f"base_share is {base_share:g}; between 0 and 1")
    group, groups = _groups(requests)
    popularity = np.power(np.arange(1.0, count + 1), -skew)
    chosen = _choose(popularity, groups, _generator(seed, "adapters"))
    chosen[_generator(seed, "base model").random(groups) < base_share] = -1
    adapter = chosen[group]
    blocks = requests.hash_ids
    if blocks is not None:
        start, ids = blocks
        _, dense = np.unique(ids, return_inverse=True)
        whose = np.repeat(adapter + 1, np.diff(start))
        _, apart = np.unique(whose * len(ids) + dense, return_inverse=True)
        blocks = (start, apart)
    return dataclasses.replace(requests, adapter=adapter, hash_ids=blocks)


def _assigned(requests: Requests, tenants: Sequence[Tenant], rng: Generator) -> Requests:
    if not tenants:
        raise UsageError("there are no tenants")
    names = [tenant.name for tenant in tenants]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two tenants are called {name!r}")
    group, groups = _groups(requests)
    tenant = _choose(np.array([tenant.share for tenant in tenants]), groups, rng)[group]
    priority = np.array([tenant.priority for tenant in tenants])[tenant]
    return dataclasses.replace(requests, tenant=tenant, priority=priority)


def _groups(requests: Requests) -> tuple[Counts, int]:
    """For each request the group of those that belong together, from 0; how many there are."""
    together = requests.session if requests.task is None else requests.task
    if together is None:
        return np.arange(len(requests)), len(requests)
    values, group = np.unique(together, return_inverse=True)
    return group, len(values)


def _choose(weights: Times, count: int, rng: Generator) -> Counts:
    """Places in ``weights``, in proportion to them."""
    upper = np.cumsum(weights)
    drawn = rng.random(count) * float(upper[-1])
    places: Counts = np.searchsorted(upper, drawn, side="right")
    return np.minimum(places, len(weights) - 1)


def _generator(seed: int, what: str) -> Generator:
    if seed < 0:
        raise UsageError(f"a seed of {seed}; 0 or more")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(what.encode())))
