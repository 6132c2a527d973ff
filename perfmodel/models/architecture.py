"""An architecture: runs of layers between an embedding and a head, plus optional towers.

The one description of a model that every calculation reads. It holds shapes only; precision is
`perfmodel.core.precision`, where it came from is `perfmodel.models.presets`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from perfmodel.models.blocks import DenseFfn, Dim, Ffn, Linear, MoeFfn, TensorClass
from perfmodel.models.graph import OperatorGraph
from perfmodel.models.mixers import CompressedAttention, LatentAttention, Mixer, SoftmaxAttention


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a token mixer, optional cross attention, a feed-forward network; each optional.

    ``norms`` counts the hidden-width norms; ``parallel`` layers feed attention and FFN from one
    input, so tensor parallelism reduces their sum once. ``streams`` residual streams are mixed by
    hyper-connections around each block (0: one plain residual; DeepSeek-V4 report, section 2.2).
    """

    name: str
    mixer: Mixer | None = None
    ffn: Ffn | None = None
    cross: SoftmaxAttention | None = None
    norms: int = 2
    parallel: bool = False
    streams: int = 0

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Maps every token passes (routed experts apart: `MoeFfn.expert_linears`)."""
        parts = [part for part in (self.mixer, self.cross, self.ffn) if part]
        maps = tuple(linear for part in parts for linear in part.linears(hidden))
        return maps + self.hyper_linears(hidden)

    def hyper_linears(self, hidden: int) -> tuple[Linear, ...]:
        """Maps that compute each block's mixing of the residual streams (none with one stream).

        Coefficients of one hyper-connection: into the block, back, and among the streams.
        """
        if not self.streams:
            return ()
        wide, mixed = Dim(self.streams * hidden), (Dim(self.streams * (2 + self.streams)),)
        blocks = sum(part is not None for part in (self.mixer, self.cross, self.ffn))
        return tuple(Linear(f"hyper_{i}", wide, mixed, "mixer", bias=True) for i in range(blocks))

    def elements(self, hidden: int, norm_width: int) -> dict[TensorClass, int]:
        """Parameters of one layer by tensor class."""
        count: dict[TensorClass, int] = {"norm": self.norms * norm_width}
        for linear in self.linears(hidden):
            count[linear.cls] = count.get(linear.cls, 0) + linear.elements
        for part in (self.mixer, self.cross, self.ffn):
            if part:
                count["norm"] += part.small_elements(hidden) + (3 if self.streams else 0)
        if isinstance(self.ffn, MoeFfn):
            expert = sum(linear.elements for linear in self.ffn.expert_linears(hidden))
            count["experts"] = self.ffn.experts * expert
        return count


@dataclass(frozen=True, slots=True)
class Run:
    """``count`` equal layers in a row."""

    layer: Layer
    count: int


def stacked(layers: Iterable[Layer]) -> tuple[Run, ...]:
    """Layers in order as runs, equal neighbours together."""
    runs: list[Run] = []
    for layer in layers:
        if runs and runs[-1].layer == layer:
            runs[-1] = Run(layer, runs[-1].count + 1)
        else:
            runs.append(Run(layer, 1))
    return tuple(runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Everything around the layers of a network.

    Parameters
    ----------
    tied : bool
        Head shares the embedding's weights.
    causal : bool
        Decoder (tokens see the past only) or encoder.
    head, head_bias : bool
        Whether a language-model head exists, and has a bias.
    norm_bias, final_norm, embedding_norms : norm layout
        Bias in norms; a norm after the last layer; norms right after the embedding.
    positions, token_types : int
        Rows of learned position and segment tables.
    extra : tuple of Linear
        Maps applied once per sequence or pass (pooler, projector, patch embedding).
    extra_elements : int
        Other parameters outside the layers.
    """

    tied: bool = False
    causal: bool = True
    head: bool = True
    head_bias: bool = False
    norm_bias: bool = False
    final_norm: bool = True
    embedding_norms: int = 0
    positions: int = 0
    token_types: int = 0
    extra: tuple[Linear, ...] = ()
    extra_elements: int = 0


