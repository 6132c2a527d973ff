"""Classes of service, each with limits, counts and histograms; thinking that is not seen."""

import math

import numpy as np
import pytest

from perfmodel.serving.simulate import Slo
from perfmodel.serving.simulate.policy import Speculation
from perfmodel.serving.simulate.record import METRICS, bin_of
from tests.unit.serving.simulate.hand import BOTH, alone, ask, bins, engine, flat, gaps, run


def crowd():
    rng = np.random.default_rng(5)
    output = rng.integers(1, 60, 300)
    return ask(
        np.sort(rng.random(300)) * 20, rng.integers(1, 200, 300), output,
        tenant=rng.integers(0, 3, 300), hidden=(rng.random(300) * output).astype(int),
    )  # fmt: skip


@BOTH
def test_counts_and_sums_by_tenant(compiled):
    cluster = alone(flat(0.005, row=5e-5), engine())
    free = run(cluster, crowd(), slos=(Slo(),) * 3, compiled=compiled)
    ttft, tpot, e2el, visible = (
        float(np.nanmedian(getattr(free, name))) for name in ("ttft", "tpot", "e2el", "visible")
    )
    slos = (Slo(ttft=ttft), Slo(tpot=tpot, e2el=e2el), Slo(visible=visible))
    made = run(cluster, crowd(), slos=slos, compiled=compiled)
    asked, record = made.requests, made.record
    for tenant, slo in enumerate(slos):
        mine = asked.tenant == tenant
        assert record.finished[tenant] == mine.sum()
        assert record.several[tenant] == (mine & (asked.output > 1)).sum()
        tpot = np.nan_to_num(made.tpot)
        good = (
            mine & (made.ttft <= slo.ttft) & (tpot <= slo.tpot) & (made.e2el <= slo.e2el)
            & (made.visible <= slo.visible)
        )  # fmt: skip
        assert record.good[tenant] == good.sum()
        assert 0 < good.sum() < mine.sum()
        for row, name in enumerate(METRICS):
            values = getattr(made, name)[mine]
            values = values[~np.isnan(values)]
            assert record.sums[tenant, row] == pytest.approx(values.sum(), rel=1e-9)
            counted = np.bincount([bin_of(value) for value in values], minlength=5541)
            # rounding may move a value on an edge
            assert np.abs(counted - record.histogram[tenant, row]).sum() <= 4
        assert record.histogram[tenant, -1].sum() == (asked.output[mine] - 1).sum()


@BOTH
def test_gaps_of_two_tenants_by_hand(compiled):
    """A decodes alone, through B's prompt, with B, and alone again."""
    table = flat(0.01, row=0.001)
    asked = ask([0.0, 0.0115 + 0.009], 10, [7, 3], tenant=[1, 0])
    made = run(alone(table, engine()), asked, slos=(Slo(), Slo()), compiled=compiled)
    # 0.02; 0.011; then B's prompt 0.021; both 0.012 twice; A alone twice
    assert gaps(made, 1) == bins(0.011, 0.021, 0.012, 0.012, 0.011, 0.011)
    assert gaps(made, 0) == bins(0.012, 0.012)


@BOTH
def test_aggregates_of_tenants_do_not_need_the_requests(compiled):
    slos = (Slo(ttft=0.3), Slo(tpot=0.012), Slo())
    cluster = alone(flat(0.005, row=5e-5), engine())
    kept, lean = (
        run(cluster, crowd(), slos=slos, keep_requests=keep, compiled=compiled)
        for keep in (True, False)
    )
    np.testing.assert_array_equal(kept.record.histogram, lean.record.histogram)
    np.testing.assert_array_equal(kept.record.good, lean.record.good)
    assert len(lean.record.finish) == 0


@BOTH
def test_visible_is_the_token_after_the_hidden_ones(compiled):
    """The prompt ends at 1, a token a second; the fifth output token is the first that is seen."""
    made = run(
        alone(flat(1.0), engine()), ask(np.zeros(4), 10, [8, 8, 1, 5], hidden=[4, 0, 0, 4]),
        slos=(Slo(visible=4.5),), compiled=compiled,
    )  # fmt: skip
    assert made.visible.tolist() == [5, 1, 1, 5]
    assert made.ttft.tolist() == [1, 1, 1, 1]
    assert made.record.good.tolist() == [2]


@BOTH
def test_thinking_goes_on_where_it_was_after_preemption_and_recomputation(compiled):
    """B has two of its four hidden tokens when it is preempted; the next comes at 11."""
    limits = engine(block_size=8, blocks=4)
    made = run(alone(flat(1.0), limits), ask([0.0, 0.0], 15, 10, hidden=[0, 4]), compiled=compiled)
    assert made.record.preempted.tolist() == [0, 1]
    assert made.visible.tolist() == [1, 13]


@BOTH
@pytest.mark.parametrize("hidden", [0, 1, 5, 9])
def test_a_hidden_part_under_speculation(hidden, compiled):
    """Three tokens a step: the visible one is among those of a step."""
    limits = engine(speculation=Speculation(1.0, np.full(9, 2), np.zeros(9)))
    made = run(alone(flat(1.0), limits), ask([0.0], 10, 10, hidden=hidden), compiled=compiled)
    assert made.visible.tolist() == [1 + math.ceil(hidden / 3)]
