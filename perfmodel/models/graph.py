"""Networks that are not a stack of equal layers: CNN, UNet and DiT as a flat list of operators.

`perfmodel.models.families.graphs` builds the list for one input size; every node knows its
parameters and the rows it is applied to, so FLOPs and bytes follow by the same formulas as for
language models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Conv:
    """2-D convolution at a given output size (``groups = in_channels`` is depthwise)."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    out_height: int
    out_width: int
    groups: int = 1
    stride: int = 1
    bias: bool = True
    repeat: int = 1

    @property
    def elements(self) -> int:
        """Parameters of all ``repeat`` copies."""
        taps = self.in_channels // self.groups * self.kernel**2
        return self.repeat * self.out_channels * (taps + self.bias)


@dataclass(frozen=True, slots=True)
class Matmul:
    """Linear map applied to ``rows`` positions per sample."""

    name: str
    rows: int
    inputs: int
    outputs: int
    bias: bool = True
    repeat: int = 1

    @property
    def elements(self) -> int:
        """Parameters of all ``repeat`` copies."""
        return self.repeat * self.outputs * (self.inputs + self.bias)


@dataclass(frozen=True, slots=True)
class Attend:
    """Attention core of ``queries`` positions over ``keys`` positions; no parameters."""

    name: str
    queries: int
    keys: int
    heads: int
    head_dim: int
    repeat: int = 1

    @property
    def elements(self) -> int:
        """None."""
        return 0


@dataclass(frozen=True, slots=True)
class Pointwise:
    """Norm or activation over ``size`` values per sample, with ``weights`` parameters."""

    name: str
    size: int
    weights: int = 0
    repeat: int = 1

    @property
    def elements(self) -> int:
        """Parameters of all ``repeat`` copies."""
        return self.repeat * self.weights


GraphNode: TypeAlias = Conv | Matmul | Attend | Pointwise


@dataclass(frozen=True, slots=True)
class OperatorGraph:
    """All operators of one forward pass of one sample."""

    name: str
    nodes: tuple[GraphNode, ...]

    @property
    def elements(self) -> int:
        """Parameters of the whole graph."""
        return sum(node.elements for node in self.nodes)
