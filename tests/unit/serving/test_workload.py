"""Generated workloads: columns as promised, independent streams, shared prefixes, summaries."""

import dataclasses
import math

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving import arrivals, workload
from perfmodel.serving.lengths import Fixed, LogNormal, Uniform
from perfmodel.serving.requests import Requests
from perfmodel.serving.workload import (
    PRESETS,
    SharedPrefix,
    generate,
    parse_arrivals,
    preset,
    rearrive,
    summarise,
)

PROMPT, OUTPUT, HIDDEN = Uniform(100, 3000), LogNormal(300, 0.8), Uniform(500, 900)


def same(one, other):
    def column(requests):
        start, ids = requests.hash_ids or (np.zeros(0), np.zeros(0))
        return [requests.arrival, requests.prompt, requests.output, start, ids]

    pairs = zip(column(one), column(other), strict=True)
    return [a.tobytes() == b.tobytes() for a, b in pairs]


def test_columns_are_what_was_asked_for():
    requests = generate(PROMPT, OUTPUT, 50_000, 20.0, seed=1)
    seen = summarise(requests)
    assert seen.count == len(requests) == 50_000
    assert seen.rate == pytest.approx(20, rel=0.02)
    assert seen.burstiness == pytest.approx(1, rel=0.05)
    assert seen.prompt.mean == pytest.approx(PROMPT.mean, rel=0.01)
    assert seen.output.mean == pytest.approx(OUTPUT.mean, rel=0.02)
    assert seen.output.p50 == pytest.approx(300, rel=0.02)
    assert (seen.hidden, seen.repeated) == (None, None)
    assert requests.hidden is None
    assert requests.hash_ids is None


def test_a_seed_gives_the_same_bits():
    def draw(seed):
        return generate(PROMPT, OUTPUT, 500, 5.0, prefix=SharedPrefix(64, 3, 0.5), seed=seed)

    assert all(same(draw(7), draw(7)))
    assert not any(same(draw(7), draw(8)))


def test_changing_one_law_leaves_the_other_draws():
    base = generate(PROMPT, OUTPUT, 500, 5.0)
    assert same(base, generate(Fixed(9), OUTPUT, 500, 5.0))[:3] == [True, False, True]
    assert same(base, generate(PROMPT, Fixed(9), 500, 5.0))[:3] == [True, True, False]
    burst = generate(PROMPT, OUTPUT, 500, 5.0, process=arrivals.on_off)
    assert same(base, burst)[:3] == [False, True, True]


def test_columns_do_not_depend_on_each_other():
    """Prompts and responses of the same law are drawn apart."""
    requests = generate(PROMPT, PROMPT, 20_000, 5.0)
    assert abs(np.corrcoef(requests.prompt, requests.output)[0, 1]) < 0.03


def test_hidden_tokens_come_on_top():
    plain = generate(PROMPT, OUTPUT, 1000, 5.0)
    thinking = generate(PROMPT, OUTPUT, 1000, 5.0, hidden=HIDDEN)
    assert np.array_equal(thinking.output - thinking.hidden, plain.output)
    assert summarise(thinking).hidden.mean == pytest.approx(HIDDEN.mean, rel=0.02)


def test_an_infinite_rate_is_all_at_once():
    requests = generate(PROMPT, OUTPUT, 10, math.inf)
    assert not requests.arrival.any()
    seen = summarise(requests)
    assert (seen.rate, seen.burstiness, seen.span) == (math.inf, None, 0)


@pytest.mark.parametrize(
    ("text", "expected", "tolerance"),
    [("poisson", 1, 0.05), ("gamma(burstiness=0.25)", 0.25, 0.1), ("gamma(4)", 4, 0.1),
     ("deterministic", math.inf, 0)],
)  # fmt: skip
def test_burstiness_is_read_back(text, expected, tolerance):
    requests = generate(Fixed(1), Fixed(1), 50_000, 3.0, process=parse_arrivals(text))
    assert summarise(requests).burstiness == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("poison", "no arrival process 'poison'; nearest: poisson; one of: poisson, gamma"),
        ("gamma(burst=2)", "no argument 'burst'; nearest: burstiness; it has burstiness"),
        ("poisson(3)", "3 needs a name or is too many; it has no arguments"),
        ("gamma(rate=3)", "no argument 'rate'"),
        ("on_off(1,2,0.5,4)", "4 needs a name or is too many"),
        ("gamma(", "not of the form"),
        ("", "not of the form"),
    ],
)
def test_arrivals_that_cannot_be(text, said):
    with pytest.raises(UsageError, match=said):
        parse_arrivals(text)


def test_arrival_parameters_are_checked_when_drawn():
    with pytest.raises(UsageError, match="burstiness is 0"):
        generate(Fixed(1), Fixed(1), 5, 1.0, process=parse_arrivals("gamma(0)"))


