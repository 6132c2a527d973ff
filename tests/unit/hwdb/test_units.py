"""The unit table against Pint, row by row; reading and showing; quantities nobody should write."""

import math
import re

import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwdb.units import UNITS, UnitError, dimension, parse, show

# Pint counts information in bits and calls them dimensionless; it knows no FLOP and no currency.
BASES = {"bytes": "byte", "W": "watt", "m2": "meter ** 2", "1": "dimensionless"}
DIMENSIONS = sorted({dim for dim, _ in UNITS.values()})
NUMBERS = st.floats(min_value=1e-20, max_value=1e25)


@pytest.fixture(scope="module")
def referee() -> pint.UnitRegistry:
    registry = pint.UnitRegistry()
    registry.define("FLOP = [operation]")
    registry.define("OP = FLOP")
    registry.define("USD = [currency]")
    registry.define("mm2 = millimeter ** 2")
    return registry


@pytest.mark.parametrize("spelling", UNITS)
def test_row_agrees_with_pint(referee, spelling):
    dim, factor = UNITS[spelling]
    base = "/".join(BASES.get(part, part) for part in dim.split("/"))
    assert referee.Quantity(1.0, spelling).to(base).magnitude == pytest.approx(factor, rel=1e-15)


@pytest.mark.parametrize("spelling", UNITS)
def test_information_is_a_dimension_of_its_own(spelling):
    """Pint cannot see this: its bits are dimensionless, so ``1`` and ``bytes`` look alike."""
    dim, _ = UNITS[spelling]
    assert bool(re.search(r"B\b|bit", spelling)) == ("bytes" in dim or dim == "bit")


@given(NUMBERS, st.sampled_from(sorted(UNITS)))
def test_parse_is_number_times_factor(number, spelling):
    dim, factor = UNITS[spelling]
    text = f"{number!r} {spelling}"
    assert parse(text) == parse(text, dim) == parse(f"  {number!r}{spelling} ") == number * factor
    assert dimension(text) == dim


@given(NUMBERS, st.sampled_from(DIMENSIONS))
def test_show_is_read_back(value, dim):
    assert parse(show(value, dim), dim) == pytest.approx(value, rel=5.01e-4)


@given(NUMBERS, st.sampled_from(DIMENSIONS))
def test_show_keeps_the_number_short(value, dim):
    """The largest fitting unit is taken: the number is at least 1 unless no smaller unit exists."""
    number, _, unit = show(value, dim).partition(" ")
    smaller = [row for row in UNITS.values() if row[0] == dim and row[1] < UNITS.get(unit, row)[1]]
    assert dim == "1" or float(number) >= 1 or not [f for _, f in smaller if f <= value * 0.999]


@pytest.mark.parametrize(
    ("value", "dim", "text"),
    [
        (3.35e12, "bytes/s", "3.35 TB/s"),
        (989.4e12, "FLOP/s", "989.4 TFLOP/s"),
        (80 * 2**30, "bytes", "85.9 GB"),
        (0.0, "s", "0 ns"),
        (-2e-6, "s", "-2 us"),
        (3.0 / 3600, "USD/s", "3 USD/h"),
        (0.25, "1", "0.25"),
    ],
)
def test_show(value, dim, text):
    assert show(value, dim) == text


def test_gigabytes_are_not_gibibytes():
    assert parse("80 GiB") / parse("80 GB") == 2**30 / 1e9
    assert parse("400 Gbit/s") == parse("50 GB/s")


@pytest.mark.parametrize(
    ("text", "dim", "says"),
    [
        ("", None, "is not a quantity"),
        ("fast", None, "is not a quantity"),
        ("nan TB/s", None, "is not a quantity"),
        ("inf W", None, "is not a quantity"),
        ("1,5 GB", None, "unknown unit"),
        ("3.35 T/s", None, "unknown unit 'T/s'"),
        ("80 Gb", None, "did you mean"),
        ("3.35 TBps", None, "did you mean TB"),
        ("700 W W", None, "unknown unit"),
        ("1e999 B", None, "is not a finite number"),
        ("700 W", "bytes/s", "has unit of W, needs bytes/s"),
        ("3.35", "bytes/s", "has unit of 1, needs bytes/s"),
        ("80 GB", "1", "has unit of bytes, needs 1"),
    ],
)
def test_bad_quantity_is_refused_in_one_line(text, dim, says):
    with pytest.raises(UnitError) as caught:
        parse(text, dim)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30), st.sampled_from([None, *DIMENSIONS]))
def test_any_text_is_a_finite_number_or_refused(text, dim):
    try:
        value = parse(text, dim)
    except UnitError:
        return
    assert math.isfinite(value)
