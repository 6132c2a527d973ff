"""All operators of one step of a model: embedding, layers, head, the collectives between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.precision import Precision
from perfmodel.core.types import TokenGroup
from perfmodel.models.architecture import Architecture, Layer
from perfmodel.models.graph import Attend, Conv, GraphNode, Matmul
from perfmodel.operators import attention as cores
from perfmodel.operators.base import Collective, Operator, total
from perfmodel.operators.context import StepContext, step_context
from perfmodel.operators.feedforward import ffn_operators
from perfmodel.operators.gemm import (
    conv_flops,
    gemm_activation_bytes,
    gemm_flops,
    gemm_weight_bytes,
)
from perfmodel.operators.mixers import mixer_operators
from perfmodel.operators.pointwise import pointwise_bytes, pointwise_flops
from perfmodel.parallel.layout import Layout
from perfmodel.parallel.shard import stage_layers

_LOGIT_BYTES = 4.0  # samplers work in fp32


def step_operators(
    architecture: Architecture,
    layout: Layout,
    precision: Precision,
    groups: Sequence[TokenGroup],
    imbalance: Numeric = 1.0,
) -> Iterator[Operator]:
    """Operators one rank executes in a step, pipeline stages in sequence.

    Parameters
    ----------
    architecture : Architecture
    layout : Layout
        Tensor, pipeline, data, expert and context parallel sizes.
    precision : Precision
    groups : sequence of TokenGroup
        Any mix of (sequences, new, past), per data-parallel rank.
    imbalance : numeric
        Tokens of the heaviest expert rank over the mean [1].

    Yields
    ------
    Operator
        In execution order; equal layers are one entry with their ``count``.
    """
    step = step_context(groups, layout, precision, architecture, imbalance)
    yield from _encoder_operators(architecture, layout, precision, groups)
    if architecture.graph is not None:
        samples = _sequences(groups)
        for node in architecture.graph.nodes:
            yield _node_operator(node, samples, precision)
        return
    if architecture.vocab:
        yield step.pointwise("embedding", 1.0, architecture.hidden, architecture.hidden)
    stretch = layout.pp * stage_layers(architecture.layers, layout.pp) / architecture.layers
    for layer, count in architecture.distinct():
        yield from _layer_operators(step, layer, count * stretch)
    if np.any(layout.pp > 1):
        yield _stage_transfer(step)
    if architecture.head:
        yield from _head_operators(step, architecture)


def _layer_operators(step: StepContext, layer: Layer, count: Numeric) -> Iterator[Operator]:
    hidden = step.hidden
    rows = step.rows / step.layout.tp if step.layout.sp else step.rows
    residual = 2 * hidden * max(layer.streams, 1)
    yield step.pointwise("norm", count * layer.norms, residual, residual, rows)
    for linear in layer.hyper_linears(hidden):
        yield step.gemm(linear, count)
    for mixer in (layer.mixer, layer.cross):
        if mixer is not None:
            yield from mixer_operators(step, mixer, count)
            if layer.ffn is None or not layer.parallel or mixer is layer.cross:
                yield from _reduce(step, "mixer_all_reduce", count)
    if layer.ffn is not None:
        yield from ffn_operators(step, layer.ffn, count)
        yield from _reduce(step, "ffn_all_reduce", count)


def _reduce(step: StepContext, name: str, count: Numeric) -> list[Operator]:
    """Sum of the tensor-parallel partial results (sequence parallelism moves the same bytes)."""
    message = step.rows * (step.hidden * step.width)
    return _shared(step, name, count, "all_reduce", message)


def _shared(
    step: StepContext, name: str, count: Numeric, kind: Collective, message: Numeric
) -> list[Operator]:
    """A collective of the tensor-parallel group, absent where the group is one rank."""
    group = step.layout.tp
    if not np.any(group > 1):
        return []
    return [Operator(name, "collective", count, collective=kind, message=message, group=group)]


def _stage_transfer(step: StepContext) -> Operator:
    """Hidden states handed from stage to stage, once per boundary.

    Ranks of a stage are neighbours, so the next stage begins tp x dp x cp ranks further on: the
    transfer stays inside the fast domain only if two stages fit into it.
    """
    layout = step.layout
    message = step.rows * (step.hidden * step.width)
    span = xp.where(layout.pp > 1, 2 * layout.tp * layout.dp * layout.cp, 1.0)
    return Operator("stage_transfer", "collective", layout.pp - 1, collective="point_to_point",
                    message=message, group=span)  # fmt: skip


def _head_operators(step: StepContext, architecture: Architecture) -> list[Operator]:
    """Logits of the last token of each sequence, gathered over ranks and sampled."""
    seqs = _sequences(step.groups)
    head = step.gemm(architecture.head_linear(), 1.0, rows=seqs)
    logits = seqs * (architecture.vocab * step.width)
    gather = _shared(step, "logits_all_gather", 1.0, "all_gather", logits)
    vocab = float(architecture.vocab)
    sample = Operator("sample", "pointwise", 1.0, "fp32", pointwise_flops(seqs, vocab, 4.0),
                      activation_bytes=pointwise_bytes(seqs, vocab, 1.0, _LOGIT_BYTES))  # fmt: skip
    norm = step.pointwise("final_norm", 1.0, step.hidden, step.hidden)
    return [norm, head, *gather, sample]


def _encoder_operators(
    architecture: Architecture, layout: Layout, precision: Precision, groups: Sequence[TokenGroup]
) -> Iterator[Operator]:
    """The encoder of an encoder-decoder, on the groups that still have to be encoded."""
    encoded = [
        TokenGroup(group.seqs, group.encode, 0.0) for group in groups if np.any(group.encode > 0)
    ]
    if architecture.encoder is not None and encoded:
        for operator in step_operators(architecture.encoder, layout, precision, encoded):
            yield replace(operator, name=f"encoder_{operator.name}")


def _sequences(groups: Sequence[TokenGroup]) -> Numeric:
    return total(*(group.seqs for group in groups))


def _node_operator(node: GraphNode, samples: Numeric, precision: Precision) -> Operator:
    """One node of an operator graph on ``samples`` inputs (graphs are not sharded)."""
    width, count = precision.base.bytes, float(node.repeat)
    math = precision.math("mixer")
    if isinstance(node, Conv):
        rows = samples * node.out_height * node.out_width
        flops = conv_flops(
            rows,
            float(node.in_channels),
            float(node.out_channels),
            float(node.kernel),
            float(node.groups),
        )
        read = rows * node.stride**2 * node.in_channels
        return Operator(node.name, "conv", count, math, flops,
                        weight_bytes=node.elements / node.repeat * width,
                        activation_bytes=(read + rows * node.out_channels) * width)  # fmt: skip
    if isinstance(node, Matmul):
        rows, inner, cols = samples * node.rows, float(node.inputs), float(node.outputs)
        return Operator(node.name, "gemm", count, math, gemm_flops(rows, inner, cols),
                        weight_bytes=gemm_weight_bytes(inner, cols, width),
                        activation_bytes=gemm_activation_bytes(
                            rows, inner, cols, width, width))  # fmt: skip
    if isinstance(node, Attend):
        pairs = cores.full_pairs(float(node.queries), float(node.keys - node.queries))
        dims = (float(node.heads), float(node.head_dim), float(node.head_dim))
        return Operator(node.name, "attention", count, precision.base.math,
                        cores.attention_flops(samples, pairs, *dims),
                        kv_bytes=2 * samples * node.keys * node.heads * node.head_dim * width,
                        activation_bytes=cores.attention_activation_bytes(
                            samples, float(node.queries), *dims, width))  # fmt: skip
    size = float(node.size)
    return Operator(node.name, "pointwise", count, "fp32", pointwise_flops(samples, size, 4.0),
                    activation_bytes=pointwise_bytes(samples, size, size, width))  # fmt: skip
