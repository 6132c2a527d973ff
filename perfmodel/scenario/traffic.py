"""`Traffic`: what is asked of a deployment in a simulation, in the words of the command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from perfmodel.core.errors import UsageError
from perfmodel.serving import lengths, workload
from perfmodel.serving import tenants as known
from perfmodel.serving.denoise import LOOPS
from perfmodel.serving.requests import Requests
from perfmodel.serving.spec import arguments, spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Where requests come from: drawn from laws, unrolled from a call graph, or read from a trace.

    Parameters
    ----------
    isl : str
        Prompt tokens: a number, ``uniform(800, 1000)``, ``lognormal(median=600, sigma=1.2)``,
        ``file.csv:column`` and other forms of `perfmodel.serving.lengths`.
    osl : str
        Output tokens, as ``isl``.
    thinking : str, optional
        Hidden tokens before the output, as ``osl``.
    workload : str, optional
        Lengths of a kind of use in place of those laws: chat, summarise, code, reasoning; or a
        denoising loop: sdxl, sdxl-lightning.
    graph : str, optional
        Calls of a task in place of single requests: ``best_of_n(n=8)``, ``cascade``, ``chat``,
        ``rag``, ``react_agent``, ``text_to_sql``.
    trace : str, optional
        File of a recorded workload.
    trace_format : str, optional
        azure, burstgpt, mooncake, sharegpt or plain; default: what the file looks like.
    num_requests : int, optional
        Requests, or tasks of a graph; of a trace the first so many (default: all).
    arrivals : str
        How arrivals scatter about the rate: poisson, deterministic, ``gamma(burstiness=0.5)``,
        on_off, diurnal, at_once; a trace keeps its own times unless a rate is given.
    shared_prefix : str, optional
        Prompts that begin alike: ``tokens=1000, groups=4, share=0.8``.
    adapters : str, optional
        LoRA adapters by Zipf's law: ``count=100, skew=1, base=0.1``.
    tenants : tuple of str
        Classes of service: ``paid(share=0.2, priority=0, ttft=500, tpot=50)``, limits in ms.
    seed : int
        Equal seeds give equal requests.
    """

    isl: str = "1024"
    osl: str = "256"
    thinking: str | None = None
    workload: str | None = None
    graph: str | None = None
    trace: str | None = None
    trace_format: str | None = None
    num_requests: int | None = None
    arrivals: str = "poisson"
    shared_prefix: str | None = None
    adapters: str | None = None
    tenants: tuple[str, ...] = ()
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What was asked, defaults included, what plays no role left out."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        if self.workload or self.graph or self.trace:
            del plain["isl"], plain["osl"]
        plain["tenants"] = list(self.tenants)
        return {name: value for name, value in plain.items() if value not in (None, [])}


DEFAULT_COUNT: Final = 1000


def draw(traffic: Traffic, rate: float | None, pools: Sequence[str] = ()) -> Requests:
    """The requests.

    Parameters
    ----------
    traffic : Traffic
    rate : float, optional
        Mean rate [1/s]; None in a closed loop, where arrival times play no role, and for the times
        of a trace.
    pools : sequence of str
        Names of the models that a call graph may ask; none: one model answers all calls.

    Raises
    ------
    UsageError
        Sources that exclude one another, laws or names that are none.
    perfmodel.core.errors.DataError
        A trace that cannot be read.
    """
    named = [n for n in ("workload", "graph", "trace") if getattr(traffic, n) is not None]
    if len(named) > 1:
        raise UsageError(f"give one of {' and '.join('--' + name for name in named)}")
    if traffic.num_requests is not None and traffic.num_requests < 1:
        raise UsageError(f"--num-requests {traffic.num_requests} must be at least 1")
    if traffic.shared_prefix is not None and (traffic.graph or traffic.trace):
        raise UsageError("--shared-prefix is for drawn prompts: a graph or a trace has its own")
    if traffic.trace is not None:
        requests = _read(traffic, rate)
    elif traffic.graph is not None:
        requests = _unroll(traffic, rate, pools)
    else:
        requests = _generate(traffic, rate)
    classes = tenants(traffic)
    if classes:
        requests = known.assign(requests, classes, traffic.seed)
    if traffic.adapters is not None:
        _, given = spec(f"adapters({traffic.adapters})")
        asked = arguments(traffic.adapters, _popularity, given)
        requests = known.adapters(requests, *_popularity(**asked), traffic.seed)
    return requests


