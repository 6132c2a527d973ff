"""Can it be done? The reason that forbids a scenario, in words, and the nearest that can.

Checked in order: layout, network, context, memory; the first that forbids a point is its reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwdb.citation import Numeric
from perfmodel.core.types import Reason
from perfmodel.memory.fit import Footprint, footprint
from perfmodel.models.architecture import Architecture
from perfmodel.parallel.layout import illegal
from perfmodel.scenario.resolve import Resolved


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the scenario is possible: a reason code, one line why not, and what would be."""

    reason: Any
    message: str = ""
    nearest: str = ""

    @property
    def feasible(self) -> bool:
        """True where nothing forbids the scenario (all points, if there are many)."""
        return bool(np.all(np.asarray(self.reason) == int(Reason.OK)))


def replicas(resolved: Resolved) -> Numeric:
    """Independent copies of the layout among all GPUs."""
    given = resolved.scenario.num_gpus
    return 1.0 if given is None else given / resolved.layout.gpus


def is_single_pass(architecture: Architecture) -> bool:
    """Encoders and operator graphs run once over a batch: no cache, no decode."""
    generates = architecture.causal and architecture.head
    return architecture.graph is not None or not generates


def deployment_memory(resolved: Resolved) -> Footprint:
    """Memory of the fullest GPU of the deployment."""
    scenario, achieved = resolved.scenario, resolved.machine.calibration
    encoded = resolved.architecture.encoder is not None
    prompt: Numeric = 1.0 if encoded else scenario.isl
    once = is_single_pass(resolved.architecture)
    tokens: Numeric = 0.0 if once else prompt + scenario.osl / 2
    full: Numeric = 0.0 if once else prompt + scenario.osl
    batch = scenario.max_concurrency if once and scenario.max_concurrency is not None else 1.0
    budget = scenario.isl * batch if once else scenario.max_num_batched_tokens
    return footprint(
        resolved.architecture,
        resolved.layout,
        resolved.precision,
        capacity=resolved.machine.capacity,
        utilization=scenario.gpu_memory_utilization,
        budget=budget * 1.0,
        seqs=scenario.max_num_seqs * 1.0,
        page=scenario.block_size * 1.0,
        mean_tokens=tokens,
        full_tokens=full,
        runtime=achieved.runtime_memory.value,
        graphs=achieved.graph_memory.value,
        communication=achieved.communication_memory.value,
        memory=scenario.isl * 1.0 if encoded else 0.0,
    )


def judge(resolved: Resolved, memory: Footprint) -> Verdict:
    """First reason, in the order layout, replicas, context, memory, that forbids each point."""
    checks: list[tuple[Any, Reason, str, str]] = []
    for mask, message, nearest in illegal(resolved.architecture, resolved.layout):
        checks.append((mask, Reason.LAYOUT, message, nearest))
    copies = replicas(resolved)
    checks.append((np.mod(copies, 1) != 0, Reason.LAYOUT,
                   f"--num-gpus {resolved.scenario.num_gpus} is not a multiple of the layout's "
                   f"{_number(resolved.layout.gpus)} GPUs", "a multiple of that"))  # fmt: skip
    reach = _number(resolved.machine.domain)
    checks.append((_unreachable(resolved), Reason.NODE,
                   f"{_number(resolved.layout.gpus)} GPUs, but {resolved.machine.node.id} connects "
                   f"{reach} and has no network to others",
                   f"at most {reach} GPUs a replica, or another --node"))  # fmt: skip
    limit = resolved.scenario.max_model_len or resolved.architecture.context or float("inf")
    wanted = resolved.scenario.isl + (
        0 if is_single_pass(resolved.architecture) else resolved.scenario.osl
    )
    if resolved.architecture.encoder is None:
        checks.append((wanted > limit, Reason.CONTEXT,
                       f"{_number(wanted)} tokens (isl + osl) exceed the context of "
                       f"{_number(limit)}", f"at most {_number(limit)} tokens"))  # fmt: skip
    checks.append((~np.asarray(memory.fits), Reason.MEMORY, *_shortage(resolved, memory)))
    reason: Any = int(Reason.OK)
    said = ("", "")
    for mask, code, message, nearest in checks:
        new = np.where(np.asarray(mask) & (np.asarray(reason) == 0), int(code), reason)
        if np.any(new != reason) and not said[0]:
            said = (message, nearest)
        reason = new
    reason = int(reason) if np.ndim(reason) == 0 else reason
    return Verdict(reason, *said)


def _unreachable(resolved: Resolved) -> Any:
    """More GPUs than the machine's fabric connects, and no network beyond it."""
    machine = resolved.machine
    return (resolved.layout.gpus > machine.domain) if machine.outside is None else False


def _shortage(resolved: Resolved, memory: Footprint) -> tuple[str, str]:
    many = (memory.pool, memory.longest, *resolved.scenario.numbers().values())
    if any(np.ndim(value) for value in many):
        return "does not fit in device memory", ""
    need = memory.fixed + memory.longest
    have = resolved.machine.capacity * resolved.scenario.gpu_memory_utilization
    message = (
        f"does not fit: needs {need / 1e9:.1f} GB per GPU (weights {memory.weights / 1e9:.1f}, "
        f"cache of one sequence {memory.longest / 1e9:.1f}), {resolved.machine.gpu.id} has "
        f"{have / 1e9:.1f} GB usable of {resolved.machine.capacity / 1e9:.0f} GB"
    )
    return message, _smallest_layout(resolved, float(have))


def _smallest_layout(resolved: Resolved, have: float) -> str:
    """Smallest legal tensor-parallel size (then a narrower format) that fits."""
    tp = 2 * int(resolved.layout.tp)
    while tp <= 1024:
        wider = replace(resolved.layout, tp=float(tp))
        if not any(bool(mask) for mask, _, _ in illegal(resolved.architecture, wider)):
            memory = deployment_memory(replace(resolved, layout=wider))
            if bool(memory.fits):
                return f"-tp {tp}"
        tp *= 2
    return "a narrower --quantization or a GPU with more memory"


def unless_layout(verdict: Verdict, reason: str) -> Any:
    """A missing unit or network concerns all points but those that no layout allows anyway."""
    code = int(Reason[reason.upper()])
    known = np.asarray(verdict.reason)
    return code if known.ndim == 0 else np.where(known == int(Reason.LAYOUT), known, code)


def saturation(resolved: Resolved) -> tuple[str, str]:
    """Message and nearest change where requests arrive faster than they can be served."""
    rate, gpus = resolved.scenario.request_rate, resolved.layout.gpus * replicas(resolved)
    return (
        f"{_number(rate)} requests/s exceed what {_number(gpus)} GPU(s) can serve: "
        f"the queue grows without bound",
        "more replicas (--num-gpus) or a lower --request-rate",
    )


def _number(value: Any) -> str:
    return f"{float(value):g}" if np.ndim(value) == 0 else "(array)"
