"""What a deployment occupies on its fullest GPU, and how many sequences fit beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import label
from perfmodel.core.precision import Precision
from perfmodel.core.types import TokenGroup
from perfmodel.memory.footprint import (
    activation_peak,
    cache_pool,
    sequence_cache_bytes,
    sequences_that_fit,
    tensor_bytes,
)
from perfmodel.models.architecture import Architecture, Layer
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.mixers import GatedDelta, Mamba
from perfmodel.operators.base import total
from perfmodel.operators.context import StepContext, step_context
from perfmodel.operators.mixers import caches
from perfmodel.parallel.layout import Layout
from perfmodel.parallel.shard import stage_layers

_LOGIT_BYTES = 4.0  # samplers work in fp32


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes on the fullest GPU.

    Attributes
    ----------
    weights, activations, runtime, graphs, communication : numeric
        Fixed parts [B].
    pool : numeric
        Left for the cache; negative if the fixed parts do not fit [B].
    sequence : numeric
        Cache of one sequence of mean length [B].
    longest : numeric
        Cache of one sequence at its full length [B].
    max_seqs : numeric
        Sequences of mean length that fit at once, per data-parallel rank.
    """

    weights: Numeric
    activations: Numeric
    runtime: Numeric
    graphs: Numeric
    communication: Numeric
    pool: Numeric
    sequence: Numeric
    longest: Numeric
    max_seqs: Numeric

    @property
    def fixed(self) -> Numeric:
        """Everything but the cache [B]."""
        return self.weights + self.activations + self.runtime + self.graphs + self.communication

    @property
    def fits(self) -> Any:
        """Whether at least one sequence of full length fits (bool or array)."""
        return self.pool >= self.longest


def weight_bytes(architecture: Architecture, layout: Layout, precision: Precision) -> Numeric:
    """Weights on the fullest GPU [B]: its layers, and the embedding or head if it holds them."""
    step = _context(architecture, layout, precision)
    layers = [
        count * _layer_bytes(step, layer, architecture.norm_width)
        for layer, count in architecture.distinct()
    ]
    held: Numeric = 0.0
    if layers:
        share = stage_layers(architecture.layers, layout.pp) / architecture.layers
        held = total(*layers) * share
    vocab = architecture.vocab * architecture.hidden / layout.tp
    tables = (architecture.positions + architecture.token_types) * architecture.hidden
    embedding = (vocab + tables) * precision.weight("embedding").bytes
    head = vocab * precision.weight("head").bytes if architecture.head else 0.0
    ends = xp.where(layout.pp > 1, xp.maximum(embedding, head),
                    embedding if architecture.tied else embedding + head)  # fmt: skip
    held = held + ends + _rest_bytes(architecture, precision)
    for part in (architecture.encoder, *architecture.towers):
        if part is not None:
            held = held + weight_bytes(part, layout, precision)
    return held


def checkpoint_bytes(architecture: Architecture, precision: Precision) -> float:
    """Weights of the whole model in the given formats [B], MTP layers excluded."""
    return sum(
        count * precision.weight(cls).bytes for cls, count in architecture.elements().items()
    )


def sequence_bytes(
    architecture: Architecture, layout: Layout, precision: Precision, tokens: Numeric,
    page: Numeric, memory: Numeric = 0.0,
) -> Numeric:  # fmt: skip
    """Cache one sequence of ``tokens`` tokens costs the fullest GPU [B], recurrent state included.

    Sliding-window layers keep their window only; context parallelism divides the tokens.
    ``memory`` is the number of encoder tokens whose keys cross attention keeps.
    """
    step = _context(architecture, layout, precision)
    parts: list[Numeric] = []
    for layer, count in architecture.distinct():
        kept = caches(step, layer.mixer, tokens) + caches(step, layer.cross, memory)
        for entries, width in kept:
            pages = sequence_cache_bytes(entries / layout.cp, page, width)
            # a recurrent state is no page
            parts.append(count * (width if isinstance(layer.mixer, (GatedDelta, Mamba)) else pages))
    if not parts:
        return 0.0
    return total(*parts) * stage_layers(architecture.layers, layout.pp) / architecture.layers


