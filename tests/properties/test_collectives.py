"""Collectives on random wires: bigger messages take longer, one rank takes nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perfmodel.operators.base import Collective, Operator
from perfmodel.time.machine import Machine, Wire
from perfmodel.time.operator_time import collective_time
from tests.properties import strategies as made

KINDS: tuple[Collective, ...] = ("all_reduce", "all_gather", "all_to_all", "point_to_point")
links = st.floats(1e9, 1e12)
latencies = st.floats(0, 2e-5)
messages = st.floats(0, 1e10)
groups = st.integers(1, 512).map(float)


@st.composite
def machines(draw: Any) -> Machine:
    """A node of some size with a slower network behind it."""
    inside = Wire(draw(links), draw(latencies), draw(st.booleans()), True)
    if draw(st.booleans()):
        inside = replace(inside, in_switch=False, direct=draw(st.booleans()))
    outside = Wire(inside.link / draw(st.floats(2, 50)), inside.latency + draw(latencies), False)
    domain = float(draw(st.sampled_from([2, 4, 8, 72])))
    return replace(made.usual("h100-sxm"), inside=inside, outside=outside, domain=domain)


def spent(where: Machine, kind: Collective, message: Any, group: Any) -> Any:
    return collective_time(
        where, Operator("c", "collective", 1.0, collective=kind, message=message, group=group)
    )


@pytest.mark.parametrize("kind", KINDS)
@given(machines(), messages, messages, groups)
def test_monotone_in_the_message(
    kind: Collective, where: Machine, one: float, two: float, group: float
) -> None:
    small, large = sorted((one, two))
    assert 0 <= spent(where, kind, small, group) <= spent(where, kind, large, group)


@pytest.mark.parametrize("kind", KINDS)
@given(machines(), messages)
def test_one_rank_is_free(kind: Collective, where: Machine, message: float) -> None:
    assert spent(where, kind, message, 1.0) == 0.0


@pytest.mark.parametrize("kind", KINDS)
@given(machines(), messages, groups, st.floats(1, 100))
def test_faster_wires_are_never_slower(
    kind: Collective, where: Machine, message: float, group: float, factor: float
) -> None:
    assert where.outside is not None
    before = spent(where, kind, message, group)
    inside = replace(where.inside, link=where.inside.link * factor)
    outside = replace(where.outside, link=where.outside.link * factor)
    assert spent(replace(where, inside=inside), kind, message, group) <= before
    assert spent(replace(where, outside=outside), kind, message, group) <= before


@pytest.mark.parametrize("kind", KINDS)
@given(machines(), messages, st.integers(2, 32))
def test_two_levels_never_beat_one_large_domain(
    kind: Collective, where: Machine, message: float, nodes: int
) -> None:
    """Were all ranks inside one domain, no slower wire would be crossed."""
    assume(where.inside.direct)
    group = where.domain * nodes
    within = spent(replace(where, domain=group), kind, message, group)
    assert spent(where, kind, message, group) >= within * (1 - 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(machines(), st.lists(messages, min_size=4, max_size=4))
def test_arrays_give_what_scalars_give(
    kind: Collective, where: Machine, sizes: list[float]
) -> None:
    group = np.array([1.0, 2.0, where.domain, where.domain * 4])
    table = spent(where, kind, np.array(sizes), group)
    for i, size in enumerate(sizes):
        assert table[i] == spent(where, kind, size, float(group[i]))


@given(machines(), messages, st.integers(2, 72).map(float))
def test_all_reduce_moves_at_least_what_a_rank_must_send(
    where: Machine, message: float, group: float
) -> None:
    """Without help from the switch a rank sends 2 (g - 1) / g of its buffer."""
    share = where.calibration.link.value
    wire = replace(where.inside, in_switch=False)
    alone = replace(where, inside=wire, domain=72.0)
    least = 2 * (group - 1) / group * message / (where.inside.link * share)
    assert spent(alone, "all_reduce", message, group) >= least * (1 - 1e-12)
