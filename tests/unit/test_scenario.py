"""A scenario: every field a flag, every number checked, plain data in and out."""

import dataclasses
import json

import numpy as np
import pytest

from perfmodel.cli.options import _FLAGS
from perfmodel.core.errors import UsageError
from perfmodel.core.symbols import SYMBOLS
from perfmodel.scenario.estimate import estimate
from perfmodel.scenario.scenario import KINDS, NUMBERS, SYMBOL_OF, Scenario

FIELDS = {item.name for item in dataclasses.fields(Scenario)}
ASKED = {"model": "meta-llama/Llama-3.1-8B", "gpu": "h100-sxm"}
PER_HOUR = {"price": 3600.0}  # asked for in USD per hour, per second in the nomenclature


def test_every_field_is_a_kind_a_number_or_an_override():
    assert {*KINDS, *NUMBERS, "set", "ignore"} == FIELDS
    assert not set(KINDS) & set(NUMBERS)


def test_every_field_is_a_flag():
    assert set(_FLAGS) == FIELDS - {"set", "ignore"}


def test_every_field_is_documented():
    text = Scenario.__doc__ or ""
    assert [name for name in FIELDS if name not in text] == []


def test_defaults_are_legal():
    Scenario(**ASKED).check()


@pytest.mark.parametrize("name", NUMBERS)
def test_ranges_hold_at_their_ends_and_not_beyond(name):
    row, scale = SYMBOLS[SYMBOL_OF[name]], PER_HOUR.get(name, 1.0)
    low, high = row.low * scale, row.high * scale

    def check(value):
        Scenario(**(ASKED | {"isl": 1e8} | {name: value})).check()

    legal = [low, high if name != "prefix" else high / 2]  # shorter than the prompt
    for value in [*legal, np.array(legal)]:
        check(value)
    for value in (low - 1, high * 2 + 1, np.array([low, high * 2 + 1])):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .* out of range"):
            check(value)
    for value in (float("nan"), float("inf"), -float("inf"), np.array([low, np.nan]), True):
        with pytest.raises(UsageError, match="is not a finite number"):
            check(value)
    for value in ("many", object(), [[1, 2], [3]]):
        with pytest.raises(UsageError, match="is not a number"):
            check(value)
    if row.whole:
        with pytest.raises(UsageError, match="is not a whole number"):
            check(low + 0.5)


def test_arrays_must_broadcast():
    Scenario(**ASKED, isl=np.ones((3, 1)), osl=np.ones(4)).check()
    with pytest.raises(UsageError, match=r"do not broadcast: isl \(3,\), osl \(4,\)"):
        Scenario(**ASKED, isl=np.ones(3), osl=np.ones(4)).check()


def test_both_load_axes_are_refused():
    with pytest.raises(UsageError, match="--max-concurrency or --request-rate, not both"):
        Scenario(**ASKED, max_concurrency=4, request_rate=1.0).check()


@pytest.mark.parametrize("prefix", [1024, 2000, np.array([0, 1024])])
def test_a_prefix_is_shorter_than_its_prompt(prefix):
    with pytest.raises(UsageError, match=r"--prefix .* shorter than --isl 1024"):
        Scenario(**ASKED, isl=1024, prefix=prefix).check()


def test_numbers_are_those_that_are_set():
    numbers = Scenario(**ASKED, isl=7, request_rate=0.5).numbers()
    assert (numbers["isl"], numbers["request_rate"]) == (7, 0.5)
    assert "max_concurrency" not in numbers
    assert "price" not in numbers


def test_to_dict_is_plain_and_asks_the_same_question():
    scenario = Scenario(**ASKED, isl=4000.0, price=2.5, max_concurrency=np.array([1.0, 8.0]),
                        set={"gpu.power.tdp": "500 W"}, ignore=("rope_x",))  # fmt: skip
    plain = json.loads(json.dumps(scenario.to_dict(), allow_nan=False))
    assert plain["isl"] == 4000
    assert isinstance(plain["isl"], int)
    assert plain["max_concurrency"] == [1.0, 8.0]
    assert plain["ignore"] == ["rope_x"]
    assert "node" not in plain
    assert "request_rate" not in plain
    again = Scenario(**plain | {"max_concurrency": 8, "ignore": ()})
    first = dataclasses.replace(scenario, max_concurrency=8, ignore=())
    assert estimate(again).results() == estimate(first).results()


def test_a_scenario_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scenario(**ASKED).isl = 5  # pyright: ignore


def test_estimate_names_what_is_missing_or_unknown():
    with pytest.raises(UsageError, match="needs gpu"):
        estimate(model="meta-llama/Llama-3.1-8B")
    with pytest.raises(UsageError, match="needs model and gpu"):
        estimate()
    with pytest.raises(UsageError, match="no 'concurrency'; nearest: max_concurrency"):
        estimate(**ASKED, concurrency=8)


def test_the_same_question_in_arrays_and_numbers():
    one = estimate(**ASKED, isl=2000, max_concurrency=16).results()
    many = estimate(**ASKED, isl=np.array([2000, 500]), max_concurrency=np.array([16])).results()
    for name, value in one.items():
        assert np.ravel(np.broadcast_to(many[name], (2,)))[0] == pytest.approx(value, rel=1e-12)