@dataclass(frozen=True, slots=True)
class Architecture(Details):
    """A network's shape.

    Parameters
    ----------
    name : str
        Identifier, normally the Hugging Face repository.
    hidden, vocab, context : int
        Width of the residual stream, vocabulary, longest supported sequence [tokens].
    runs : tuple of Run
        Layers in order.
    mtp : tuple of Run
        Multi-token-prediction layers, stored beside the main model and used only for drafting.
    encoder : Architecture or None
        The encoder of an encoder-decoder model.
    towers : tuple of Architecture
        Vision or audio towers.
    graph : OperatorGraph or None
        Convolutional part (CNN, UNet), for models that are not a stack of layers.
    """

    name: str
    hidden: int
    vocab: int
    context: int
    runs: tuple[Run, ...]
    mtp: tuple[Run, ...] = ()
    encoder: Architecture | None = None
    towers: tuple[Architecture, ...] = ()
    graph: OperatorGraph | None = None

    @property
    def layers(self) -> int:
        """Number of layers."""
        return sum(run.count for run in self.runs)

    @property
    def norm_width(self) -> int:
        """Parameters of one hidden-width norm."""
        return self.hidden * (2 if self.norm_bias else 1)

    def distinct(self) -> tuple[tuple[Layer, int], ...]:
        """Unlike layers with how often each occurs, in order of first appearance."""
        counts: dict[Layer, int] = {}
        for run in self.runs:
            counts[run.layer] = counts.get(run.layer, 0) + run.count
        return tuple(counts.items())

    def head_linear(self) -> Linear:
        """The vocabulary projection."""
        vocab = Dim(self.vocab, self.vocab)
        return Linear("lm_head", Dim(self.hidden), (vocab,), "head", self.head_bias)

    def elements(self) -> dict[TensorClass, int]:
        """Parameters by tensor class, the parts of the whole model together; MTP excluded."""
        total: dict[TensorClass, int] = {}
        for part in self._own_elements(self.runs):
            _add(total, part)
        embedding = (self.vocab + self.positions + self.token_types) * self.hidden
        norms = (int(self.final_norm) + self.embedding_norms) * self.norm_width
        _add(total, {"embedding": embedding, "norm": norms})
        if self.head:
            tied = self.hidden * self.vocab if self.tied else 0
            _add(total, {"head": self.head_linear().elements - tied})
        for linear in self.extra:
            _add(total, {linear.cls: linear.elements})
        _add(total, {"norm": self.extra_elements})
        if self.graph:
            _add(total, {"mixer": self.graph.elements})
        for part in ((self.encoder,) if self.encoder else ()) + self.towers:
            _add(total, part.elements())
        return total

    def _own_elements(self, runs: tuple[Run, ...]) -> Iterator[dict[TensorClass, int]]:
        for run in runs:
            one = run.layer.elements(self.hidden, self.norm_width)
            yield {cls: count * run.count for cls, count in one.items()}

    @property
    def parameters(self) -> int:
        """All parameters of the main model (what the model card counts), MTP excluded."""
        return sum(self.elements().values())

    @property
    def mtp_parameters(self) -> int:
        """Parameters of multi-token prediction: layers; per module a merge projection, three norms.

        A layer with a mixer opens a module (Nemotron 3 splits one module into two layers).
        """
        layers = sum(sum(part.values()) for part in self._own_elements(self.mtp))
        depth = sum(run.count for run in self.mtp if run.layer.mixer)
        return layers + depth * (2 * self.hidden**2 + 3 * self.norm_width)

    @property
    def active_parameters(self) -> int:
        """Parameters one token multiplies with: ``top_k`` of the routed experts, no embedding rows.

        The embedding is a table look-up; a tied head still multiplies with all of it. Text tokens
        do not pass the towers.
        """
        elements = replace(self, towers=()).elements()
        idle = sum(run.count * _idle_experts(run.layer, self.hidden) for run in self.runs)
        tied_head = self.hidden * self.vocab if self.head and self.tied else 0
        return sum(elements.values()) - elements["embedding"] - idle + tied_head

    def kv_elements_per_token(self) -> int:
        """Cache elements one more token adds over all layers (window not yet full)."""
        return sum(run.count * cache_elements(run.layer.mixer) for run in self.runs)

    def state_elements(self) -> int:
        """Recurrent state elements per sequence over all layers."""
        return sum(run.count * getattr(run.layer.mixer, "state_elements", 0) for run in self.runs)


def cache_elements(mixer: Mixer | None) -> int:
    """KV-cache elements per token of one layer: 2·heads·dim, or one latent (index keys apart).

    A compressed cache grows by one vector per ``ratio`` tokens; its window is constant.
    """
    if isinstance(mixer, SoftmaxAttention):
        return mixer.kv_heads * (mixer.head_dim + (mixer.value_dim or mixer.head_dim))
    if isinstance(mixer, LatentAttention):
        return mixer.kv_rank + mixer.rope_dim
    if isinstance(mixer, CompressedAttention):
        return mixer.head_dim // mixer.ratio if mixer.ratio else 0
    return 0


def moe_layers(architecture: Architecture) -> int:
    """Number of layers with routed experts."""
    return sum(run.count for run in architecture.runs if isinstance(run.layer.ffn, MoeFfn))


def dense_inner(architecture: Architecture) -> int:
    """Widest dense FFN, 0 if there is none."""
    widths = [
        run.layer.ffn.inner for run in architecture.runs if isinstance(run.layer.ffn, DenseFfn)
    ]
    return max(widths, default=0)


def _idle_experts(layer: Layer, hidden: int) -> int:
    if not isinstance(layer.ffn, MoeFfn):
        return 0
    expert = sum(linear.elements for linear in layer.ffn.expert_linears(hidden))
    return (layer.ffn.experts - layer.ffn.top_k) * expert


def _add(total: dict[TensorClass, int], part: dict[TensorClass, int]) -> None:
    for cls, count in part.items():
        total[cls] = total.get(cls, 0) + count
