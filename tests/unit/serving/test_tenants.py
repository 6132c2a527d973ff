"""Tenants and adapters: shares within binomial bounds, tasks kept together, clear refusals."""

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving.graph import parse_graph
from perfmodel.serving.lengths import Fixed, Uniform
from perfmodel.serving.tenants import Tenant, adapters, assign, mix
from perfmodel.serving.unroll import unroll
from perfmodel.serving.workload import SharedPrefix, generate

PAID, FREE = Tenant("paid", share=1, ttft=0.2), Tenant("free", share=3, priority=2)


def plain(count=40_000, **more):
    return generate(Fixed(64), Fixed(10), count, 5.0, **more)


def test_shares_and_priorities():
    requests = assign(plain(), (PAID, FREE), seed=1)
    count = len(requests)
    assert abs((requests.tenant == 0).sum() - count / 4) < 4 * np.sqrt(count * 3 / 16)
    assert np.array_equal(requests.priority, np.where(requests.tenant == 0, 0, 2))


def test_a_task_belongs_to_one_tenant_and_uses_one_adapter():
    drawn = unroll(parse_graph("best_of_n"), 500, 1.0, hash_block=None)
    requests = adapters(assign(drawn, (PAID, FREE)), 10)
    for column in (requests.tenant, requests.adapter):
        per_task = column.reshape(500, 9)
        assert np.all(per_task == per_task[:, :1])
        assert len(np.unique(column)) == (2 if column is requests.tenant else 10)


def test_tenants_with_lengths_of_their_own():
    batch = Tenant("batch", share=1, prompt=Fixed(4000), output=Uniform(1, 3))
    requests = mix((FREE, batch), Uniform(10, 20), Fixed(7), 10_000, 5.0)
    own = requests.tenant == 1
    assert np.unique(requests.prompt[own]).tolist() == [4000]
    assert np.unique(requests.output[own]).tolist() == [1, 2, 3]
    assert np.unique(requests.prompt[~own]).tolist() == list(range(10, 21))
    assert np.unique(requests.output[~own]).tolist() == [7]
    # Another law for one tenant leaves all else as it was.
    other = Tenant("batch", share=1, prompt=Fixed(8000), output=Uniform(1, 3))
    changed = mix((FREE, other), Uniform(10, 20), Fixed(7), 10_000, 5.0)
    assert np.array_equal(changed.arrival, requests.arrival)
    assert np.array_equal(changed.tenant, requests.tenant)
    assert np.array_equal(changed.output, requests.output)
    assert np.array_equal(changed.prompt[~own], requests.prompt[~own])


def test_adapters_follow_a_power_law():
    count = 100_000
    used = np.bincount(adapters(plain(count), 50, skew=1.2, seed=5).adapter, minlength=50)
    weights = np.arange(1.0, 51) ** -1.2
    expected = count * weights / weights.sum()
    assert np.all(np.abs(used - expected) < 5 * np.sqrt(expected))
    assert used.sum() == count


def test_some_use_the_base_model():
    adapter = adapters(plain(), 4, skew=0, base_share=0.5).adapter
    count = len(adapter)
    assert abs((adapter == -1).sum() - count / 2) < 4 * np.sqrt(count / 4)
    assert set(adapter.tolist()) == {-1, 0, 1, 2, 3}
    assert np.all(adapters(plain(), 4, base_share=1.0).adapter == -1)


def test_prompts_are_shared_only_with_the_same_adapter():
    drawn = plain(300, prefix=SharedPrefix(32, block=16))
    requests = adapters(drawn, 3, skew=0)
    start, before = drawn.hash_ids
    _, ids = requests.hash_ids
    assert np.array_equal(requests.hash_ids[0], start)
    whose = np.repeat(requests.adapter, np.diff(start))
    pairs = set(zip(whose.tolist(), before.tolist(), strict=True))
    renamed = set(zip(whose.tolist(), before.tolist(), ids.tolist(), strict=True))
    assert len(pairs) == len(renamed) == len(set(ids.tolist())) == ids.max() + 1
    assert len(pairs) == 3 * 2 + 300 * 2


def test_seeds():
    first, again, other = (adapters(plain(100), 9, seed=s).adapter.tolist() for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"share": 0.0}, "tenant 'x': share is 0; more than 0"),
        ({"share": float("nan")}, "share is nan"),
        ({"ttft": 0.0}, "ttft is limited to 0 s"),
        ({"tpot": -1.0}, "tpot is limited to -1 s"),
        ({"e2el": float("inf")}, "e2el is limited to inf s"),
    ],
)
def test_tenants_that_cannot_be(wrong, said):
    with pytest.raises(UsageError, match=said):
        Tenant("x", **wrong)


def test_assignments_that_cannot_be():
    with pytest.raises(UsageError, match="there are no tenants"):
        assign(plain(5), ())
    with pytest.raises(UsageError, match="two tenants are called 'paid'"):
        assign(plain(5), (PAID, FREE, PAID))
    with pytest.raises(UsageError, match="'own' has lengths of its own: mix them"):
        assign(plain(5), (Tenant("own", prompt=Fixed(5)),))
    with pytest.raises(UsageError, match="a seed of -1"):
        assign(plain(5), (PAID,), seed=-1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"count": 0}, "0 adapters; at least 1"),
        ({"skew": -1.0}, "a skew of -1"),
        ({"skew": float("nan")}, "a skew of nan"),
        ({"base_share": 1.5}, "base_share is 1.5"),
        ({"seed": -1}, "a seed of -1"),
    ],
)
def test_adapters_that_cannot_be(wrong, said):
    with pytest.raises(UsageError, match=said):
        adapters(plain(5), **{"count": 3, **wrong})
