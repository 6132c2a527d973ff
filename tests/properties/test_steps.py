"""One step, whatever the model: more work is never faster, better hardware is never slower."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hwdb
from perfmodel.core.types import TokenGroup
from perfmodel.step.step import run_step
from perfmodel.time.machine import Machine
from tests.properties import strategies as made


@given(st.data())
def test_more_tokens_never_take_less_time(data: Any) -> None:
    model, where = data.draw(made.decoders), made.usual(data.draw(made.gpus))
    layout, precision = data.draw(made.layouts(model)), data.draw(made.formats)
    groups = data.draw(made.token_groups())
    more = data.draw(st.integers(1, 4096))
    before = run_step(model, layout, precision, where, groups)
    for field in ("seqs", "past", "new"):
        if field == "new" and groups[0].phase == "decode":
            continue
        first = replace(groups[0], **{field: getattr(groups[0], field) + more})
        after = run_step(model, layout, precision, where, (first, *groups[1:]))
        for part in ("time", "flops", "traffic"):
            assert getattr(after, part) >= getattr(before, part) * (1 - 1e-12), (field, part)


@given(st.data())
def test_time_is_the_roofline_of_ideal_software(data: Any) -> None:
    model, gpu = data.draw(made.decoders), data.draw(made.gpus)
    layout, precision = data.draw(made.layouts(model)), data.draw(made.formats)
    groups = data.draw(made.token_groups())
    where = made.ideal(gpu)
    best = run_step(model, layout, precision, where, groups)
    bound = 0.0
    for item in best.operators:
        kernel = item.operator
        if kernel.family == "collective":
            bound += kernel.count * item.network
            continue
        bytes_ = kernel.weight_bytes + kernel.kv_bytes + kernel.activation_bytes
        rate = where.peak(kernel.math, kernel.family in ("pointwise", "scan"))
        seconds = max(
            kernel.flops / rate, (bytes_ + kernel.index_bytes) / where.gpu.memory.bandwidth.si
        )
        bound += kernel.count * seconds
    assert best.time == pytest.approx(bound, rel=1e-12)
    assert best.time >= best.traffic / where.bandwidth * (1 - 1e-12)
    assert best.time >= best.flops / max(rate.si for rate in where.gpu.peak.values())
    assert best.time <= best.compute + best.memory + best.network + 1e-12
    real = run_step(model, layout, precision, made.usual(gpu), groups)
    assert real.time > best.time
    assert (real.flops, real.traffic) == (best.flops, best.traffic)


def _faster(where: Machine, what: str, factor: float) -> Machine:
    if what == "bandwidth":
        value = where.gpu.memory.bandwidth.si * factor
        return replace(where, gpu=hwdb.load.modify(where.gpu, "memory.bandwidth", value))
    if what == "peak":
        gpu = where.gpu
        for name, rate in where.gpu.peak.items():
            gpu = hwdb.load.modify(gpu, f"peak.{name}", rate.si * factor)
        return replace(where, gpu=gpu)
    wire = replace(where.inside, link=where.inside.link * factor)
    assert where.outside is not None
    return replace(
        where, inside=wire, outside=replace(where.outside, link=where.outside.link * factor)
    )


@pytest.mark.parametrize("what", ["bandwidth", "peak", "link"])
@given(st.data())
def test_better_hardware_is_never_slower(what: str, data: Any) -> None:
    model, where = data.draw(made.decoders), made.usual(data.draw(made.gpus))
    layout, precision = data.draw(made.layouts(model)), data.draw(made.formats)
    groups = data.draw(made.token_groups())
    better = _faster(where, what, data.draw(st.floats(1.01, 10)))
    before = run_step(model, layout, precision, where, groups)
    after = run_step(model, layout, precision, better, groups)
    assert after.time <= before.time
    assert (after.flops, after.traffic) == (before.flops, before.traffic)
    if what == "bandwidth":
        assert after.time < before.time  # some kernel is always bound by memory


@given(st.data())
def test_a_narrower_cache_is_never_slower(data: Any) -> None:
    model, where = data.draw(made.decoders), made.usual(data.draw(made.gpus))
    layout, precision = data.draw(made.layouts(model)), data.draw(made.formats)
    groups = data.draw(made.token_groups())
    wide = run_step(model, layout, precision, where, groups)
    narrow = run_step(model, layout, precision.with_kv("fp8"), where, groups)
    assert narrow.time <= wide.time
    assert narrow.flops == wide.flops


@given(st.data())
def test_details_of_a_step_agree(data: Any) -> None:
    model, where = data.draw(made.decoders), made.usual(data.draw(made.gpus))
    layout, precision = data.draw(made.layouts(model)), data.draw(made.formats)
    groups = data.draw(made.token_groups())
    full, sums, quick = (
        run_step(model, layout, precision, where, groups, 1.2, detail)
        for detail in ("operators", "sums", "time")
    )
    assert full.time == sums.time == quick.time
    assert (full.flops, full.traffic) == (sums.flops, sums.traffic)
    assert full.time == pytest.approx(
        full.overhead + sum(item.total for item in full.operators), rel=1e-12
    )


@given(st.sampled_from(made.OTHERS).map(made.architecture), st.data())
def test_encoders_grow_with_batch_and_length(model: Any, data: Any) -> None:
    where, precision = made.usual("h100-sxm"), data.draw(made.formats)
    seqs, tokens = float(data.draw(st.integers(1, 64))), float(data.draw(st.integers(1, 512)))
    layout = data.draw(made.layouts(model))
    memory = {"memory": tokens, "encode": tokens} if model.encoder else {}

    def time(seqs: float, tokens: float) -> Any:
        group = TokenGroup(seqs, tokens, 0.0, **memory)
        return run_step(model, layout, precision, where, (group,)).time

    assert time(seqs, tokens) <= time(seqs + 1, tokens)
    assert time(seqs, tokens) <= time(seqs, tokens + 1)