def tenants(traffic: Traffic) -> tuple[known.Tenant, ...]:
    """The classes of service.

    Examples
    --------
    >>> tenants(Traffic(tenants=("paid(share=0.2, ttft=500)",)))[0].ttft
    0.5
    """
    return tuple(_tenant(text) for text in traffic.tenants)


def _tenant(text: str) -> known.Tenant:
    name, given = spec(text)
    found = arguments(text, _service, given)
    return known.Tenant(name, **_service(**found))  # pyright: ignore[reportArgumentType]


def _service(
    share: float = 1.0, priority: float = 0, ttft: float = math.inf, tpot: float = math.inf,
    e2el: float = math.inf,
) -> dict[str, float | int | None]:  # fmt: skip
    limits = {"ttft": ttft, "tpot": tpot, "e2el": e2el}
    return {"share": share, "priority": int(priority)} | {
        name: None if math.isinf(limit) else limit / 1e3 for name, limit in limits.items()
    }


def _popularity(count: float, skew: float = 1.0, base: float = 0.0) -> tuple[int, float, float]:
    return int(count), skew, base


def models(traffic: Traffic) -> tuple[str, ...]:
    """Names of the models that a call graph asks; none without a graph.

    Examples
    --------
    >>> models(Traffic(graph="rag"))
    ('embedding', 'reranker', 'llm')
    """
    from perfmodel.serving.graph import parse_graph

    return () if traffic.graph is None else parse_graph(traffic.graph).pools


def passes(traffic: Traffic) -> int:
    """Evaluations of a diffusion model per denoising step."""
    loop = None if traffic.workload is None else LOOPS.get(traffic.workload)
    return 1 if loop is None else loop.passes


def _generate(traffic: Traffic, rate: float | None) -> Requests:
    thinking = None if traffic.thinking is None else lengths.parse(traffic.thinking)
    if traffic.workload is None:
        prompt, output = lengths.parse(traffic.isl), lengths.parse(traffic.osl)
    elif traffic.workload in LOOPS:
        prompt, output = lengths.Fixed(1), LOOPS[traffic.workload].steps
    else:
        use = workload.preset(traffic.workload)
        prompt, output, thinking = use.prompt, use.output, thinking or use.hidden
    prefix = None
    if traffic.shared_prefix is not None:
        _, given = spec(f"prefix({traffic.shared_prefix})")
        made = arguments(traffic.shared_prefix, workload.SharedPrefix, given)
        whole = {name: int(made[name]) for name in ("tokens", "groups", "block") if name in made}
        prefix = workload.SharedPrefix(**(made | whole))  # pyright: ignore[reportArgumentType]
    return workload.generate(
        prompt, output, traffic.num_requests or DEFAULT_COUNT, 1.0 if rate is None else rate,
        process=workload.parse_arrivals(traffic.arrivals), hidden=thinking, prefix=prefix,
        seed=traffic.seed,
    )  # fmt: skip


def _read(traffic: Traffic, rate: float | None) -> Requests:
    from perfmodel.serving import traces

    assert traffic.trace is not None
    found = traces.read(traffic.trace, traffic.trace_format, limit=traffic.num_requests)
    if rate is None:
        return found.requests
    process = workload.parse_arrivals(traffic.arrivals)
    return workload.rearrive(found.requests, rate, process, traffic.seed)


def _unroll(traffic: Traffic, rate: float | None, pools: Sequence[str]) -> Requests:
    from perfmodel.serving.graph import parse_graph
    from perfmodel.serving.unroll import unroll

    assert traffic.graph is not None
    requests = unroll(
        parse_graph(traffic.graph), traffic.num_requests or DEFAULT_COUNT,
        1.0 if rate is None else rate, process=workload.parse_arrivals(traffic.arrivals),
        seed=traffic.seed, pools=pools or None,
    )  # fmt: skip
    return requests if pools else dataclasses.replace(requests, pool=None)
