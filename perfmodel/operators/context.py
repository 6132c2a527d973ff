"""What every operator builder needs: the tokens of the step, the layout, the number formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwdb.citation import Numeric
from perfmodel.core.precision import Precision
from perfmodel.core.types import TokenGroup
from perfmodel.models.architecture import Architecture
from perfmodel.models.blocks import Dim, Linear
from perfmodel.operators.base import Operator, total
from perfmodel.operators.gemm import gemm_activation_bytes, gemm_flops, gemm_weight_bytes
from perfmodel.operators.pointwise import pointwise_bytes, pointwise_flops
from perfmodel.parallel.layout import Layout
from perfmodel.parallel.shard import split_size


@dataclass(frozen=True, slots=True)
class StepContext:
    """One step on one rank.

    ``rows`` is the number of tokens each rank's linear layers see; ``imbalance`` the tokens of the
    heaviest expert rank over the mean.
    """

    groups: tuple[TokenGroup, ...]
    layout: Layout
    precision: Precision
    hidden: int
    causal: bool
    rows: Numeric
    imbalance: Numeric = 1.0

    @property
    def width(self) -> float:
        """Bytes of one unquantised activation."""
        return self.precision.base.bytes

    def local(self, dim: Dim, ways: Numeric | None = None) -> Numeric:
        """Size of a dimension on one rank."""
        if dim.units is None:
            return float(dim.size)
        return split_size(
            float(dim.size), float(dim.units), self.layout.tp if ways is None else ways
        )

    def gemm(
        self,
        linear: Linear,
        count: Numeric,
        rows: Numeric | None = None,
        ways: Numeric | None = None,
    ) -> Operator:
        """Operator of a `Linear` on ``rows`` tokens (default: all of the step)."""
        rows = self.rows if rows is None else rows
        inner = self.local(linear.inputs, ways)
        cols = total(*(self.local(dim, ways) for dim in linear.outputs))
        weight = self.precision.weight(linear.cls).bytes
        inputs = self.precision.activation(linear.cls).bytes
        return Operator(
            linear.name,
            "gemm",
            count,
            self.precision.math(linear.cls),
            gemm_flops(rows, inner, cols),
            weight_bytes=gemm_weight_bytes(inner, cols, weight),
            activation_bytes=gemm_activation_bytes(rows, inner, cols, inputs, self.width),
        )

    def pointwise(
        self, name: str, count: Numeric, inner: Numeric, cols: Numeric, rows: Numeric | None = None
    ) -> Operator:
        """Memory-bound operator reading ``inner`` and writing ``cols`` values per token."""
        rows = self.rows if rows is None else rows
        return Operator(
            name,
            "pointwise",
            count,
            "fp32",
            pointwise_flops(rows, inner, _OPS_PER_VALUE),
            activation_bytes=pointwise_bytes(rows, inner, cols, self.width),
        )


def step_context(
    groups: Sequence[TokenGroup], layout: Layout, precision: Precision, architecture: Architecture,
    imbalance: Numeric = 1.0,
) -> StepContext:  # fmt: skip
    """Context of a step; context parallelism spreads its tokens over ranks."""
    rows = total(*(group.rows for group in groups)) / layout.cp
    return StepContext(
        tuple(groups), layout, precision, architecture.hidden, architecture.causal, rows, imbalance
    )


_OPS_PER_VALUE = 4.0  # multiply, add and a share of a transcendental; such kernels are memory bound
