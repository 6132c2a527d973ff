"""Layouts: GPUs they take, shapes they leave per rank, which of them a model allows."""

import numpy as np
import pytest

from perfmodel.core.types import Reason
from perfmodel.models import preset
from perfmodel.models.architecture import Architecture, Layer, Run
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.mixers import GatedDelta, Mamba, SoftmaxAttention
from perfmodel.parallel.layout import Layout, illegal, legal, legal_sizes
from perfmodel.parallel.shard import split_size, stage_layers

DENSE = Architecture(
    "dense", 128, 1000, 4096, (Run(Layer("l", SoftmaxAttention(12, 4, 16), DenseFfn(512)), 6),)
)
MOE = Architecture(
    "moe", 128, 1000, 4096, (Run(Layer("l", SoftmaxAttention(12, 4, 16), MoeFfn(20, 2, 64)), 6),)
)


def one(mixer: GatedDelta | Mamba) -> Architecture:
    return Architecture("one", 128, 1000, 4096, (Run(Layer("l", mixer, DenseFfn(512)), 2),))


def rules(architecture: Architecture, layout: Layout) -> list[tuple[str, str]]:
    return [(text, near) for mask, text, near in illegal(architecture, layout) if np.any(mask)]


def test_gpus_of_a_layout() -> None:
    assert Layout().gpus == 1
    assert Layout(tp=8.0, pp=2.0, dp=3.0, cp=2.0).gpus == 96
    # expert parallelism takes no GPUs of its own; what it does not divide, tensors do
    assert Layout(tp=4.0, dp=8.0, ep=8.0).gpus == 32
    assert Layout(tp=4.0, dp=8.0, ep=8.0).moe_tp == 4
    assert Layout(tp=4.0, dp=8.0, ep=32.0).moe_tp == 1


@pytest.mark.parametrize(
    ("size", "units", "tp", "local"),
    [
        (96, 12, 4, 24),
        (96, 12, 5, 24),
        (64, 4, 8, 16),
        (64, 4, 4, 16),
        (64, 4, 1, 64),
        (7, 7, 2, 4),
    ],
)
def test_split_by_granules(size: float, units: float, tp: float, local: float) -> None:
    assert split_size(size, units, tp) == local


def test_stages() -> None:
    assert [stage_layers(61.0, pp) for pp in (1.0, 2.0, 4.0, 61.0)] == [61, 31, 16, 1]


@pytest.mark.parametrize(
    ("architecture", "layout", "message", "nearest"),
    [
        (DENSE, Layout(tp=8.0), "tp=8 does not divide 12 attention heads", "1, 2, 3, 4, 6, 12"),
        (DENSE, Layout(pp=7.0), "pp=7 exceeds 6 layers", "pp up to 6"),
        (DENSE, Layout(dp=2.0, ep=2.0), "ep=2 but the model has no experts", "ep=1"),
        (MOE, Layout(dp=8.0, ep=8.0), "ep=8 does not divide 20 experts", "1, 2, 4, 5, 10, 20"),
        (MOE, Layout(dp=2.0, ep=4.0), "ep=4 does not divide tp x dp x cp = 2", "divides"),
        (one(GatedDelta(4, 8, 16, 16, 4)), Layout(tp=16.0), "does not divide 8", "1, 2, 4, 8"),
        (one(Mamba(64, 8, 4, heads=4)), Layout(tp=8.0), "does not divide 4", "1, 2, 4"),
    ],
)
def test_each_rule_says_what_would_do(
    architecture: Architecture, layout: Layout, message: str, nearest: str
) -> None:
    (found,) = rules(architecture, layout)
    assert message in found[0]
    assert nearest in found[1]
    assert legal(architecture, layout) == Reason.LAYOUT


def test_legal_layouts() -> None:
    for layout in (Layout(), Layout(tp=12.0), Layout(pp=6.0), Layout(dp=100.0), Layout(tp=4.0)):
        assert rules(DENSE, layout) == []
    for layout in (Layout(tp=4.0, dp=5.0, ep=20.0), Layout(tp=4.0), Layout(tp=2.0, cp=2.0, ep=4.0)):
        assert rules(MOE, layout) == []


def test_arrays_of_layouts() -> None:
    tp = np.array([1.0, 2.0, 3.0, 5.0, 12.0, 24.0])
    codes = legal(DENSE, Layout(tp=tp))
    assert codes.tolist() == [int(legal(DENSE, Layout(tp=float(size)))) for size in tp]
    assert codes.tolist() == [0, 0, 0, 2, 0, 2]


def test_sizes_a_model_can_take() -> None:
    assert legal_sizes(DENSE, "tp", 64) == [1, 2, 3, 4, 6, 12]
    assert legal_sizes(DENSE, "pp", 64) == [1, 2, 3, 4, 5, 6]
    assert legal_sizes(DENSE, "ep", 64) == [1]
    assert legal_sizes(MOE, "ep", 64) == [1, 2, 4, 5, 10, 20]
    assert legal_sizes(DENSE, "dp", 5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", preset.ids())
def test_every_preset_runs_on_one_gpu_of_any_size(name: str) -> None:
    assert rules(preset.load(name).architecture, Layout()) == []
