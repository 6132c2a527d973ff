"""Collectives: closed forms by hand, the choice among them, one level and two."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import hwdb
from perfmodel.core.types import Reason
from perfmodel.operators.base import Collective, Operator
from perfmodel.scenario.estimate import estimate
from perfmodel.time import network
from perfmodel.time.machine import Machine, Wire, machine
from perfmodel.time.operator_time import collective_time, operator_time

LINK, LATENCY = 400e9, 1e-6
KINDS: tuple[Collective, ...] = ("all_reduce", "all_gather", "all_to_all", "point_to_point")
GROUPED = (
    network.ring_all_reduce,
    network.tree_all_reduce,
    network.one_shot_all_reduce,
    network.two_shot_all_reduce,
    network.in_switch_all_reduce,
    network.all_gather,
    network.all_to_all,
)


def hgx(**changes: Any) -> Machine:
    """H100 in its node, with ideal software unless changed."""
    calibration = hwdb.calibration("uncalibrated")
    for name, value in ({"link": 1.0, "collective_overhead": 0.0} | changes).items():
        calibration = hwdb.load.modify(calibration, name, value)
    gpu = hwdb.gpu("h100-sxm")
    return machine(gpu, hwdb.node(gpu.node), calibration)


def spent(where: Machine, kind: Collective, message: Any, group: Any) -> Any:
    made = Operator("c", "collective", 1.0, collective=kind, message=message, group=group)
    return collective_time(where, made)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        # 8 ranks, 8 MB at 400 GB/s: 20 us for the whole buffer; hops of 1 us
        (network.ring_all_reduce, 2 * 7 * 1e-6 + 2 * 7 / 8 * 20e-6),
        (network.tree_all_reduce, 2 * 3 * 1e-6 + 2 * 7 / 8 * 20e-6),
        (network.one_shot_all_reduce, 1e-6 + 7 * 20e-6),
        (network.two_shot_all_reduce, 2e-6 + 2 * 7 / 8 * 20e-6),
        (network.in_switch_all_reduce, 2e-6 + 20e-6),
        (network.all_gather, 1e-6 + 7 / 8 * 20e-6),
        (network.all_to_all, 1e-6 + 7 / 8 * 20e-6),
    ],
)
def test_by_hand(made: Any, expected: float) -> None:
    assert made(8e6, 8.0, LINK, LATENCY) == pytest.approx(expected, rel=1e-12)


def test_point_to_point_by_hand() -> None:
    assert network.point_to_point(8e6, LINK, LATENCY) == pytest.approx(21e-6, rel=1e-12)


@pytest.mark.parametrize("made", GROUPED, ids=lambda made: made.name)
def test_one_rank_needs_no_time(made: Any) -> None:
    assert made(8e6, 1.0, LINK, LATENCY) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_of_one_costs_nothing_not_even_overhead(kind: Collective) -> None:
    where = hgx(collective_overhead=1e-5)
    assert spent(where, kind, 1e6, 1.0) == 0.0
    mixed = spent(where, kind, 1e6, np.array([1.0, 8.0]))
    assert mixed[0] == 0.0
    assert mixed[1] == spent(where, kind, 1e6, 8.0) > 1e-5


def test_best_all_reduce_depends_on_the_message() -> None:
    where = replace(hgx(), inside=Wire(LINK, LATENCY))
    small, large = spent(where, "all_reduce", 8e3, 8.0), spent(where, "all_reduce", 8e8, 8.0)
    assert small == network.one_shot_all_reduce(8e3, 8.0, LINK, LATENCY)
    assert large == network.two_shot_all_reduce(8e8, 8.0, LINK, LATENCY)
    reducing = replace(where, inside=Wire(LINK, LATENCY, in_switch=True))
    assert spent(reducing, "all_reduce", 8e8, 8.0) == network.in_switch_all_reduce(
        8e8, 8.0, LINK, LATENCY
    )
    # without direct access to all peers the classical algorithms remain
    remote = replace(where, inside=Wire(LINK, LATENCY, direct=False))
    assert spent(remote, "all_reduce", 8e3, 8.0) == network.tree_all_reduce(8e3, 8.0, LINK, LATENCY)


def test_share_and_overhead_of_the_calibration() -> None:
    wire = Wire(LINK, 0.0)
    ideal, real = (
        replace(hgx(link=share, collective_overhead=cost), inside=wire)
        for share, cost in ((1.0, 0.0), (0.5, 3e-6))
    )
    assert spent(real, "all_gather", 1e9, 8.0) == pytest.approx(
        2 * spent(ideal, "all_gather", 1e9, 8.0) + 3e-6, rel=1e-12
    )


def test_mesh_uses_the_links_among_the_group_only() -> None:
    mesh = replace(hgx(), inside=Wire(700e9, 0.0, peers=7.0))
    # 2 of 8 devices share one of seven links
    assert spent(mesh, "all_gather", 1e9, 2.0) == pytest.approx(0.5 * 1e9 / 100e9)
    assert spent(mesh, "all_gather", 1e9, 8.0) == pytest.approx(7 / 8 * 1e9 / 700e9)


def test_two_levels_by_hand() -> None:
    where = replace(hgx(), inside=Wire(LINK, 1e-6), outside=Wire(50e9, 5e-6, direct=False))
    # 16 ranks in two nodes of eight, 80 MB: gather 7/8 inside, a tenth of it (an eighth) between
    inside, slice_ = 1e-6 + 7 / 8 * 80e6 / LINK, 80e6 / 8
    assert spent(where, "all_gather", 80e6, 16.0) == pytest.approx(
        inside + 5e-6 + slice_ / 2 / 50e9, rel=1e-12
    )
    assert spent(where, "all_reduce", 80e6, 16.0) == pytest.approx(
        2 * inside + 2 * 5e-6 + slice_ / 50e9, rel=1e-12
    )
    # half of an all-to-all leaves the node, while the other half moves inside it
    assert spent(where, "all_to_all", 80e6, 16.0) == pytest.approx(5e-6 + 40e6 / 50e9, rel=1e-12)
    assert spent(where, "point_to_point", 80e6, 16.0) == pytest.approx(5e-6 + 80e6 / 50e9)


def test_no_network_beyond_the_node() -> None:
    alone = replace(hgx(), outside=None)
    assert spent(alone, "all_reduce", 1e6, 8.0) > 0
    assert np.isnan(spent(alone, "all_reduce", 1e6, 16.0))
    table = spent(alone, "all_reduce", 1e6, np.array([8.0, 16.0]))
    assert table[0] == spent(alone, "all_reduce", 1e6, 8.0)
    assert np.isnan(table[1])


def test_a_layout_beyond_the_wires_is_refused_with_the_reason() -> None:
    question: dict[str, Any] = {"model": "meta-llama/Llama-3.2-1B", "gpu": "jetson-orin"}
    answer = estimate(**question, tensor_parallel_size=np.array([1.0, 2.0]))
    assert answer.verdict.reason.tolist() == [Reason.OK, Reason.NODE]
    assert np.isfinite(answer.results()["tpot_ms"]).tolist() == [True, False]
    one = estimate(**question, tensor_parallel_size=2)
    assert one.verdict.reason == Reason.NODE
    assert "has no network to others" in one.verdict.message


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_give_what_scalars_give(kind: Collective) -> None:
    where = hgx()
    messages, groups = np.array([1e3, 1e6, 1e9])[:, None], np.array([1.0, 2.0, 8.0, 16.0, 64.0])
    table = spent(where, kind, messages, groups)
    assert table.shape == (3, 5)
    for i, message in enumerate(messages[:, 0]):
        for j, group in enumerate(groups):
            assert table[i, j] == spent(where, kind, float(message), float(group))


@pytest.mark.parametrize("kind", KINDS)
def test_single_device_nodes_use_the_network_only(kind: Collective) -> None:
    gpu = hwdb.gpu("jetson-orin")
    alone = machine(gpu, hwdb.node(gpu.node), hgx().calibration)
    assert (alone.domain, alone.outside) == (1, None)
    assert spent(alone, kind, 1e6, 1.0) == 0
    assert np.isnan(spent(alone, kind, 1e6, 2.0))
    wired = replace(alone, outside=Wire(50e9, 5e-6, direct=False))
    moved = {"all_reduce": 1e6, "all_gather": 0.5e6, "all_to_all": 0.5e6, "point_to_point": 1e6}
    hops = 2 if kind == "all_reduce" else 1
    assert spent(wired, kind, 1e6, 2.0) == pytest.approx(hops * 5e-6 + moved[kind] / 50e9)


def test_a_collective_operator_takes_its_count() -> None:
    where = hgx()
    made = Operator("sum", "collective", 64.0, collective="all_reduce", message=1e6, group=8.0)
    timed = operator_time(where, made)
    assert timed.total == 64 * timed.time == 64 * timed.network
    assert timed.compute == timed.memory == timed.traffic == 0


def test_machine_of_a_real_node() -> None:
    where = hgx()
    assert where.domain == 8
    assert where.inside.link == 450e9  # NVLink 4: 18 links x 25 GB/s per direction
    assert where.outside is not None
    assert where.outside.link == 50e9  # eight ports of 400 Gbit/s for eight GPUs
