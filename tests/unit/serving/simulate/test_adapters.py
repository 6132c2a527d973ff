"""LoRA adapters: loading, places, who stays."""

import numpy as np
import pytest

from tests.unit.serving.simulate.hand import BOTH, alone, ask, engine, flat, run


def adapted(places: int, **changes):
    return engine(**{"adapters": places, "adapter_time": 0.5, "adapter_step": 0.125} | changes)


@BOTH
def test_loading_lengthens_a_step_and_each_adapter_in_the_batch_every_step(compiled):
    """Two of adapter 3, one of 4, one of the base model; then adapter 4 again."""
    asked = ask([0.0] * 4 + [20.0], 10, [2, 4, 3, 6, 2], adapter=[3, 3, 4, -1, 4])
    made = run(alone(flat(1.0), adapted(2)), asked, compiled=compiled)
    steps = [2.25, 1.25, 1.25, 1.125, 1.0, 1.0]  # both loaded; both; both; 3; none
    times = np.cumsum(steps)
    assert made.record.first[:4] == pytest.approx(times[0])
    assert made.record.finish[:4] == pytest.approx(times[[1, 3, 2, 5]])
    assert made.record.finish[4] == pytest.approx(20 + 2 * 1.125)
    assert made.record.counts["adapter_loads"] == 2


@BOTH
def test_an_adapter_in_use_stays(compiled):
    """One place: 4 waits until 3 is done at 5.125 + 0.5, though there is room for its request."""
    asked = ask([0.0, 0.1, 0.2], 10, [5, 2, 9], adapter=[3, 4, -1])
    made = run(alone(flat(1.0), adapted(1)), asked, compiled=compiled)
    assert made.record.finish[0] == pytest.approx(0.5 + 5 * 1.125)
    assert made.record.start[1] == pytest.approx(made.record.finish[0])
    assert made.record.counts["adapter_loads"] == 2


@BOTH
def test_who_waits_for_an_adapters_place_lets_others_pass(compiled):
    """4 waits for 3's place; the base model and another request of 3 do not, as in vLLM v1."""
    asked = ask([0.0, 0.1, 0.2, 0.3], 10, [5, 2, 2, 9], adapter=[3, 4, -1, 3])
    made = run(alone(flat(1.0), adapted(1)), asked, compiled=compiled)
    assert made.record.start[2:] == pytest.approx(0.5 + 1.125)  # the step after A's prompt
    assert made.record.start[1] == pytest.approx(made.record.finish[3])
    assert made.record.counts["adapter_loads"] == 2


@BOTH
def test_requests_of_one_adapter_share_its_place(compiled):
    asked = ask([0.0, 0.1, 0.2], 10, 5, adapter=3)
    made = run(alone(flat(1.0), adapted(1)), asked, compiled=compiled)
    assert made.record.start[1:] == pytest.approx(1.625)
    assert made.record.counts["adapter_loads"] == 1


@BOTH
@pytest.mark.parametrize(
    ("places", "order", "loads"),
    [
        (1, [0, 1, 0, 1], 4),
        (2, [0, 1, 0, 1], 2),
        (2, [0, 1, 0, 2, 0, 1], 4),  # 2 takes the place of 1, then 1 that of 2
        (2, [0, 1, 2, 0, 1, 2], 6),
        (3, [0, 1, 2, 0, 1, 2], 3),
        (2, [0, -1, 1, -1, 0], 2),
    ],
)
def test_the_least_recently_used_goes(places, order, loads, compiled):
    asked = ask(100.0 * np.arange(len(order)), 10, 2, adapter=order)
    made = run(alone(flat(1.0), adapted(places)), asked, compiled=compiled)
    assert made.record.counts["adapter_loads"] == loads


@BOTH
def test_without_places_adapters_play_no_role(compiled):
    asked = ask(np.zeros(4), 10, 3, adapter=[0, 1, 2, 3])
    made = run(alone(flat(1.0), adapted(0)), asked, compiled=compiled)
    assert made.record.finish.tolist() == [3, 3, 3, 3]
    assert made.record.counts["adapter_loads"] == 0


@BOTH
def test_a_preempted_request_gives_its_adapters_place_up(compiled):
    """B is preempted for A's growth at the third step; its adapter is in nobody's way then."""
    limits = adapted(2, block_size=8, blocks=4)
    asked = ask([0.0, 0.0], 15, 10, adapter=[3, 4])
    made = run(alone(flat(1.0), limits), asked, compiled=compiled)
    assert made.record.preempted.tolist() == [0, 1]
    a = 1 + 2 * 0.5 + 2 * 0.125 + 1.25 + 8 * 1.125
    assert made.record.finish == pytest.approx([a, a + 8 * 1.125])
    assert made.record.counts["adapter_loads"] == 2


@BOTH
def test_many_adapters_on_few_places(compiled):
    """Each step's time is one second and its adapters': the sum of all of them is the busy time."""
    rng = np.random.default_rng(0)
    asked = ask(np.sort(rng.random(200)) * 100, 10, rng.integers(1, 30, 200),
                adapter=rng.integers(-1, 12, 200))  # fmt: skip
    limits = adapted(4, adapter_step=0.0)
    made = run(alone(flat(1.0), limits), asked, compiled=compiled)
    loads = made.record.counts["adapter_loads"]
    assert 20 < loads < 200
    assert made.record.busy[0] == pytest.approx(made.record.steps[0] + 0.5 * loads)
