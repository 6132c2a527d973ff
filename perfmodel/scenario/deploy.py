"""From a question to a plan, and from a plan and its requests to a cluster.

Systems are looked up, step times tabulated, caches sized for what is asked.

A replica with data or pipeline parallelism runs several batches at once (see
`perfmodel.serving.engine`); each is a lane, which the simulator treats as a replica of its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

import hwdb
from hwdb.citation import UnknownValue
from perfmodel.core.errors import DataError, InfeasibleError, MissingDataError, UsageError
from perfmodel.core.types import Reason, TokenGroup
from perfmodel.memory.fit import sequence_bytes, weight_bytes
from perfmodel.models.architecture import Architecture
from perfmodel.scenario.cluster_file import read
from perfmodel.scenario.estimate import system_of
from perfmodel.scenario.resolve import Resolved, resolve
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.serving import Group, Plan, Scaling, Serving, group
from perfmodel.scenario.verdict import deployment_memory, is_single_pass, judge, replicas
from perfmodel.serving.engine import System
from perfmodel.serving.requests import Requests, Times
from perfmodel.serving.simulate import cache_blocks, surface_for
from perfmodel.serving.simulate.check import check_length
from perfmodel.serving.simulate.fleet import Change, Cluster, Link, Replica, Role, Scaler, State
from perfmodel.serving.simulate.fleet import routing as routing_of
from perfmodel.serving.simulate.policy import Engine, Speculation, policy
from perfmodel.serving.simulate.surface import Surface
from perfmodel.serving.simulate.work import Work
from perfmodel.serving.speculation import best_lengths
from perfmodel.step.step import run_step
from perfmodel.time.network import achieved_link

_ADAPTED = ("attention", "mixer", "ffn")  # weights that LoRA adapts


@dataclass(frozen=True, slots=True)
class Part:
    """A group of the plan, looked up: one lane of it is ``system``."""

    group: Group
    resolved: Resolved
    system: System
    lanes: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """A cluster, and what each of its surfaces stands for.

    ``passes`` are evaluations of a diffusion model per denoising step.
    """

    cluster: Cluster
    parts: tuple[Part, ...]
    passes: int = 1

    def works(self) -> list[Work]:
        """What steps of each surface compute and move, for utilisation and energy."""
        pairs = zip(self.parts, self.cluster.surfaces, strict=True)
        return [Work.of(part.system, surface, self.passes) for part, surface in pairs]

    @property
    def gpus(self) -> int:
        """GPUs of all replicas, spare ones included."""
        return round(
            sum(
                float(part.resolved.layout.gpus) * (part.replicas + part.group.spare)
                for part in self.parts
            )
        )


def plan(scenario: Scenario, serving: Serving) -> Plan:
    """The plan of a question: its cluster file, or replicas of the one layout.

    Raises
    ------
    UsageError
        Numbers or names that cannot be.
    perfmodel.core.errors.DataError
        A cluster file that cannot be read.
    """
    serving.check()
    if serving.cluster is not None:
        return read(serving.cluster, scenario, serving)
    return Plan((group(scenario, serving),), serving.routing)


def deploy(plan: Plan, requests: Requests, passes: int = 1, seed: int = 0) -> Deployment:
    """Make the cluster of a plan, sized for the requests.

    Parameters
    ----------
    plan : Plan
    requests : Requests
    passes : int
        Evaluations of a diffusion model per denoising step.
    seed : int
        Of the routing's draws.

    Raises
    ------
    UsageError
        Names that are unknown, a plan that contradicts itself.
    perfmodel.core.errors.InfeasibleError
        A group that does not fit, a request beyond a group's context.
    perfmodel.core.errors.MissingDataError
        The database lacks a fact that is needed.
    """
    try:
        return _deploy(plan, requests, passes, seed)
    except UnknownValue as error:
        raise MissingDataError(str(error)) from None


def _deploy(plan: Plan, requests: Requests, passes: int, seed: int) -> Deployment:
    parts = tuple(_part(group) for group in plan.groups)
    if not sum(part.replicas + part.group.spare for part in parts):
        raise UsageError("the cluster has no replicas")
    surfaces, made = list[Surface](), list[Replica]()
    lanes_of = list[range]()
    for index, part in enumerate(parts):
        pool = plan.pools.index(part.group.pool)
        asked = _of_pool(requests, pool)
        check_length(_longest(part), asked)
        engine = _engine(part, asked, requests.hash_ids is not None)
        surface = surface_for(part.system, (engine,), asked, passes)
        engine = dataclasses.replace(engine, speculation=_speculation(part, engine, surface, asked))
        surfaces.append(surface)
        rent = part.resolved.price.value or 0.0
        for place in range(part.replicas + part.group.spare):
            lanes_of.append(range(len(made), len(made) + part.lanes))
            state = State.READY if place < part.replicas else State.OFF
            price = rent * float(part.resolved.layout.gpus) / part.lanes
            made += [Replica(engine, index, pool, part.group.role, state, price)] * part.lanes
    return Deployment(
        Cluster(
            tuple(surfaces), tuple(made), routing_of(plan.routing), routing_of(plan.decode_routing),
            _link(plan, parts, requests), plan.migration,
            None if plan.scaling is None else _scaler(plan.scaling, parts),
            tuple(_changes(plan.changes, lanes_of)), plan.stages, seed,
        ),
        parts,
        passes,
    )  # fmt: skip


def _part(group: Group) -> Part:
    # Each request's own length is checked later; the group must fit whatever is asked of it.
    resolved = resolve(dataclasses.replace(group.scenario, isl=1, osl=1, prefix=0))
    memory = deployment_memory(resolved)
    verdict = judge(resolved, memory)
    if not verdict.feasible:
        code = Reason(int(verdict.reason)).name.lower()
        raise InfeasibleError(verdict.message, code, verdict.nearest)
    system = dataclasses.replace(system_of(resolved, memory), replicas=1.0)
    lanes = round(float(resolved.layout.dp) * float(resolved.layout.pp))
    count = group.replicas
    return Part(group, resolved, system, lanes, round(float(replicas(resolved))) if count is None
                else count)  # fmt: skip


def _of_pool(requests: Requests, pool: int) -> Requests:
    """Lengths of the requests that ask a pool; all of them where none does."""
    if requests.pool is None:
        return requests
    mine = requests.pool == pool
    if not mine.any():
        return requests
    return Requests(requests.arrival[mine], requests.prompt[mine], requests.output[mine])


def _longest(part: Part) -> int | None:
    given = part.group.scenario.max_model_len
    return part.system.architecture.context if given is None else int(float(given))


def _engine(part: Part, requests: Requests, shares: bool) -> Engine:
    """Limits and habits; ``shares``: the requests say which blocks they have in common."""
    serving, system = part.group.serving, part.system
    rule = policy(serving.scheduler)
    model = system.architecture
    once = is_single_pass(model)  # no cache that could be shared
    if once and model.graph is None:
        if np.any(requests.output > 1):
            raise UsageError(f"{model.name} reads a text in one pass and generates none: --osl 1")
        # every token sees all others, so that a text cannot be cut
        rule = dataclasses.replace(rule, chunked=False, layered=False)
    size = int(float(part.group.scenario.block_size))
    stages = max(1, round(float(system.layout.pp)))
    adapter = _adapter_bytes(system.architecture, serving.max_lora_rank) / float(system.layout.tp)
    budget = int(float(system.budget))
    return Engine(
        policy=rule,
        budget=budget,
        max_num_seqs=max(1, min(int(float(system.max_num_seqs)), budget, len(requests))),
        block_size=size,
        blocks=cache_blocks(system, requests, size) // stages,
        prefix_cache=shares and not once and serving.enable_prefix_caching is not False,
        swap_time=size * _token_bytes(system, requests) / _host_link(part)
        if serving.preemption_mode == "swap" else None,
        adapters=serving.max_loras,
        adapter_time=adapter / _host_link(part) if serving.max_loras else 0.0,
        adapter_step=adapter / float(system.machine.bandwidth) if serving.max_loras else 0.0,
        finetune=serving.finetune_tokens,
        host_time=serving.mask_us * 1e-6,
        speculation=Speculation(
            serving.acceptance, np.full(1, serving.speculative_tokens), np.zeros(1)
        ) if serving.speculative_tokens else None,
    )  # fmt: skip


def _speculation(
    part: Part, engine: Engine, surface: Surface, requests: Requests
) -> Speculation | None:
    """Draft lengths and times by the number of sequences."""
    serving, most = part.group.serving, part.group.serving.speculative_tokens
    if not most:
        return None
    context = int(np.mean(requests.prompt + requests.output / 2))
    draft = _draft_times(part, engine.max_num_seqs, context)
    lengths = np.full(len(draft), most)
    if serving.adaptive_speculation:
        lengths = best_lengths(surface, draft, serving.acceptance, most, context)
    return Speculation(serving.acceptance, lengths, draft)


def _draft_times(part: Part, most: int, context: int) -> Times:
    """Time of one decode step of the draft model, by the number of sequences [s]."""
    name = part.group.serving.speculative_model
    if name is None:
        return np.zeros(most + 1)
    small = resolve(
        dataclasses.replace(
            part.group.scenario, model=name, quantization=None, isl=1, osl=1, prefix=0
        )
    )
    seqs = np.maximum(np.arange(most + 1.0), 1.0)
    time = run_step(
        small.architecture, small.layout, small.precision, small.machine,
        (TokenGroup(seqs, 1.0, float(context), "decode"),), detail="time",
    ).time  # fmt: skip
    # the engine's own overhead is counted with the step that verifies
    overhead = float(small.machine.calibration.step_overhead.value)
    return np.broadcast_to(time - overhead, seqs.shape).copy()


def _token_bytes(system: System, requests: Requests) -> float:
    """Cache of one token on one GPU, averaged over a sequence of mean length [B]."""
    tokens = max(float(np.mean(requests.prompt + requests.output / 2)), 1.0)
    held = sequence_bytes(system.architecture, system.layout, system.precision, tokens, 1.0)
    return float(held) / tokens


def _adapter_bytes(architecture: Architecture, rank: int) -> float:
    """LoRA adapter of all attention and feed-forward matrices, 16-bit [B]."""
    width = sum(
        count * (linear.inputs.size + sum(dim.size for dim in linear.outputs))
        for layer, count in architecture.distinct()
        for linear in layer.linears(architecture.hidden)
        if linear.cls in _ADAPTED
    )
    return 2.0 * rank * width


def _host_link(part: Part) -> float:
    """Bandwidth between one GPU and its host [B/s]."""
    gpu = part.resolved.machine.gpu
    if gpu.host is None:
        raise UsageError(f"{gpu.id} has no known link to its host, which swapping and adapters use")
    efficiency = part.resolved.machine.calibration.link.value
    return float(achieved_link(gpu.host.bandwidth.value, efficiency))


def _link(plan: Plan, parts: tuple[Part, ...], requests: Requests) -> Link:
    """Copies of cache between replicas; each GPU sends its own share."""
    moves = plan.migration is not None or any(p.group.role == Role.PREFILL for p in parts)
    if not moves:
        return Link()
    part = next((p for p in parts if p.group.role == Role.PREFILL), parts[0])
    machine = part.resolved.machine
    wire = machine.outside or machine.inside
    efficiency = machine.calibration.link.value
    given = plan.network.bandwidth
    bandwidth = float(achieved_link(wire.link if given is None else given, efficiency))
    latency = float(wire.latency) if plan.network.latency is None else plan.network.latency
    if not np.isfinite(bandwidth):
        raise UsageError(
            f"{machine.node.id} has no network for copies of the cache: give link.bandwidth or "
            "link.fabric in the cluster file"
        )
    return Link(latency, _token_bytes(part.system, requests) / bandwidth)


def _scaler(rule: Scaling, parts: tuple[Part, ...]) -> Scaler:
    """Start time: initialisation, and the slowest group's weights by their path."""
    slowest = max(_weights_time(rule.weights, part) for part in parts)
    return Scaler(rule.interval, rule.low, rule.high, rule.least, rule.initialise + slowest)


def _weights_time(path: str, part: Part) -> float:
    if path == "resident":
        return 0.0
    system = part.system
    bytes_ = float(weight_bytes(system.architecture, system.layout, system.precision))
    if path == "peer":
        link = system.machine.inside.link
        if not np.isfinite(link):
            raise UsageError(f"{system.machine.node.id}: no link between GPUs to copy weights over")
        return bytes_ / float(achieved_link(link, system.machine.calibration.link.value))
    try:
        drive = hwdb.storage(path)
    except (hwdb.NotFound, hwdb.HwdbError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"scaler.weights: neither resident nor peer, and {said}") from None
    # the GPUs of a replica share one drive
    return bytes_ * float(part.resolved.layout.gpus) / float(drive.read_bandwidth.value)


def _changes(changes: tuple[Change, ...], lanes_of: list[range]) -> list[Change]:
    """A change of a replica is one of all its lanes."""
    for change in changes:
        if change.replica >= len(lanes_of):
            raise UsageError(
                f"a change of replica {change.replica}; the cluster has {len(lanes_of)}, from 0"
            )
    return [Change(c.time, lane, c.state) for c in changes for lane in lanes_of[c.replica]]
