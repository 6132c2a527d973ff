"""The building blocks of a layer: linear maps and feed-forward networks, as facts.

Every block lists its `Linear` maps (weights that multiply activations) and its other parameters;
`perfmodel.parallel` shards them and `perfmodel.operators` counts their work, so parameters, memory
and FLOPs come from one description. Sizes are element counts; nothing here knows about precision,
devices or time. What mixes tokens (attention, recurrence) is in ``mixers.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

TensorClass = Literal[
    "attention", "mixer", "ffn", "experts", "shared_experts", "router", "embedding", "head", "norm"
]


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of a weight: its size and, if tensor parallelism may split it, into what.

    ``units`` is the number of indivisible granules (attention heads, FFN columns); ``None`` means
    every rank holds the whole dimension.
    """

    size: int
    units: int | None = None


@dataclass(frozen=True, slots=True)
class Linear:
    """A weight matrix ``inputs x sum(outputs)``, applied once to every token.

    Split ``inputs`` is row parallel (its result needs a reduction), split ``outputs`` is column
    parallel. Several outputs are projections that engines fuse into one GEMM (QKV, gate and up).
    """

    name: str
    inputs: Dim
    outputs: tuple[Dim, ...]
    cls: TensorClass
    bias: bool = False

    @property
    def elements(self) -> int:
        """Parameters, bias included."""
        width = sum(dim.size for dim in self.outputs)
        return self.inputs.size * width + (width if self.bias else 0)


@dataclass(frozen=True, slots=True)
class DenseFfn:
    """Feed-forward network: gated (SwiGLU, GeGLU: three matrices) or plain (two)."""

    inner: int
    gated: bool = True
    bias: bool = False

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Up (with gate, fused) and down projections."""
        return _ffn_linears(hidden, self.inner, self.gated, self.bias, "ffn")

    def small_elements(self, hidden: int) -> int:
        """None."""
        return 0


@dataclass(frozen=True, slots=True)
class MoeFfn:
    """Mixture of experts: a router sends each token to ``top_k`` of ``experts`` networks.

    ``shared_inner`` is the width of the always-active expert(s) together, ``shared_gate`` a scalar
    gate on it; ``router_bias`` a bias per expert; ``latent`` the narrower width in which experts
    work (0: the model's width); ``router_scales`` learned scales of the router's input and of each
    expert (Gemma 4).
    """

    experts: int
    top_k: int
    inner: int
    shared_inner: int = 0
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    shared_gate: bool = False
    shared_gated: bool | None = None
    latent: int = 0
    router_scales: bool = False

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Maps that every token passes: router, shared expert, latent projections."""
        router = Linear("router", Dim(hidden), (Dim(self.experts),), "router", self.router_bias)
        latent: tuple[Linear, ...] = ()
        if self.latent:
            down = Linear("latent_down", Dim(hidden), (Dim(self.latent),), "ffn")
            latent = (down, Linear("latent_up", Dim(self.latent), (Dim(hidden),), "ffn"))
        if not self.shared_inner:
            return (router, *latent)
        gated = self.gated if self.shared_gated is None else self.shared_gated
        shared = _ffn_linears(hidden, self.shared_inner, gated, self.bias, "shared_experts")
        return (router, *latent, *shared)

    def expert_linears(self, hidden: int) -> tuple[Linear, ...]:
        """Maps of one routed expert."""
        return _ffn_linears(self.latent or hidden, self.inner, self.gated, self.bias, "experts")

    def small_elements(self, hidden: int) -> int:
        """The shared expert's gate and the router's scales."""
        scales = hidden + self.experts if self.router_scales else 0
        return scales + (hidden if self.shared_gate else 0)


def _ffn_linears(
    hidden: int, inner: int, gated: bool, bias: bool, cls: TensorClass
) -> tuple[Linear, ...]:
    wide = Dim(inner, inner)
    up = (wide, wide) if gated else (wide,)
    name = "gate_up_proj" if gated else "up_proj"
    return (
        Linear(name, Dim(hidden), up, cls, bias),
        Linear("down_proj", wide, (Dim(hidden),), cls, bias),
    )


Ffn: TypeAlias = DenseFfn | MoeFfn
