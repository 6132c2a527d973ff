"""Numbers out of range: each is named, with the least it may be."""

import dataclasses

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving.simulate import Cluster, Replica, serve
from perfmodel.serving.simulate.fleet import Change, HostStage, Link, Migration, Scaler, State
from perfmodel.serving.simulate.policy import Speculation
from tests.unit.serving.simulate.hand import alone, ask, engine, flat

ONE = ask([0.0], 10, 2)
TABLE = flat(0.01)


def draft(acceptance: float = 0.5, length: int = 1, time: float = 0.0, entries: int = 9):
    return Speculation(acceptance, np.full(entries, length), np.full(entries, time))


def limited(**changes) -> Cluster:
    return alone(TABLE, engine(**changes))


OUT_OF_RANGE = [
    (limited(budget=0), "replica 0's budget is 0; at least 1"),
    (limited(max_num_seqs=0), "replica 0's max_num_seqs is 0; at least 1"),
    (limited(block_size=0), "replica 0's block_size is 0; at least 1"),
    (limited(swap_time=-1.0), "replica 0's swap_time is -1; at least 0"),
    (limited(host_time=float("nan")), "replica 0's host_time is nan; at least 0"),
    (limited(speculation=draft(1.5)), "replica 0's share of rejections is -0.5; at least 0"),
    (limited(speculation=draft(length=-1)), "replica 0's shortest proposal is -1; at least 0"),
    (limited(speculation=draft(entries=8)), "replica 0's table of proposals is 8; at least 9"),
    (alone(TABLE, engine(), stages=(HostStage(0, 0.1),)), "host stage 0's servers is 0; at least"),
    (alone(TABLE, engine(), stages=(HostStage(1, -0.1),)), "host stage 0's base is -0.1"),
    (alone(TABLE, engine(), scaler=Scaler(0.0, 0.0, 1.0)), "the scaler's interval is 0"),
    (alone(TABLE, engine(), scaler=Scaler(1.0, 2.0, 1.0)), "the scaler's high is 1; at least 2"),
    (alone(TABLE, engine(), migration=Migration(0.0, 0.0, 1.0)), "migration's interval is 0"),
    (alone(TABLE, engine(), migration=Migration(1.0, 9.0, 3.0)), "migration's high is 3; at least"),
    (alone(TABLE, engine(), link=Link(latency=-1.0)), "the link's latency is -1; at least 0"),
    (
        alone(TABLE, engine(), changes=(Change(float("nan"), 0, State.READY),)),
        "the time of change 0 is nan; at least 0",
    ),
    (Cluster((TABLE,), (Replica(engine(), surface=1),)), "replica 0 has surface 1; there are 1"),
    (alone(flat(0.01, longest=9), engine()), "may have 11 tokens a sequence, .* reaches 9"),
    (alone(dataclasses.replace(TABLE, rows=np.zeros(100)), engine()),
     "may have 512 tokens a step, .* reaches 99"),
    (alone(dataclasses.replace(TABLE, sequences=np.zeros(8)), engine()),
     "may have 8 sequences a step, .* reaches 7"),
]  # fmt: skip


@pytest.mark.parametrize(("cluster", "message"), OUT_OF_RANGE, ids=range(len(OUT_OF_RANGE)))
def test_numbers_out_of_range(cluster, message):
    with pytest.raises(UsageError, match=message):
        serve(cluster, ONE, compiled=False)


@pytest.mark.parametrize("users", [0, -1])
def test_a_closed_loop_of_nobody(users):
    with pytest.raises(UsageError, match=f"max_concurrency {users} must be at least 1"):
        serve(limited(), ONE, max_concurrency=users, compiled=False)


def test_tasks_that_wait_for_each_other_in_a_closed_loop():
    asked = ask(np.zeros(3), 10, 2, task=[0, 1, 0], after=[[], [], [1]])
    with pytest.raises(UsageError, match="request 2 follows request 1 of another task"):
        serve(limited(), asked, max_concurrency=1, compiled=False)
    assert serve(limited(), asked, compiled=False).record.finished.sum() == 3
