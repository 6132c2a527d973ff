"""`estimate`: one scenario in, predictions with their breakdown, provenance and validity out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwdb.citation import Numeric, UnknownValue
from perfmodel.core import xp
from perfmodel.core.errors import InfeasibleError, MissingDataError, UsageError, near
from perfmodel.core.types import Reason
from perfmodel.cost.money import cost_per_token, energy_per_token
from perfmodel.memory.fit import Footprint, footprint
from perfmodel.models.architecture import Architecture
from perfmodel.parallel.layout import illegal
from perfmodel.scenario.resolve import Resolved, resolve
from perfmodel.scenario.scenario import Scenario
from perfmodel.serving.engine import Load, Steady, System, single_pass, steady_state
from perfmodel.serving.metric import METRICS
from perfmodel.time.energy import busy_share, gpu_power

NAN = float("nan")


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


@dataclass(frozen=True, slots=True)
class Estimate:
    """An answer: steady state, memory, power and money of a deployment.

    Attributes
    ----------
    resolved : Resolved
        What the scenario's names stand for.
    memory : Footprint
        Bytes on the fullest GPU.
    steady : Steady or None
        Mean state; None where nothing could be computed (illegal layout, missing datapath).
    verdict : Verdict
        Feasible or why not. Infeasible points of an array are nan.
    """

    resolved: Resolved
    memory: Footprint
    steady: Steady | None
    verdict: Verdict

    @property
    def gpus(self) -> Numeric:
        """GPUs of the deployment."""
        return self.resolved.layout.gpus * replicas(self.resolved)

    @property
    def output_throughput(self) -> Numeric:
        """Output tokens per second."""
        return self._steady.request_rate * self.resolved.scenario.osl

    @property
    def total_throughput(self) -> Numeric:
        """Input and output tokens per second."""
        scenario = self.resolved.scenario
        return self._steady.request_rate * (scenario.isl + scenario.osl)

    @property
    def mfu(self) -> Numeric:
        """Executed matrix FLOPs over the dense 16-bit peak."""
        peak = self.resolved.machine.peak(self.resolved.precision.base.math)
        steady = self._steady
        busy = steady.average(lambda step: step.flops) / steady.tpot_step
        return steady.occupancy * busy / peak

    @property
    def mbu(self) -> Numeric:
        """Memory traffic over the memory bandwidth."""
        steady = self._steady
        traffic = steady.average(lambda step: step.traffic)
        return steady.occupancy * traffic / steady.tpot_step / self.resolved.machine.bandwidth

    @property
    def kv_utilisation(self) -> Numeric:
        """Cache of the running sequences over the pool."""
        per_gpu = self._steady.running * self.resolved.layout.pp
        return xp.minimum(per_gpu * self.memory.sequence / xp.maximum(self.memory.pool, 1.0), 1.0)

    @property
    def power(self) -> Numeric:
        """Mean power of one GPU [W]."""
        machine, steady = self.resolved.machine, self._steady
        limits, achieved = machine.gpu.power, machine.calibration
        tdp = limits.tdp.value
        idle = limits.idle.value if limits.idle is not None and limits.idle.known else \
            achieved.idle_power.value * tdp  # fmt: skip
        return gpu_power(
            idle, tdp,
            steady.occupancy
            * busy_share(steady.average(lambda step: step.compute), steady.tpot_step),
            steady.occupancy
            * busy_share(steady.average(lambda step: step.memory), steady.tpot_step),
            achieved.compute_power.value, achieved.memory_power.value,
        )  # fmt: skip

    @property
    def energy_per_token(self) -> Numeric:
        """GPU energy of an output token [J]."""
        return energy_per_token(self.gpus, self.power, self.output_throughput)

    @property
    def cost_per_token(self) -> Numeric:
        """Rent of an output token [USD]; nan without a price."""
        price = self.resolved.price.value
        return NAN if price is None else cost_per_token(self.gpus, price, self.output_throughput)

    @property
    def _steady(self) -> Steady:
        assert self.steady is not None
        return self.steady

    def results(self, wanted: Collection[str] | None = None) -> dict[str, Any]:
        """Exported columns by name (all, or those wanted), nan where infeasible or unknown."""
        columns: dict[str, Any] = {}
        bad = np.asarray(self.verdict.reason) != int(Reason.OK)
        for metric in METRICS.values():
            if wanted is not None and metric.column not in wanted:
                continue
            try:
                value = metric.value(self) * metric.scale if self.steady is not None else NAN
            except UnknownValue:
                value = NAN
            columns[metric.column] = _where_bad(bad, value)
        return columns


def estimate(scenario: Scenario | None = None, /, **question: Any) -> Estimate:
    """Predict latency, throughput, memory, energy and cost of a deployment.

    Parameters
    ----------
    scenario : Scenario, optional
        The question; or give its fields as keywords.

    Returns
    -------
    Estimate
        With arrays wherever the scenario had arrays. An infeasible question is an answer too: see
        ``verdict``.

    Raises
    ------
    perfmodel.core.errors.UsageError
        The question cannot be asked so.
    perfmodel.core.errors.MissingDataError
        The database lacks a fact that the answer needs.

    Examples
    --------
    >>> answer = estimate(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", isl=1000, osl=200)
    >>> answer.verdict.feasible, answer.steady.tpot < 0.02
    (True, True)
    """
    if scenario is None:
        for name in question:
            if name not in Scenario.__dataclass_fields__:
                fields = Scenario.__dataclass_fields__
                raise UsageError(f"a scenario has no {name!r}{near(name, fields)}")
        missing = [name for name in ("model", "gpu") if name not in question]
        if missing:
            raise UsageError(f"a scenario needs {' and '.join(missing)}")
        scenario = Scenario(**question)
    return estimate_resolved(resolve(scenario))


def estimate_resolved(resolved: Resolved) -> Estimate:
    """Answer a scenario whose names are already looked up.

    Raises
    ------
    perfmodel.core.errors.MissingDataError
        The database lacks a fact that the answer needs.
    """
    try:
        return _answer(resolved)
    except UnknownValue as error:
        raise MissingDataError(str(error)) from None


def replicas(resolved: Resolved) -> Numeric:
    """Independent copies of the layout among all GPUs."""
    given = resolved.scenario.num_gpus
    return 1.0 if given is None else given / resolved.layout.gpus


def _answer(resolved: Resolved) -> Estimate:
    memory = _memory(resolved)
    verdict = _verdict(resolved, memory)
    if np.ndim(verdict.reason) == 0 and int(verdict.reason) in (Reason.LAYOUT, Reason.NODE):
        return Estimate(resolved, memory, None, verdict)
    try:
        steady = _solve(resolved, memory)
    except InfeasibleError as error:
        return Estimate(
            resolved,
            memory,
            None,
            Verdict(_unless_layout(verdict, error.reason), str(error), error.nearest),
        )
    saturated = np.asarray(steady.saturated)
    if np.any(saturated):
        code = np.where(
            saturated & (np.asarray(verdict.reason) == 0), int(Reason.SATURATED), verdict.reason
        )
        if code.ndim == 0 and verdict.feasible:
            verdict = Verdict(int(code), *_saturation(resolved, steady))
        else:
            verdict = replace(verdict, reason=code)
    return Estimate(resolved, memory, steady, verdict)


def _unless_layout(verdict: Verdict, reason: str) -> Any:
    """A missing unit or network concerns all points but those that no layout allows anyway."""
    code = int(Reason[reason.upper()])
    known = np.asarray(verdict.reason)
    return code if known.ndim == 0 else np.where(known == int(Reason.LAYOUT), known, code)


def is_single_pass(architecture: Architecture) -> bool:
    """Encoders and operator graphs run once over a batch: no cache, no decode."""
    generates = architecture.causal and architecture.head
    return architecture.graph is not None or not generates


def _solve(resolved: Resolved, memory: Footprint) -> Steady:
    scenario = resolved.scenario
    system = System(
        resolved.architecture,
        resolved.layout,
        resolved.precision,
        resolved.machine,
        memory,
        scenario.max_num_seqs * 1.0,
        scenario.max_num_batched_tokens * 1.0,
        replicas(resolved),
        resolved.machine.calibration.expert_imbalance.value,
        "operators" if _is_one_point(scenario) else "sums",
    )
    rate = scenario.request_rate
    users = (
        scenario.max_concurrency
        if rate is not None or scenario.max_concurrency is not None
        else 1.0
    )
    if is_single_pass(resolved.architecture):
        return single_pass(system, scenario.isl * 1.0, (users if users is not None else 1.0) * 1.0)
    encoded = resolved.architecture.encoder is not None
    load = Load(
        prompt=1.0 if encoded else (scenario.isl - scenario.prefix) * 1.0,
        prefix=0.0 if encoded else scenario.prefix * 1.0,
        osl=scenario.osl * 1.0,
        concurrency=None if users is None else users * 1.0,
        request_rate=rate,
        encoder_tokens=scenario.isl * 1.0 if encoded else 0.0,
    )
    return steady_state(system, load)


def _is_one_point(scenario: Scenario) -> bool:
    values = (*scenario.numbers().values(), *scenario.set.values())
    return all(np.ndim(value) == 0 for value in values)


def _memory(resolved: Resolved) -> Footprint:
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


def _verdict(resolved: Resolved, memory: Footprint) -> Verdict:
    """First reason, in the order layout, replicas, context, memory, that forbids each point."""
    checks: list[tuple[Any, Reason, str, str]] = []
    for mask, message, nearest in illegal(resolved.architecture, resolved.layout):
        checks.append((mask, Reason.LAYOUT, message, nearest))
    copies = replicas(resolved)
    checks.append((np.mod(copies, 1) != 0, Reason.LAYOUT,
                   f"--num-gpus {resolved.scenario.num_gpus} is not a multiple of the layout's "
                   f"{_number(resolved.layout.gpus)} GPUs", "a multiple of that"))  # fmt: skip
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
            memory = _memory(replace(resolved, layout=wider))
            if bool(memory.fits):
                return f"-tp {tp}"
        tp *= 2
    return "a narrower --quantization or a GPU with more memory"


def _saturation(resolved: Resolved, steady: Steady) -> tuple[str, str]:
    rate, gpus = resolved.scenario.request_rate, resolved.layout.gpus * replicas(resolved)
    return (
        f"{_number(rate)} requests/s exceed what {_number(gpus)} GPU(s) can serve: "
        f"the queue grows without bound",
        "more replicas (--num-gpus) or a lower --request-rate",
    )


def _number(value: Any) -> str:
    return f"{float(value):g}" if np.ndim(value) == 0 else "(array)"


def _where_bad(bad: Any, value: Any) -> Any:
    hidden = np.where(bad, NAN, value) if np.any(bad) else np.asarray(value, dtype=np.float64)
    return float(hidden) if hidden.ndim == 0 else hidden
