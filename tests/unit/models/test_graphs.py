"""`perfmodel.models.families.graphs` against published and counted networks."""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.core.errors import DataError
from perfmodel.models.families.graphs import build
from perfmodel.models.graph import Attend, Conv, Matmul, OperatorGraph

SDXL: dict[str, Any] = {
    "kind": "unet",
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [0, 2, 10],
    "mid_transformer_layers": 10,
    "attention_heads": [5, 10, 20],
    "cross_attention_dim": 2048,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
SD15: dict[str, Any] = {
    "kind": "unet",
    "block_out_channels": [320, 640, 1280, 1280],
    "transformer_layers_per_block": [1, 1, 1, 0],
    "mid_transformer_layers": 1,
    "attention_heads": [8, 8, 8, 8],
    "cross_attention_dim": 768,
    "sample_size": 64,
}
ODD: dict[str, Any] = {
    "kind": "unet",
    "block_out_channels": [32, 96],
    "transformer_layers_per_block": [3, 0],
    "mid_transformer_layers": 3,
    "attention_heads": [2, 3],
    "cross_attention_dim": 40,
    "sample_size": 10,
    "layers_per_block": 1,
    "in_channels": 5,
    "out_channels": 3,
}
RESNET50: dict[str, Any] = {"kind": "resnet", "depths": [3, 4, 6, 3]}
DIT_XL: dict[str, Any] = {
    "kind": "dit",
    "hidden_size": 1152,
    "depth": 28,
    "heads": 16,
    "patch_size": 2,
}


def _macs(graph: OperatorGraph) -> int:
    """Multiply-accumulates of convolutions, maps and both attention products."""
    total = 0
    for node in graph.nodes:
        if isinstance(node, Conv):
            taps = node.in_channels // node.groups * node.kernel**2
            total += node.repeat * node.out_height * node.out_width * node.out_channels * taps
        elif isinstance(node, Matmul):
            total += node.repeat * node.rows * node.inputs * node.outputs
        elif isinstance(node, Attend):
            width = node.heads * node.head_dim
            total += 2 * node.repeat * node.queries * node.keys * width
    return total


@pytest.mark.parametrize(
    ("table", "count"),
    [
        # diffusers UNet2DConditionModel on the meta device, with the published configurations
        (SDXL, 2_567_463_684),
        (SD15, 859_520_964),
        (ODD, 1_955_523),
        # torchvision model cards; transformers 5.23.0 ResNetForImageClassification agrees
        ({"kind": "resnet", "depths": [2, 2, 2, 2], "bottleneck": False}, 11_689_512),
        ({"kind": "resnet", "depths": [3, 4, 6, 3], "bottleneck": False}, 21_797_672),
        (RESNET50, 25_557_032),
        ({"kind": "resnet", "depths": [3, 4, 23, 3]}, 44_549_160),
    ],
)
def test_exact_parameters(table: dict[str, Any], count: int) -> None:
    assert build("g", table).elements == count


@pytest.mark.parametrize(
    ("sample_size", "gigaflops"),
    # README of github.com/facebookresearch/DiT: XL/2 at 256 and 512 pixels (multiply-accumulates)
    [(32, 119), (64, 525)],
)
def test_dit_as_published(sample_size: int, gigaflops: float) -> None:
    graph = build("dit", {**DIT_XL, "sample_size": sample_size})
    assert _macs(graph) / 1e9 == pytest.approx(gigaflops, abs=0.6)


def test_dit_parameters_by_hand() -> None:
    """675 M (Peebles and Xie, arXiv 2212.09748): the sum of the terms, written out."""
    d = 1152
    block = 4 * d * d + 4 * d + 2 * (d * 4 * d) + 5 * d + 6 * d * d + 6 * d
    ends = (4 * 4 + 1) * d + (256 + 1) * d + (d + 1) * d + 1001 * d + 256 * d
    final = 2 * d * d + 2 * d + (d + 1) * 4 * 8
    assert build("dit", DIT_XL).elements == 28 * block + ends + final == 675_129_632


@pytest.mark.parametrize(
    ("depths", "bottleneck", "gigaflops"),
    # torchvision model cards, "GFLOPS" (multiply-accumulates) at 224 x 224
    [([2, 2, 2, 2], False, 1.81), ([3, 4, 6, 3], True, 4.09), ([3, 4, 23, 3], True, 7.80)],
)
def test_resnet_work(depths: list[int], bottleneck: bool, gigaflops: float) -> None:
    graph = build("r", {"kind": "resnet", "depths": depths, "bottleneck": bottleneck})
    assert _macs(graph) / 1e9 == pytest.approx(gigaflops, abs=0.01)


def test_work_scales_with_the_picture_and_parameters_do_not() -> None:
    small, large = build("s", SDXL), build("l", {**SDXL, "sample_size": 256})
    assert small.elements == large.elements
    convolutions = [
        sum(n.out_height * n.out_width for n in graph.nodes if isinstance(n, Conv))
        for graph in (small, large)
    ]
    assert convolutions[1] == 4 * convolutions[0]


def test_self_attention_is_quadratic_and_cross_attention_linear() -> None:
    nodes = {node.name: node for node in build("s", SDXL).nodes if isinstance(node, Attend)}
    own, cross = nodes["down1.0.self"], nodes["down1.0.cross"]
    assert (own.queries, own.keys, cross.keys) == (64 * 64, 64 * 64, 77)
    assert own.heads * own.head_dim == 640


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"kind": "unett"}, "graph kind 'unett'; nearest: unet"),
        ({}, "graph kind ''"),
        ({"kind": "resnet"}, "depths: Field required"),
        ({**RESNET50, "depth": 3}, "depth: Unexpected keyword argument"),
        ({**RESNET50, "depths": [3, 0]}, "depths has 0, must be from 1 to 1,000,000"),
        ({**RESNET50, "image_size": "big"}, "image_size: Input should be a valid integer"),
        ({**RESNET50, "classes": 10**7}, "classes has 10000000"),
        ({**DIT_XL, "heads": 7}, "hidden_size / heads = 1152 / 7 is not a whole number"),
        ({**DIT_XL, "sample_size": 33}, "sample_size / patch_size = 33 / 2"),
        ({**SDXL, "attention_heads": [5, 10]}, "attention_heads must have 3 entries"),
        ({**SDXL, "block_out_channels": []}, "must have 0 entries"),
        ({**SDXL, "attention_heads": [7, 10, 20]}, "channels / attention_heads = 320 / 7"),
    ],
)
def test_bad_table(table: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        build("g", table)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