def footprint(
    architecture: Architecture, layout: Layout, precision: Precision, *,
    capacity: Numeric, utilization: Numeric, budget: Numeric, seqs: Numeric, page: Numeric,
    mean_tokens: Numeric, full_tokens: Numeric, runtime: Numeric, graphs: Numeric,
    communication: Numeric, memory: Numeric = 0.0,
) -> Footprint:  # fmt: skip
    """Memory of one GPU of the deployment, and how many sequences fit.

    Parameters
    ----------
    capacity, utilization : numeric
        Device memory [B] and the share the engine may take [1].
    budget, seqs, page : numeric
        Token budget of a step, sequences sampled at once, tokens per cache page.
    mean_tokens, full_tokens : numeric
        Mean and final length of a sequence.
    runtime, graphs, communication : numeric
        Overheads of the software [B].
    """
    with label("memory"):
        weights = weight_bytes(architecture, layout, precision)
        activations = activation_peak(
            budget / layout.cp, float(architecture.hidden), _widest(architecture, layout),
            precision.base.bytes, seqs,
            architecture.vocab / layout.tp if architecture.head else 0.0,
            _LOGIT_BYTES,
        )  # fmt: skip
        buffers = xp.where(layout.gpus > 1, communication, 0.0)
        reserve = runtime + graphs + buffers
        pool = cache_pool(capacity, utilization, weights, activations, reserve)
        sequence = sequence_bytes(architecture, layout, precision, mean_tokens, page, memory)
        longest = sequence_bytes(architecture, layout, precision, full_tokens, page, memory)
        seqs_fit = sequences_that_fit(pool, xp.maximum(sequence, 1.0), 0.0)
    return Footprint(
        weights, activations, runtime, graphs, buffers, pool, sequence, longest, seqs_fit
    )


def _context(architecture: Architecture, layout: Layout, precision: Precision) -> StepContext:
    return step_context((TokenGroup(1.0, 1.0, 0.0),), layout, precision, architecture)


def _layer_bytes(step: StepContext, layer: Layer, norm_width: int) -> Numeric:
    precision = step.precision
    parts: list[Numeric] = [layer.norms * norm_width * precision.weight("norm").bytes]
    for linear in layer.linears(step.hidden):
        inner = step.local(linear.inputs)
        cols = total(*(step.local(dim) for dim in linear.outputs))
        parts.append(tensor_bytes(inner * cols, precision.weight(linear.cls).bytes))
    for part in (layer.mixer, layer.cross, layer.ffn):
        if part is not None:
            parts.append(part.small_elements(step.hidden) * precision.weight("norm").bytes)
    if isinstance(layer.ffn, MoeFfn):
        expert = sum(linear.elements for linear in layer.ffn.expert_linears(step.hidden))
        held = layer.ffn.experts / step.layout.ep * expert / step.layout.moe_tp
        parts.append(tensor_bytes(held, precision.weight("experts").bytes))
    return total(*parts)


def _rest_bytes(architecture: Architecture, precision: Precision) -> Numeric:
    """Norms around the layers, poolers, projectors and operator graphs: not sharded."""
    elements = (
        int(architecture.final_norm) + architecture.embedding_norms
    ) * architecture.norm_width
    elements += architecture.extra_elements
    elements += sum(linear.elements for linear in architecture.extra)
    elements += architecture.graph.elements if architecture.graph else 0
    return elements * precision.base.bytes


def _widest(architecture: Architecture, layout: Layout) -> Numeric:
    """Widest activation of a layer part on one rank."""
    widths: list[Numeric] = [float(architecture.hidden)]
    for layer, _ in architecture.distinct():
        if isinstance(layer.ffn, DenseFfn):
            widths.append(layer.ffn.inner * (2 if layer.ffn.gated else 1) / layout.tp)
        elif isinstance(layer.ffn, MoeFfn):
            factor = 2 if layer.ffn.gated else 1
            widths.append(layer.ffn.top_k * layer.ffn.inner * factor / layout.moe_tp)
    widest = widths[0]
    for width in widths[1:]:
        widest = xp.maximum(widest, width)
    return widest
