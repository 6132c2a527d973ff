"""The same call is one question or many: arrays give, point by point, what scalars give."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.core.errors import UsageError
from perfmodel.scenario.estimate import estimate
from tests.properties import strategies as made

POINTS = 4
MODELS = (*made.DECODERS, *made.OTHERS)


@st.composite
def many_questions(draw: Any) -> tuple[dict[str, Any], list[str]]:
    """Common kinds, and numbers of which some vary."""
    ranges: dict[str, st.SearchStrategy[Any]] = {
        "isl": made.log_uniform(1, 20_000),
        "osl": made.log_uniform(1, 4000),
        "tensor_parallel_size": st.sampled_from([1, 2, 4, 8, 16]),
        "pipeline_parallel_size": st.sampled_from([1, 2, 3]),
        "data_parallel_size": st.sampled_from([1, 2, 8]),
        "expert_parallel_size": st.sampled_from([1, 2, 8]),
        "max_num_seqs": made.log_uniform(1, 1024),
        "max_num_batched_tokens": made.log_uniform(16, 16384),
        "gpu_memory_utilization": st.floats(0.5, 0.95),
    }
    if draw(st.booleans()):
        ranges["max_concurrency"] = made.log_uniform(1, 2000)
    elif draw(st.booleans()):
        ranges["request_rate"] = st.floats(0.01, 100)
    question: dict[str, Any] = {
        "model": draw(st.sampled_from(MODELS)),
        "gpu": draw(made.gpus),
        "quantization": draw(st.sampled_from([None, "fp8_wo", "awq"])),
        "kv_cache_dtype": draw(st.sampled_from(["auto", "fp8"])),
        "sequence_parallel": draw(st.booleans()),
    }
    varied = draw(st.lists(st.sampled_from(sorted(ranges)), min_size=1, max_size=4, unique=True))
    for name, values in ranges.items():
        if name in varied:
            drawn = draw(st.lists(values, min_size=POINTS, max_size=POINTS))
            question[name] = np.array(drawn, dtype=float)
        else:
            question[name] = draw(values)
    return question, varied


@settings(max_examples=300)
@given(many_questions())
def test_arrays_give_what_scalars_give(asked: tuple[dict[str, Any], list[str]]) -> None:
    question, varied = asked
    table = estimate(**question)
    columns, reasons = table.results(), np.broadcast_to(table.verdict.reason, (POINTS,))
    for point in range(POINTS):
        single = estimate(**(question | {name: float(question[name][point]) for name in varied}))
        assert int(single.verdict.reason) == reasons[point]
        for name, value in (results := single.results()).items():
            # a wait is the difference of two times: exact to a share of those
            slack = 1e-12 * results["ttft_ms"] if name == "queue_time_ms" else 0.0
            np.testing.assert_allclose(
                np.broadcast_to(columns[name], (POINTS,))[point], value, rtol=1e-12,
                atol=np.nan_to_num(slack), err_msg=name,
            )  # fmt: skip


@given(made.closed_loops())
def test_axes_broadcast(question: dict[str, Any]) -> None:
    """Two axes of different lengths make a table, each cell its own answer."""
    isl, users = np.array([100.0, 900.0, 3000.0])[:, None], np.array([1.0, 50.0])
    table = estimate(**(question | {"isl": isl, "max_concurrency": users}))
    columns = table.results()
    assert columns["tpot_ms"].shape == (3, 2)
    cell = estimate(**(question | {"isl": 900.0, "max_concurrency": 50.0})).results()
    for name in ("tpot_ms", "ttft_ms", "output_throughput", "mfu", "power_w"):
        assert columns[name][1, 1] == pytest.approx(cell[name], rel=1e-12, nan_ok=True)


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    with pytest.raises(UsageError, match=r"do not broadcast: isl \(2,\), osl \(3,\)"):
        estimate(
            model="meta-llama/Llama-3.1-8B", gpu="h100-sxm",
            isl=np.array([1.0, 2.0]), osl=np.array([1.0, 2.0, 3.0]),
        )  # fmt: skip
