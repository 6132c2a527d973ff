"""A sweep is the scalar estimate at every point, in one call, whatever the block size."""

import itertools
import math

import numpy as np
import pytest

import perfmodel
from perfmodel.core.errors import UsageError
from perfmodel.core.types import Reason
from perfmodel.plan import sweep as module
from perfmodel.scenario.estimate import estimate
from perfmodel.serving.metric import METRICS

LLAMA = "meta-llama/Llama-3.1-8B"
COLUMNS = {metric.column for metric in METRICS.values()}


def points(grid):
    """(position, {axis: value}) of every point."""
    lengths = [range(len(values)) for values in grid.axes.values()]
    for position in itertools.product(*lengths):
        yield (
            position,
            {
                name: values[i]
                for (name, values), i in zip(grid.axes.items(), position, strict=True)
            },
        )


def assert_equals_scalar_calls(grid, **fixed):
    """Every column of every point is what `estimate` says of that point alone."""
    overrides = fixed.pop("set", {})
    assert len(grid) == len(list(points(grid)))
    for position, chosen in points(grid):
        changed = {k: v for k, v in overrides.items() if np.ndim(v) == 0 or isinstance(v, str)}
        changed |= {k: chosen.pop(k) for k in list(chosen) if "." in k}
        answer = estimate(**fixed, **chosen, set=changed)
        assert grid.columns["reason"][position] == answer.verdict.reason, chosen
        for name, value in answer.results().items():
            found = grid.columns[name][position]
            assert found == pytest.approx(value, rel=1e-12, nan_ok=True), (name, chosen)


@pytest.mark.parametrize(
    "question",
    [
        {"model": LLAMA, "gpu": "h100-sxm", "isl": [100, 4000], "osl": [1, 2, 500],
         "max_concurrency": [1, 7, 300]},
        {"model": LLAMA, "gpu": "l4", "request_rate": [0.01, 0.5, 3], "isl": [128, 2048],
         "prefix": [0, 100]},
        {"model": "mistralai/Mixtral-8x7B-v0.1", "gpu": "h100-sxm",
         "tensor_parallel_size": [2, 4, 8], "expert_parallel_size": [1, 2],
         "pipeline_parallel_size": [1, 2], "max_concurrency": [1, 33]},
        {"model": "deepseek-ai/DeepSeek-V3", "gpu": "h200-sxm", "tensor_parallel_size": [8, 16],
         "expert_parallel_size": 8, "max_num_batched_tokens": [512, 16384],
         "max_num_seqs": [16, 512], "max_concurrency": 256},
        {"model": "nvidia/Nemotron-H-8B-Base-8K", "gpu": "a100-sxm-80gb", "isl": [100, 7000],
         "data_parallel_size": [1, 2], "num_gpus": [2, 4], "max_concurrency": [8, 64]},
        {"model": "google/gemma-3-12b-it", "gpu": "h100-sxm", "isl": [100, 50000],
         "context_parallel_size": [1, 2], "block_size": [16, 256], "price": [1.0, 2.0]},
        {"model": "google-bert/bert-base-uncased", "gpu": "t4", "isl": [64, 512],
         "max_concurrency": [1, 128]},
        {"model": "openai/whisper-large-v3", "gpu": "l4", "isl": [750, 1500], "osl": [10, 400],
         "max_concurrency": [1, 64]},
    ],
    ids=lambda question: question["model"],
)  # fmt: skip
def test_grid_equals_scalar_calls(question):
    grid = perfmodel.sweep(**question)
    fixed = {name: value for name, value in question.items() if name not in grid.axes}
    assert_equals_scalar_calls(grid, **fixed)
    assert set(grid.columns) == COLUMNS | {"reason"}


def test_kinds_numbers_and_overrides_are_axes_together():
    bandwidth = np.array([2e12, 3.35e12, 8e12])
    grid = perfmodel.sweep(
        max_concurrency=[1, 40],
        gpu=["h100-sxm", "a100-sxm-80gb"],
        model=[LLAMA, "Qwen/Qwen3-8B"],
        quantization=["bf16", "fp8_wo"],
        set={"gpu.memory.bandwidth": bandwidth, "gpu.power.tdp": 500.0},
        isl=2000,
    )
    assert list(grid.axes)[:3] == ["model", "gpu", "quantization"]  # kinds first
    assert grid.axes["gpu.memory.bandwidth"] == bandwidth.tolist()
    assert grid.columns["tpot_ms"].shape == (2, 2, 2, 2, 3)
    assert_equals_scalar_calls(grid, isl=2000, set={"gpu.power.tdp": 500.0})
    assert np.all(np.diff(grid.columns["tpot_ms"], axis=-1) < 0)  # more bandwidth, less waiting


def test_infeasible_points_are_nan_with_a_reason_and_leave_the_others_alone():
    question = {"model": "meta-llama/Llama-3.1-70B", "gpu": "h100-sxm"}
    grid = perfmodel.sweep(**question, tensor_parallel_size=[1, 3, 4, 8], isl=[1000, 200_000])
    expected = [
        [Reason.MEMORY, Reason.CONTEXT],
        [Reason.LAYOUT, Reason.LAYOUT],
        [Reason.OK, Reason.CONTEXT],
        [Reason.OK, Reason.CONTEXT],
    ]
    assert grid.columns["reason"].tolist() == [[int(code) for code in row] for row in expected]
    for name in COLUMNS:
        assert np.array_equal(np.isnan(grid.columns[name]), grid.columns["reason"] != 0), name
    assert_equals_scalar_calls(grid, **question)


