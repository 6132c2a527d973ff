"""Every step of the twin is audited in every test of this folder."""

from collections import Counter

import pytest

from perfmodel.serving.simulate.twin.replica import Replica
from perfmodel.serving.simulate.twin.request import Call


@pytest.fixture(autouse=True)
def _audit(monkeypatch):
    account = Replica.account

    def audited(replica: Replica, now: float) -> None:
        blocks(replica)
        limits(replica)
        account(replica, now)

    monkeypatch.setattr(Replica, "account", audited)


def blocks(replica: Replica) -> None:
    """Blocks in use are those that requests hold, shared ones once."""
    cache = replica.cache
    held = [*replica.running, *replica.sending]
    shared = Counter(
        content
        for call in held
        for content, is_shared in zip(call.content, call.shares, strict=False)
        if is_shared
    )
    assert shared == Counter(cache.holders)
    private = sum(_blocks(replica, call) - sum(call.shares) * cache.span for call in held)
    assert cache.used == private + len(cache.holders) * cache.span
    assert 0 <= len(cache.idle) * cache.span <= cache.free <= cache.blocks
    assert not cache.holders.keys() & cache.idle.keys()


def _blocks(replica: Replica, call: Call) -> int:
    if call.state != "decode" or replica.engine.speculation is not None:
        return call.blocks
    tokens = replica.cached(call) + (replica.decodes > 0)  # the step's own token included
    return replica.cache.blocks_of(tokens)


def limits(replica: Replica) -> None:
    """Places, the token budget, adapters' places; counters are what they count."""
    engine, running = replica.engine, list(replica.running)
    decoding = [call for call in running if call.state == "decode"]
    assert len(running) <= engine.max_num_seqs
    assert replica.decoding == len(decoding)
    assert replica.total == sum(call.prompt + call.offset for call in decoding)
    assert replica.owned == sum(_blocks(replica, call) for call in running)
    assert replica.promised == sum(replica.final_blocks(call) for call in running)
    if engine.policy.chunked and replica.new:
        assert replica.decodes + replica.proposed + replica.new <= engine.budget
    assert replica.proposed == sum((replica.drafts or {}).values())
    held = Counter(call.adapter for call in running if call.adapter >= 0)
    if engine.adapters:
        assert held == Counter(replica.adapters.users)
        assert len(replica.adapters.users) + len(replica.adapters.idle) <= engine.adapters
