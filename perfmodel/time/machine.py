"""`Machine`: the numbers time is computed from, drawn once from the hardware database.

One place decides which datasheet value plays which role (and how a node's wiring becomes link
bandwidths), so that formulas see floats or arrays and know nothing about files.
"""

from __future__ import annotations

from dataclasses import dataclass

import hwdb
from hwdb.citation import Numeric
from hwdb.records import Calibration, Gpu, Node
from perfmodel.core.errors import InfeasibleError
from perfmodel.core.precision import Precision
from perfmodel.core.types import Reason


@dataclass(frozen=True, slots=True)
class Wire:
    """A device's way to its peers: bandwidth per direction [B/s], latency of a hop [s].

    ``direct``: any rank can read any other's memory at full speed (switch or full mesh). ``peers``
    is set in a full mesh: each of that many peers has an equal, private share of the bandwidth.
    """

    link: Numeric
    latency: Numeric
    in_switch: bool = False
    direct: bool = True
    peers: Numeric | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """One GPU in its node, with what software achieves of it.

    ``inside`` is the scale-up domain of ``domain`` devices, ``outside`` one device's share of the
    network between nodes.
    """

    gpu: Gpu
    node: Node
    calibration: Calibration
    inside: Wire
    outside: Wire | None
    domain: Numeric

    @property
    def bandwidth(self) -> Numeric:
        """Device memory bandwidth [B/s]."""
        return self.gpu.memory.bandwidth.value

    @property
    def capacity(self) -> Numeric:
        """Device memory a program can address [B].

        What the driver reports, or what the vendor prints if that is unknown or overridden.
        """
        memory = self.gpu.memory
        usable = memory.usable
        if usable is None or not usable.known or memory.capacity.kind == "modified":
            return memory.capacity.value
        return usable.value

    @property
    def idle_power(self) -> Numeric:
        """Power of a GPU with nothing to do [W]: as cited, else the calibration's share of TDP."""
        limits = self.gpu.power
        if limits.idle is not None and limits.idle.known:
            return limits.idle.value
        return self.calibration.idle_power.value * limits.tdp.value

    def peak(self, math: str, vector: bool = False) -> Numeric:
        """Dense rate of a datapath [FLOP/s].

        Vector work falls back to the fp32 lanes; bf16 and fp16 matrix rates stand in for one
        another.

        Raises
        ------
        perfmodel.core.errors.InfeasibleError
            The GPU has no such datapath.
        """
        rates = self.gpu.vector if vector else self.gpu.peak
        twins = {"bf16": "fp16", "fp16": "bf16", "fp32": "tf32"}
        for name in (math, twins.get(math, math)):
            rate = rates.get(name)  # pyright: ignore[reportArgumentType, reportCallIssue]
            if rate is not None:
                return rate.value
        if not vector and math == "fp32" and "fp32" in self.gpu.vector:
            return self.gpu.vector["fp32"].value
        if vector:
            return self.peak("bf16") / _VECTOR_SHARE
        raise InfeasibleError(
            f"{self.gpu.id} has no {math} matrix units (it has {', '.join(self.gpu.peak)})",
            Reason.DATAPATH.name.lower(),
            _narrower(math, self.gpu),
        )

    def check(self, precision: Precision, classes: tuple[str, ...]) -> None:
        """Raise `InfeasibleError` if a datapath that the precision needs is missing."""
        for cls in classes:
            self.peak(precision.math(cls))


# Where a part's vector rate is unpublished: matrix units outrun the ordinary lanes about this much
# (16x on A100 and H100: 312 against 19.5, 989 against 67 TFLOP/s).
_VECTOR_SHARE = 16.0


def machine(gpu: Gpu, node: Node, calibration: Calibration) -> Machine:
    """Resolve a GPU in its node: link bandwidths, domain, network share."""
    inside = Wire(float("inf"), 0.0)  # a device alone: nothing to cross
    domain: Numeric = 1.0
    if node.scale_up is not None:
        fabric = hwdb.fabric(node.scale_up.fabric)
        own = gpu.scale_up is not None and gpu.scale_up.fabric == node.scale_up.fabric
        port = gpu.scale_up.bandwidth.value if own and gpu.scale_up else fabric.bandwidth.value
        domain = node.scale_up.domain.value
        topology = node.scale_up.topology
        inside = Wire(
            port,
            fabric.latency.value,
            fabric.in_network_reduction and topology == "switch",
            topology in ("switch", "mesh"),
            domain - 1 if topology == "mesh" else None,
        )
    outside = None
    if node.scale_out is not None:
        fabric = hwdb.fabric(node.scale_out.fabric)
        share = fabric.bandwidth.value * node.scale_out.ports.value / node.gpus.value
        outside = Wire(share, fabric.latency.value, False, False)
    return Machine(gpu, node, calibration, inside, outside, domain)


def _narrower(math: str, gpu: Gpu) -> str:
    weight_only = {"fp8": "fp8_wo", "int4": "awq", "int8": "int8_wo", "fp4": "awq"}
    base = next((name for name in ("bf16", "fp16", "fp32") if name in gpu.peak), "")
    alternative = weight_only.get(math)
    if alternative:
        return f"--quantization {alternative} (weights only; multiplies in {base})"
    return f"--dtype {base}" if base else ""