def test_saturated_points_are_nan_with_a_reason():
    grid = perfmodel.sweep(model=LLAMA, gpu="h100-sxm", request_rate=[0.1, 1, 1e4])
    assert grid.columns["reason"].tolist() == [Reason.OK, Reason.OK, Reason.SATURATED]
    assert np.isnan(grid.columns["ttft_ms"]).tolist() == [False, False, True]


def test_a_kind_without_the_datapath_is_a_reason_of_its_own():
    grid = perfmodel.sweep(model=LLAMA, gpu=["a100-sxm-80gb", "h100-sxm"], quantization="fp8",
                           max_concurrency=[1, 2, 3])  # fmt: skip
    assert grid.columns["reason"].tolist() == [[Reason.DATAPATH] * 3, [Reason.OK] * 3]
    assert np.isnan(grid.columns["tpot_ms"][0]).all()
    assert np.isfinite(grid.columns["tpot_ms"][1]).all()


@pytest.mark.parametrize("block", [1, 2, 7, 24, 100])
def test_block_boundaries_change_nothing(block, monkeypatch):
    question = {"model": LLAMA, "gpu": ["h100-sxm", "l4"], "isl": [10, 200, 3000, 40000, 5],
                "osl": [1, 20, 300], "max_concurrency": [1, 50, 1000, 7]}  # fmt: skip
    whole = perfmodel.sweep(**question)
    monkeypatch.setattr(module, "BLOCK", block)
    cut = perfmodel.sweep(**question)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(cut.columns[name], column, name)


@pytest.mark.parametrize("lengths", [(), (1,), (17,), (5, 3, 4), (1, 40), (2, 2, 2, 2, 2)])
def test_blocks_cover_every_point_once(lengths, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 6)
    hits = np.zeros(lengths)
    for block in module._blocks(lengths):
        hits[block] += 1
        assert hits[block].size <= 6
    assert np.all(hits == 1)


def test_no_axis_is_one_point():
    grid = perfmodel.sweep(model=LLAMA, gpu="h100-sxm")
    assert (len(grid), grid.axes) == (1, {})
    assert (
        float(grid.columns["tpot_ms"]) == estimate(model=LLAMA, gpu="h100-sxm").results()["tpot_ms"]
    )


@pytest.mark.parametrize("axis", [range(1, 4), (1, 2, 3), np.array([1, 2, 3]), [1.0, 2.0, 3.0]])
def test_an_axis_may_be_any_sequence(axis):
    grid = perfmodel.sweep(model=LLAMA, gpu="h100-sxm", max_concurrency=axis, columns=["tpot_ms"])
    assert grid.axes == {"max_concurrency": [1.0, 2.0, 3.0]}
    assert set(grid.columns) == {"tpot_ms", "reason"}
    assert grid.columns["tpot_ms"].shape == (3,)


def test_to_frame_is_tidy():
    pandas = pytest.importorskip("pandas")
    grid = perfmodel.sweep(model=LLAMA, gpu=["h100-sxm", "l4"], isl=[100, 200_000, 3000],
                           columns=["tpot_ms", "gpus"])  # fmt: skip
    frame = grid.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["gpu", "isl", "tpot_ms", "gpus", "reason"]
    assert len(frame) == len(grid) == 6
    for position, chosen in points(grid):
        (row,) = frame[(frame["gpu"] == chosen["gpu"]) & (frame["isl"] == chosen["isl"])].to_dict(
            "records"
        )
        value = grid.columns["tpot_ms"][position]
        assert row["tpot_ms"] == value or (math.isnan(value) and math.isnan(row["tpot_ms"]))
        assert row["reason"] == ("context" if chosen["isl"] > 1e5 else "ok")
    single = perfmodel.sweep(model=LLAMA, gpu="l4", columns=["gpus"])
    assert len(single.to_frame()) == 1


def test_to_frame_without_pandas_says_what_to_install(monkeypatch):
    import importlib

    def missing(name):
        raise ImportError(name)

    grid = perfmodel.sweep(model=LLAMA, gpu="l4", columns=["gpus"])
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match="pip install"):
        grid.to_frame()


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"columns": ["tpot"]}, "no result column 'tpot'; nearest: tpot_ms"),
        ({"isl": []}, "axis isl is empty"),
        ({"gpu": ()}, "axis gpu is empty"),
        ({"isl": np.ones((2, 2))}, "axis isl must have one dimension, has 2"),
        ({"islands": [1, 2]}, "no 'islands'; nearest: isl"),
        ({"isl": [10, -1]}, "--isl .* is out of range: from 1"),
        ({"isl": [10, float("nan")]}, "--isl .* is not a finite number"),
        ({"gpu": ["h100-sxm", "h100-sxn"]}, "no gpu named 'h100-sxn'; nearest: h100-sxm"),
        ({"max_concurrency": [1, 2], "request_rate": 1.0}, "not both"),
        ({"set": {"gpu.memory.bandwidth": np.array([1e12, -1e12])}}, "above zero"),
        ({"set": {"gpu.memory.bandwidth": np.array([1e12, np.nan])}}, "must be finite"),
    ],
)
def test_bad_questions_are_refused(question, says):
    with pytest.raises(UsageError, match=says):
        perfmodel.sweep(**({"model": LLAMA, "gpu": "h100-sxm"} | question))
