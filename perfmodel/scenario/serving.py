"""How a simulated deployment serves: engine habits, routing, and the plan of a cluster.

`Serving` is the part of the question that only the simulator asks; `Plan` says what replicas there
are. `perfmodel.scenario.deploy` makes clusters of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from perfmodel.core.errors import UsageError
from perfmodel.scenario.scenario import DEFAULT_BUDGET, Scenario
from perfmodel.serving.simulate.fleet import Change, HostStage, Migration, Role
from perfmodel.serving.simulate.policy import policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Habits of the engines and of the router.

    Parameters
    ----------
    scheduler : str
        How engines fill their steps: vllm-v1, sarathi, splitfuse, layered, prefill-first (vLLM v0),
        sglang, trtllm, orca, static.
    routing : str
        How requests are given to replicas: round-robin, random, least-outstanding, least-kv,
        power-of-two, prefix-aware, session, cost-aware, adapter.
    enable_prefix_caching : bool, optional
        Keep and share blocks of equal content; default: where requests say what they share.
    preemption_mode : str
        What happens to the cache of a preempted request: ``recompute`` or ``swap`` to the host.
    speculative_tokens : int
        Draft tokens per step and request; 0: no speculative decoding.
    acceptance : float
        Chance that a draft token is accepted if those before it were [1].
    speculative_model : str, optional
        Draft model, on the same GPUs; without one proposing is free (n-gram).
    adaptive_speculation : bool
        Choose the draft length by the batch, up to ``speculative_tokens``.
    finetune_tokens : int
        Tokens of parameter-efficient fine-tuning that fill up each step.
    max_loras : int
        LoRA adapters in device memory at once; 0: adapters play no role.
    max_lora_rank : int
        Rank of the adapters.
    mask_us : float
        Work of the host per sequence and step beside the device: grammar masks, sampling [us].
    cluster : str, optional
        A cluster file: unlike replicas, pools, links, scaling, failures.
    """

    scheduler: str = "vllm-v1"
    routing: str = "least-outstanding"
    enable_prefix_caching: bool | None = None
    preemption_mode: Literal["recompute", "swap"] = "recompute"
    speculative_tokens: int = 0
    acceptance: float = 0.7
    speculative_model: str | None = None
    adaptive_speculation: bool = False
    finetune_tokens: int = 0
    max_loras: int = 0
    max_lora_rank: int = 16
    mask_us: float = 0.0
    cluster: str | None = None

    def check(self) -> None:
        """Refuse numbers that no engine can have.

        Raises
        ------
        UsageError
        """
        policy(self.scheduler)
        for name in ("speculative_tokens", "finetune_tokens", "max_loras", "mask_us"):
            if not 0 <= getattr(self, name) <= 1e6:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} {getattr(self, name)} is out of range: from 0 to 1e+06")
        if not 1 <= self.max_lora_rank <= 4096:
            raise UsageError(f"--max-lora-rank {self.max_lora_rank} is out of range: 1 to 4096")
        if not 0 <= self.acceptance <= 1:
            raise UsageError(f"--acceptance {self.acceptance} is out of range: from 0 to 1")
        if self.preemption_mode not in ("recompute", "swap"):
            raise UsageError(f"--preemption-mode {self.preemption_mode!r}: recompute or swap")

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, and the scheduler and routing."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        defaults = Serving()
        return {
            name: value
            for name, value in plain.items()
            if name in ("scheduler", "routing") or value != getattr(defaults, name)
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Equal replicas.

    Parameters
    ----------
    scenario : Scenario
        Model, GPU, layout and engine limits of each.
    serving : Serving
    replicas, spare : int, optional
        Ready at the start (None: as ``num_gpus`` of the scenario says), and off until a scaler
        starts them.
    role : Role
    pool : str
        Name of the model they serve, for call graphs.
    """

    scenario: Scenario
    serving: Serving
    replicas: int | None = None
    spare: int = 0
    role: Role = Role.BOTH
    pool: str = "llm"


@dataclass(frozen=True, slots=True)
class Network:
    """What copies of KV cache between replicas run over; None: the machine's own network.

    Bandwidth per GPU and direction [B/s], latency [s].
    """

    bandwidth: float | None = None
    latency: float | None = None


@dataclass(frozen=True, slots=True)
class Scaling:
    """See `perfmodel.serving.simulate.fleet.Scaler`; how long a start takes.

    ``weights`` come from ``storage`` (a drive of the hardware database), from a ``peer`` that has
    them, or are ``resident``; ``initialise`` is the rest of the start [s]. ElasticMoE, arXiv
    2510.02613, finds the start of processes and graphs to weigh more than the bytes.
    """

    interval: float
    low: float
    high: float
    least: int = 1
    initialise: float = 60.0
    weights: str = "resident"


@dataclass(frozen=True, slots=True)
class Plan:
    """Replicas and the rules between them, before anything is looked up."""

    groups: tuple[Group, ...]
    routing: str
    decode_routing: str = "least-outstanding"
    network: Network = field(default_factory=Network)
    migration: Migration | None = None
    scaling: Scaling | None = None
    changes: tuple[Change, ...] = ()
    stages: tuple[HostStage, ...] = ()

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the models, in order of appearance."""
        return tuple(dict.fromkeys(group.pool for group in self.groups))


def group(scenario: Scenario, serving: Serving, **more: Any) -> Group:
    """A group; an engine whose scheduler has a token budget of its own gets that by default."""
    budget = policy(serving.scheduler).budget
    if budget is not None and scenario.max_num_batched_tokens == DEFAULT_BUDGET:
        scenario = dataclasses.replace(scenario, max_num_batched_tokens=float(budget))
    return Group(scenario, serving, **more)
