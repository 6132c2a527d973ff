"""Convolutional and diffusion networks from a few numbers: UNet, ResNet, DiT.

`build` takes the ``graph`` table of a preset; ``kind`` picks the network and the remaining keys are
the fields of `UNet`, `ResNet` or `DiT`, named as in diffusers and torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from perfmodel.core.errors import DataError, near
from perfmodel.core.strict import validated
from perfmodel.models.graph import Attend, Conv, GraphNode, Matmul, OperatorGraph, Pointwise


@dataclass(frozen=True, slots=True)
class ResNet:
    """Residual network: ``depths`` blocks per stage, with bottlenecks (50, 101, 152) or without.

    Source: He et al., arXiv 1512.03385, table 1 (stride in the 3x3 convolution, as torchvision).
    """

    depths: tuple[int, ...]
    bottleneck: bool = True
    width: int = 64
    image_size: int = 224
    classes: int = 1000
    in_channels: int = 3

    def nodes(self) -> list[GraphNode]:
        """Stem, stages, pooled classifier."""
        side = _halved(self.image_size)
        nodes = _conv_bn("stem", self.in_channels, self.width, 7, side, stride=2)
        side, channels = _halved(side), self.width
        nodes.append(Pointwise("stem.pool", channels * side**2))
        for stage, depth in enumerate(self.depths):
            inner = self.width * 2**stage
            for block in range(depth):
                stride = 2 if stage and not block else 1
                name = f"stage{stage + 1}.{block}"
                nodes += self._block(name, channels, inner, side, stride)
                side = _halved(side) if stride == 2 else side
                channels = inner * (4 if self.bottleneck else 1)
        nodes.append(Pointwise("pool", channels * side**2))
        return [*nodes, Matmul("classifier", 1, channels, self.classes)]

    def _block(self, name: str, inputs: int, inner: int, side: int, stride: int) -> list[GraphNode]:
        small = _halved(side) if stride == 2 else side
        if self.bottleneck:
            outputs = 4 * inner
            nodes = _conv_bn(f"{name}.conv1", inputs, inner, 1, side)
            nodes += _conv_bn(f"{name}.conv2", inner, inner, 3, small, stride)
            nodes += _conv_bn(f"{name}.conv3", inner, outputs, 1, small)
        else:
            outputs = inner
            nodes = _conv_bn(f"{name}.conv1", inputs, inner, 3, small, stride)
            nodes += _conv_bn(f"{name}.conv2", inner, inner, 3, small)
        if stride != 1 or inputs != outputs:
            nodes += _conv_bn(f"{name}.shortcut", inputs, outputs, 1, small, stride)
        return [*nodes, Pointwise(f"{name}.add", outputs * small**2)]


@dataclass(frozen=True, slots=True)
class DiT:
    """Diffusion transformer with adaptive layer norm (adaLN-Zero) on a latent of ``sample_size``.

    Parameters include the fixed position table and the class embedding's extra row for guidance.
    Source: Peebles and Xie, arXiv 2212.09748, table 1.
    """

    hidden_size: int
    depth: int
    heads: int
    patch_size: int
    sample_size: int = 32
    in_channels: int = 4
    mlp_ratio: int = 4
    classes: int = 1000
    frequencies: int = 256
    learn_sigma: bool = True

    def nodes(self) -> list[GraphNode]:
        """Embeddings, equal blocks, final layer."""
        hidden, side = self.hidden_size, self.sample_size // self.patch_size
        rows, inner = side**2, self.mlp_ratio * hidden
        pixels = self.patch_size**2 * self.in_channels
        outputs = pixels * (2 if self.learn_sigma else 1)
        size = rows * hidden
        return [
            Conv("patch", self.in_channels, hidden, self.patch_size, side, side,
                 stride=self.patch_size),
            Pointwise("positions", size, weights=size),
            Matmul("time.fc1", 1, self.frequencies, hidden),
            Matmul("time.fc2", 1, hidden, hidden),
            Pointwise("label", hidden, weights=(self.classes + 1) * hidden),
            Matmul("block.modulation", 1, hidden, 6 * hidden, repeat=self.depth),
            Pointwise("block.norm1", size, repeat=self.depth),
            Matmul("block.qkv", rows, hidden, 3 * hidden, repeat=self.depth),
            Attend("block.attention", rows, rows, self.heads, hidden // self.heads, self.depth),
            Matmul("block.out", rows, hidden, hidden, repeat=self.depth),
            Pointwise("block.norm2", size, repeat=self.depth),
            Matmul("block.fc1", rows, hidden, inner, repeat=self.depth),
            Pointwise("block.gelu", rows * inner, repeat=self.depth),
            Matmul("block.fc2", rows, inner, hidden, repeat=self.depth),
            Matmul("final.modulation", 1, hidden, 2 * hidden),
            Pointwise("final.norm", size),
            Matmul("final.out", rows, hidden, outputs),
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class UNet:
    """Text-conditioned UNet of Stable Diffusion (diffusers ``UNet2DConditionModel``).

    Per level, from the widest picture down: channels, attention heads and transformer blocks (0: a
    level without attention); ``mid_transformer_layers`` belong to the middle block.
    ``projection_class_embeddings_input_dim`` is the width of SDXL's added text and size embedding,
    ``context_tokens`` the length of the text. Source: Podell et al., arXiv 2307.01952, section 2.1.
    """

    block_out_channels: tuple[int, ...]
    transformer_layers_per_block: tuple[int, ...]
    attention_heads: tuple[int, ...]
    cross_attention_dim: int
    mid_transformer_layers: int
    sample_size: int
    layers_per_block: int = 2
    in_channels: int = 4
    out_channels: int = 4
    context_tokens: int = 77
    projection_class_embeddings_input_dim: int = 0

    def nodes(self) -> list[GraphNode]:
        """Down path, middle, up path with skip connections; sides halve level by level."""
        channels, time = self.block_out_channels, 4 * self.block_out_channels[0]
        added = self.projection_class_embeddings_input_dim
        sides = [self.sample_size]
        for _ in channels[1:]:
            sides.append(_halved(sides[-1]))
        nodes: list[GraphNode] = [
            Matmul("time.fc1", 1, channels[0], time),
            Matmul("time.fc2", 1, time, time),
        ]
        if added:
            nodes += [Matmul("added.fc1", 1, added, time), Matmul("added.fc2", 1, time, time)]
        nodes.append(_conv3("conv_in", self.in_channels, channels[0], sides[0]))
        nodes += self._down(sides)
        last, side = len(channels) - 1, sides[-1]
        nodes += self._resnet("mid.0", channels[-1], channels[-1], side)
        nodes += self._transformer("mid", last, self.mid_transformer_layers, side)
        nodes += self._resnet("mid.1", channels[-1], channels[-1], side)
        nodes += self._up(sides)
        norm = Pointwise("norm_out", channels[0] * sides[0] ** 2, 2 * channels[0])
        return [*nodes, norm, _conv3("conv_out", channels[0], self.out_channels, sides[0])]

    def _down(self, sides: list[int]) -> list[GraphNode]:
        nodes: list[GraphNode] = []
        inputs, last = self.block_out_channels[0], len(sides) - 1
        for level, width in enumerate(self.block_out_channels):
            for i in range(self.layers_per_block):
                name = f"down{level}.{i}"
                nodes += self._resnet(name, inputs, width, sides[level])
                nodes += self._transformer(name, level, self._blocks(level), sides[level])
                inputs = width
            if level < last:
                nodes.append(_conv3(f"down{level}.sample", width, width, sides[level + 1], 2))
        return nodes

    def _up(self, sides: list[int]) -> list[GraphNode]:
        nodes: list[GraphNode] = []
        channels = self.block_out_channels
        before = channels[-1]
        for level in reversed(range(len(channels))):
            width, below = channels[level], channels[max(level - 1, 0)]
            for i in range(self.layers_per_block + 1):
                skip = below if i == self.layers_per_block else width
                name = f"up{level}.{i}"
                nodes += self._resnet(name, before + skip, width, sides[level])
                nodes += self._transformer(name, level, self._blocks(level), sides[level])
                before = width
            if level:
                nodes.append(_conv3(f"up{level}.sample", width, width, sides[level - 1]))
        return nodes

    def _blocks(self, level: int) -> int:
        return self.transformer_layers_per_block[level]

    def _resnet(self, name: str, inputs: int, outputs: int, side: int) -> list[GraphNode]:
        nodes: list[GraphNode] = [
            Pointwise(f"{name}.norm1", inputs * side**2, 2 * inputs),
            _conv3(f"{name}.conv1", inputs, outputs, side),
            Matmul(f"{name}.time", 1, 4 * self.block_out_channels[0], outputs),
            Pointwise(f"{name}.norm2", outputs * side**2, 2 * outputs),
            _conv3(f"{name}.conv2", outputs, outputs, side),
        ]
        if inputs != outputs:
            nodes.append(Conv(f"{name}.shortcut", inputs, outputs, 1, side, side))
        return nodes

    def _transformer(self, name: str, level: int, blocks: int, side: int) -> list[GraphNode]:
        if not blocks:
            return []
        width, heads, rows = self.block_out_channels[level], self.attention_heads[level], side**2
        dim, text, size = width // heads, self.context_tokens, rows * width
        context = self.cross_attention_dim
        return [
            Pointwise(f"{name}.norm", size, 2 * width),
            Matmul(f"{name}.proj_in", rows, width, width),
            Pointwise(f"{name}.norms", size, 2 * width, repeat=3 * blocks),
            Matmul(f"{name}.self.qkv", rows, width, 3 * width, bias=False, repeat=blocks),
            Attend(f"{name}.self", rows, rows, heads, dim, blocks),
            Matmul(f"{name}.self.out", rows, width, width, repeat=blocks),
            Matmul(f"{name}.cross.q", rows, width, width, bias=False, repeat=blocks),
            Matmul(f"{name}.cross.kv", text, context, 2 * width, bias=False, repeat=blocks),
            Attend(f"{name}.cross", rows, text, heads, dim, blocks),
            Matmul(f"{name}.cross.out", rows, width, width, repeat=blocks),
            Matmul(f"{name}.geglu", rows, width, 8 * width, repeat=blocks),
            Pointwise(f"{name}.gelu", 4 * size, repeat=blocks),
            Matmul(f"{name}.down", rows, 4 * width, width, repeat=blocks),
            Matmul(f"{name}.proj_out", rows, width, width),
        ]


_KINDS: dict[str, type[ResNet | DiT | UNet]] = {
    "resnet": ResNet,
    "dit": DiT,
    "unet": UNet,
}


def build(name: str, table: Mapping[str, Any]) -> OperatorGraph:
    """Operators of one forward pass of one sample.

    Parameters
    ----------
    name : str
        What the graph is called, for messages too.
    table : mapping
        ``kind`` (``unet``, ``resnet`` or ``dit``) and the fields of that class.

    Raises
    ------
    perfmodel.core.errors.DataError
        Unknown kind or key, a missing or mistyped value, levels of unlike number.

    Examples
    --------
    >>> build("r50", {"kind": "resnet", "depths": [3, 4, 6, 3]}).elements
    25557032
    """
    fields = dict(table)
    kind = str(fields.pop("kind", ""))
    if kind not in _KINDS:
        raise DataError(
            f"{name}: graph kind {kind!r}{near(kind, _KINDS)}; known: {', '.join(_KINDS)}"
        )
    spec = cast("ResNet | DiT | UNet", validated(_KINDS[kind], fields, f"{name}: graph"))
    _check(spec, name)
    return OperatorGraph(name, tuple(spec.nodes()))


def _check(spec: ResNet | DiT | UNet, name: str) -> None:
    """Refuse sizes that are not positive and divisions that leave a rest."""
    for key in spec.__dataclass_fields__:
        value = getattr(spec, key)
        for item in cast("tuple[int, ...]", value) if isinstance(value, tuple) else (value,):
            least = 0 if key in _MAY_BE_ZERO else 1
            if not isinstance(item, bool) and not least <= item <= 10**6:
                raise DataError(
                    f"{name}: graph: {key} has {item}, must be from {least} to 1,000,000"
                )
    for key, whole, part in _divisions(spec):
        if whole % part:
            raise DataError(f"{name}: graph: {key} = {whole} / {part} is not a whole number")
    if isinstance(spec, UNet):
        levels = len(spec.block_out_channels)
        for key in ("transformer_layers_per_block", "attention_heads"):
            if len(getattr(spec, key)) != levels or not levels:
                raise DataError(f"{name}: graph: {key} must have {levels} entries, one per level")


_MAY_BE_ZERO = (
    "transformer_layers_per_block",
    "mid_transformer_layers",
    "projection_class_embeddings_input_dim",
)


def _divisions(spec: ResNet | DiT | UNet) -> list[tuple[str, int, int]]:
    if isinstance(spec, DiT):
        return [
            ("hidden_size / heads", spec.hidden_size, spec.heads),
            ("sample_size / patch_size", spec.sample_size, spec.patch_size),
        ]
    if isinstance(spec, UNet):
        levels = zip(spec.block_out_channels, spec.attention_heads, strict=False)
        return [("channels / attention_heads", width, heads) for width, heads in levels]
    return []


def _halved(side: int) -> int:
    """Output side of a convolution with stride 2 and same padding."""
    return -(-side // 2)


def _conv3(name: str, inputs: int, outputs: int, side: int, stride: int = 1) -> Conv:
    return Conv(name, inputs, outputs, 3, side, side, stride=stride)


def _conv_bn(
    name: str, inputs: int, outputs: int, kernel: int, side: int, stride: int = 1
) -> list[GraphNode]:
    """Convolution without bias, batch norm (scale and shift), activation."""
    conv = Conv(name, inputs, outputs, kernel, side, side, stride=stride, bias=False)
    return [conv, Pointwise(f"{name}.norm", outputs * side**2, 2 * outputs)]