def test_shared_prefixes_are_shared_by_their_share():
    prefix = SharedPrefix(tokens=1000, groups=4, share=0.6, block=16)
    requests = generate(Uniform(1200, 2000), OUTPUT, 5000, 5.0, prefix=prefix)
    start, ids = requests.hash_ids
    assert requests.hash_block == 16
    assert np.array_equal(np.diff(start), -(-requests.prompt // 16))
    first = ids[start[:-1]]
    popular, counts = np.unique(first, return_counts=True)
    groups = popular[counts > 1]
    assert len(groups) == 4
    assert counts[counts > 1].sum() == pytest.approx(3000, rel=0.05)
    assert np.all(np.abs(counts[counts > 1] - 750) < 150)
    members = np.flatnonzero(first == groups[0])[:2]
    one, two = (ids[start[i] : start[i + 1]] for i in members)
    # 62 whole blocks of 16 in 1000 tokens, and nothing else, are common.
    assert np.array_equal(one[:62], two[:62])
    assert not set(one[62:]) & set(two[62:])


def test_repeated_blocks_are_counted():
    prefix = SharedPrefix(tokens=160, groups=1, share=1.0, block=16)
    requests = generate(Fixed(320), Fixed(1), 100, 5.0, prefix=prefix)
    assert summarise(requests).repeated == pytest.approx(1 - (10 + 100 * 10) / (100 * 20))
    alone = generate(Fixed(320), Fixed(1), 100, 5.0, prefix=dataclasses.replace(prefix, share=0.0))
    assert summarise(alone).repeated == 0


def test_short_prompts_are_wholly_common_without_their_last_part():
    prefix = SharedPrefix(tokens=1000, block=16)
    requests = generate(Fixed(40), Fixed(1), 2, 5.0, prefix=prefix)
    start, ids = requests.hash_ids
    assert start.tolist() == [0, 3, 6]
    assert ids[:2].tolist() == ids[3:5].tolist()
    assert ids[2] != ids[5]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": 5, "groups": 0}, "groups is 0"),
        ({"tokens": 5, "block": -1}, "block is -1"),
        ({"tokens": 5, "share": 1.1}, "share is 1.1"),
        ({"tokens": 5, "share": math.nan}, "share is nan"),
    ],
)
def test_prefixes_that_cannot_be(wrong, said):
    with pytest.raises(UsageError, match=said):
        SharedPrefix(**wrong)


@pytest.mark.parametrize(
    ("count", "rate", "more", "said"),
    [
        (0, 1.0, {}, "a workload of 0 requests"),
        (5, 0.0, {}, "request rate per second is 0"),
        (5, -math.inf, {}, "request rate per second is -inf"),
        (5, math.nan, {}, "request rate per second is nan"),
        (5, 1.0, {"seed": -1}, "a seed of -1"),
    ],
)
def test_workloads_that_cannot_be(count, rate, more, said):
    with pytest.raises(UsageError, match=said):
        generate(PROMPT, OUTPUT, count, rate, **more)


def test_too_many_blocks_are_refused(monkeypatch):
    monkeypatch.setattr(workload, "MOST_BLOCKS", 10)
    with pytest.raises(UsageError, match="fewer requests or larger blocks"):
        generate(Fixed(320), Fixed(1), 1, 5.0, prefix=SharedPrefix(16))


def test_rearrive_keeps_tasks_together():
    requests = Requests(np.zeros(6), *(np.full(6, n) for n in (10, 5)),
                        task=np.array([0, 0, 1, 1, 1, 4]))  # fmt: skip
    timed = rearrive(requests, 2.0, seed=3)
    assert len(set(timed.arrival)) == 3
    assert timed.arrival[0] == timed.arrival[1]
    assert timed.arrival[2:5].tolist() == generate(Fixed(1), Fixed(1), 3, 2.0, seed=3).arrival[
        [1, 1, 1]
    ].tolist()  # fmt: skip
    mixed = dataclasses.replace(requests, task=np.array([0, 1, 0, 1, 1, 1]))
    with pytest.raises(UsageError, match="in order of task"):
        rearrive(mixed, 2.0)


def test_rearrive_keeps_everything_but_the_times():
    requests = generate(PROMPT, OUTPUT, 2000, math.inf, prefix=SharedPrefix(64))
    timed = rearrive(requests, 4.0, seed=3)
    assert same(requests, timed) == [False, True, True, True, True]
    assert summarise(timed).rate == pytest.approx(4, rel=0.1)
    assert timed.arrival.tobytes() == rearrive(requests, 4.0, seed=3).arrival.tobytes()


def test_summary_of_few_requests():
    def some(times):
        ones = np.ones(len(times), dtype=np.int64)
        return summarise(Requests(np.array(times), ones, ones))

    assert some([3.0]).burstiness is None
    assert some([3.0]).rate == math.inf
    assert some([3.0, 5.0]).rate == 0.5
    assert some([3.0, 5.0]).burstiness is None
    assert some([0.0, 1.0, 4.0]).burstiness == pytest.approx(4)


def test_spread_is_numpys_percentiles():
    column = np.array([5, 1, 4, 2, 3])
    assert dataclasses.astuple(workload.Spread.of(column)) == pytest.approx((3, 3, 4.6, 4.96, 5))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_figures_of_their_sources(name):
    chosen = preset(name)
    assert "arXiv" in chosen.source
    requests = generate(chosen.prompt, chosen.output, 50_000, 1.0, hidden=chosen.hidden)
    seen = summarise(requests)
    if name == "chat":
        assert (seen.prompt.p50, seen.prompt.p90) == pytest.approx((1730, 5696), rel=0.03)
        assert (seen.output.p50, seen.output.p90) == pytest.approx((415, 834), rel=0.03)
    elif name == "summarise":
        assert (seen.prompt.p50, seen.prompt.p90) == pytest.approx((7059, 12985), rel=0.03)
        assert (seen.output.p50, seen.output.p90) == pytest.approx((208, 371), rel=0.03)
    elif name == "code":
        assert (seen.prompt.mean, seen.output.mean) == pytest.approx((2047.8, 27.9), rel=0.03)
    else:
        assert seen.output.mean == pytest.approx(4717.5, rel=0.03)
        assert seen.hidden.mean > 0.5 * seen.output.mean
    assert (requests.hidden is None) == (name != "reasoning")


def test_unknown_presets():
    with pytest.raises(UsageError, match="no workload preset 'chatt'; nearest: chat; one of: chat"):
        preset("chatt")
