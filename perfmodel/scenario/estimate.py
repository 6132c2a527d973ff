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
from perfmodel.memory.fit import Footprint
from perfmodel.scenario.resolve import Resolved, resolve
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.verdict import (
    Verdict,
    deployment_memory,
    is_single_pass,
    judge,
    replicas,
    saturation,
    unless_layout,
)
from perfmodel.serving.engine import Load, Steady, System, single_pass, steady_state
from perfmodel.serving.metric import METRICS
from perfmodel.time.energy import busy_share, gpu_power

NAN = float("nan")


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
    def tpot(self) -> Numeric:
        """Time per output token after the first [s]; nan where there is only one."""
        return xp.where(self.resolved.scenario.osl > 1, self._steady.tpot, NAN)

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
        achieved = machine.calibration
        return gpu_power(
            machine.idle_power, machine.gpu.power.tdp.value,
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


def _answer(resolved: Resolved) -> Estimate:
    memory = deployment_memory(resolved)
    verdict = judge(resolved, memory)
    if np.ndim(verdict.reason) == 0 and int(verdict.reason) in (Reason.LAYOUT, Reason.NODE):
        return Estimate(resolved, memory, None, verdict)
    try:
        steady = _solve(resolved, memory)
    except InfeasibleError as error:
        return Estimate(
            resolved,
            memory,
            None,
            Verdict(unless_layout(verdict, error.reason), str(error), error.nearest),
        )
    saturated = np.asarray(steady.saturated)
    if np.any(saturated):
        code = np.where(
            saturated & (np.asarray(verdict.reason) == 0), int(Reason.SATURATED), verdict.reason
        )
        if code.ndim == 0 and verdict.feasible:
            verdict = Verdict(int(code), *saturation(resolved))
        else:
            verdict = replace(verdict, reason=code)
    return Estimate(resolved, memory, steady, verdict)


def system_of(resolved: Resolved, memory: Footprint) -> System:
    """What serves, for the steady state and the simulator."""
    scenario = resolved.scenario
    return System(
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


def _solve(resolved: Resolved, memory: Footprint) -> Steady:
    scenario, system = resolved.scenario, system_of(resolved, memory)
    rate = scenario.request_rate
    users = scenario.max_concurrency
    if users is None and rate is None:
        users = 1.0
    if is_single_pass(resolved.architecture):
        return single_pass(system, scenario.isl * 1.0, 1.0 if users is None else users * 1.0)
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


def _where_bad(bad: Any, value: Any) -> Any:
    hidden = np.where(bad, NAN, value) if np.any(bad) else np.asarray(value, dtype=np.float64)
    return float(hidden) if hidden.ndim == 0 else hidden
