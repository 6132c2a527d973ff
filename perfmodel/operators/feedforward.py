"""Operators of a feed-forward network: dense, or routed experts with their exchange of tokens."""

from __future__ import annotations

import numpy as np

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.models.blocks import DenseFfn, Ffn, Linear, MoeFfn
from perfmodel.operators.base import Collective, Operator, total
from perfmodel.operators.context import StepContext
from perfmodel.operators.gemm import gemm_activation_bytes, gemm_flops, gemm_weight_bytes
from perfmodel.operators.moe import distinct_experts, expert_rows


def ffn_operators(step: StepContext, ffn: Ffn, count: Numeric) -> list[Operator]:
    """All kernels of one feed-forward network in execution order, its final reduction apart."""
    if isinstance(ffn, DenseFfn):
        return _dense(step, ffn.linears(step.hidden), count)
    return _routed(step, ffn, count)


def _dense(step: StepContext, linears: tuple[Linear, ...], count: Numeric) -> list[Operator]:
    up, down = linears
    parts = [step.local(dim) for dim in up.outputs]
    activation = step.pointwise("activation", count, total(*parts), parts[0])
    return [step.gemm(up, count), activation, step.gemm(down, count)]


def _routed(step: StepContext, ffn: MoeFfn, count: Numeric) -> list[Operator]:
    router, *others = ffn.linears(step.hidden)
    shared = [linear for linear in others if linear.cls == "shared_experts"]
    latent = [linear for linear in others if linear.cls != "shared_experts"]
    layout, hidden = step.layout, float(ffn.latent or step.hidden)
    entering = step.rows * layout.dp * layout.cp  # tokens of all ranks that share the experts
    pairs = expert_rows(entering, float(ffn.top_k), layout.ep, step.imbalance)
    touched = distinct_experts(float(ffn.experts), float(ffn.top_k), entering) / layout.ep
    up, down = ffn.expert_linears(step.hidden)
    inner = total(*(step.local(dim, layout.moe_tp) for dim in up.outputs))
    routed = step.rows * ffn.top_k
    operators = [
        step.gemm(router, count),
        *(step.gemm(linear, count) for linear in latent),
        step.pointwise("permute", count, hidden, hidden, rows=routed),
        _grouped(step, up, count, pairs, touched),
        step.pointwise("expert_activation", count, inner, inner / len(up.outputs), rows=pairs),
        _grouped(step, down, count, pairs, touched),
        step.pointwise("unpermute", count, hidden, hidden / ffn.top_k, rows=routed),
        *_exchange(step, ffn, count, hidden),
    ]
    return operators + (_dense(step, tuple(shared), count) if shared else [])


def _grouped(
    step: StepContext, linear: Linear, count: Numeric, rows: Numeric, touched: Numeric
) -> Operator:
    """Grouped GEMM over the experts of one rank: all their rows, weights of the touched ones."""
    ways = step.layout.moe_tp
    inner = step.local(linear.inputs, ways)
    cols = total(*(step.local(dim, ways) for dim in linear.outputs))
    weight = step.precision.weight("experts").bytes
    inputs = step.precision.activation("experts").bytes
    return Operator(
        f"expert_{linear.name}",
        "moe",
        count,
        step.precision.math("experts"),
        gemm_flops(rows, inner, cols),
        weight_bytes=touched * gemm_weight_bytes(inner, cols, weight),
        activation_bytes=gemm_activation_bytes(rows, inner, cols, inputs, step.width),
    )


def _exchange(step: StepContext, ffn: MoeFfn, count: Numeric, hidden: float) -> list[Operator]:
    """Token exchange when several attention ranks share experts.

    With ``ep > 1`` each token-expert pair travels to its expert and back (all-to-all), the
    tensor-parallel ranks of a replica sending a share each. With ``ep = 1`` every rank holds a
    slice of all experts, so all tokens are gathered and their results reduced. A single replica
    needs neither: its ranks hold the same tokens and reduce once after the layer.
    """
    layout = step.layout
    replicas = layout.dp * layout.cp
    if not np.any(replicas > 1):
        return []
    several, by_expert = replicas > 1, layout.ep > 1
    routed = step.rows * ffn.top_k * hidden / layout.tp
    sent = xp.where(several & by_expert, routed, 0.0)
    whole = xp.where(several & np.logical_not(by_expert), step.rows * replicas * hidden, 0.0)
    ranks = xp.where(several, layout.tp * replicas, 1.0)
    width, inputs = step.width, step.precision.activation("experts").bytes

    def exchange(name: str, kind: Collective, message: Numeric) -> Operator:
        return Operator(name, "collective", count, collective=kind, message=message, group=ranks)

    return [
        exchange("dispatch", "all_to_all", sent * inputs),
        exchange("combine", "all_to_all", sent * width),
        exchange("gather_tokens", "all_gather", whole * width),
        exchange("scatter_results", "all_gather", whole * width),
    ]
