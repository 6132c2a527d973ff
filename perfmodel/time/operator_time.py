"""From work to time: one operator on one machine, kernels by roofline, messages by the network."""

from __future__ import annotations

from dataclasses import dataclass

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import label
from perfmodel.operators.base import Collective, Operator
from perfmodel.time import network
from perfmodel.time.machine import Machine, Wire
from perfmodel.time.roofline import compute_time, memory_time, roofline_time

_VECTOR_FAMILIES = ("pointwise", "scan")


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """Times of one execution of an operator [s]: its lanes, the whole; ``total`` of all executions.

    ``traffic`` is its device-memory traffic per execution [B].
    """

    operator: Operator
    traffic: Numeric
    compute: Numeric
    memory: Numeric
    network: Numeric
    time: Numeric
    total: Numeric


def operator_time(machine: Machine, operator: Operator) -> OperatorTime:
    """Time of one operator [s].

    Raises
    ------
    perfmodel.core.errors.InfeasibleError
        The GPU lacks the operator's datapath.
    """
    with label(operator.name):
        if operator.family == "collective":
            spent = collective_time(machine, operator)
            return OperatorTime(operator, 0.0, 0.0, 0.0, spent, spent, operator.count * spent)
        achieved = machine.calibration
        vector = operator.family in _VECTOR_FAMILIES
        peak = machine.peak(operator.math, vector)
        compute = compute_time(operator.flops, peak, achieved.compute[operator.family].value)
        traffic = operator.traffic()
        memory = memory_time(traffic, machine.bandwidth, achieved.memory[operator.family].value)
        spent = roofline_time(compute, memory, achieved.kernel_overhead.value)
        return OperatorTime(operator, traffic, compute, memory, 0.0, spent, operator.count * spent)


def collective_time(machine: Machine, operator: Operator) -> Numeric:
    """Time of a collective in the scale-up domain and, beyond it, between nodes [s].

    nan where a group reaches beyond a machine that has no network.
    """
    if operator.collective is None or _all(operator.group <= 1):
        return 0.0
    achieved = machine.calibration
    share = achieved.link.value
    local = xp.minimum(operator.group, machine.domain)
    inside = _scaled(machine.inside, share, local)
    across = xp.ceil_div(operator.group, machine.domain)
    spent = _inside(operator.collective, inside, operator.message, local)
    if machine.outside is None:
        # No way there; layouts are checked before, so that only points of an array come here.
        spent = xp.where(across > 1, float("nan"), spent)
    elif not _all(across <= 1):
        outside = _scaled(machine.outside, share, across)
        far = _across(operator.collective, inside, outside, operator.message, local, across)
        spent = xp.where(across > 1, far, spent)
    launched = network.launched(spent, achieved.collective_overhead.value)
    return xp.where(operator.group > 1, launched, 0.0)


def _inside(kind: Collective, wire: Wire, message: Numeric, group: Numeric) -> Numeric:
    """Fastest algorithm the fabric allows."""
    if kind == "all_gather":
        return network.all_gather(message, group, wire.link, wire.latency)
    if kind == "all_to_all":
        return network.all_to_all(message, group, wire.link, wire.latency)
    if kind == "point_to_point":
        return network.point_to_point(message, wire.link, wire.latency)
    arguments = (message, group, wire.link, wire.latency)
    best = network.faster(network.ring_all_reduce(*arguments), network.tree_all_reduce(*arguments))
    if wire.direct:
        best = network.faster(best, network.one_shot_all_reduce(*arguments))
        best = network.faster(best, network.two_shot_all_reduce(*arguments))
    if wire.in_switch:
        best = network.faster(best, network.in_switch_all_reduce(*arguments))
    return best


def _across(
    kind: Collective, inside: Wire, outside: Wire, message: Numeric, local: Numeric, across: Numeric
) -> Numeric:
    """Two levels: inside the domain, then between nodes with every device's port working."""
    if kind == "point_to_point":
        return network.point_to_point(message, outside.link, outside.latency)
    if kind == "all_to_all":
        remote = message * (across - 1) / across
        return xp.maximum(
            network.all_to_all(message - remote, local, inside.link, inside.latency),
            network.point_to_point(remote, outside.link, outside.latency),
        )
    slice_ = message / local
    gathered = network.all_gather(message, local, inside.link, inside.latency)
    if kind == "all_gather":
        return gathered + network.all_gather(slice_, across, outside.link, outside.latency)
    between = network.tree_all_reduce(slice_, across, outside.link, outside.latency)
    return 2 * gathered + between


def _scaled(wire: Wire, share: Numeric, group: Numeric) -> Wire:
    """The wire as ``group`` ranks see it: achieved share; in a mesh only the links among them."""
    link = network.achieved_link(wire.link, share)
    if wire.peers is not None:
        link = link * xp.minimum((group - 1) / wire.peers, 1.0)
        link = xp.where(group > 1, link, wire.link)
    return Wire(link, wire.latency, wire.in_switch, wire.direct)


def _all(mask: object) -> bool:
    every = getattr(mask, "all", None)
    return bool(every()) if every is not None else bool(mask)
