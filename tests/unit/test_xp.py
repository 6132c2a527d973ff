"""The few functions of `xp` say the same for floats, arrays, symbols and quantities."""

import math
from typing import Any

import numpy as np
import pint
import pytest
import sympy

from perfmodel.core import xp

NAN, INF = float("nan"), float("inf")
VALUES = [-3.0, -1.0, -0.25, 0.0, 0.5, 1.0, 2.5, 7.0, 1e9, INF, -INF, NAN]
PAIRS = [(a, b) for a in VALUES for b in VALUES]
BINARY = [(xp.maximum, np.maximum), (xp.minimum, np.minimum)]
UNARY = [
    (xp.ceil, np.ceil, sympy.ceiling),
    (xp.floor, np.floor, sympy.floor),
    (xp.exp, np.exp, sympy.exp),
    (xp.sqrt, np.sqrt, sympy.sqrt),
    (xp.log1p, np.log1p, lambda x: sympy.log(1 + x)),
    (xp.log2, np.log2, lambda x: sympy.log(x, 2)),
]
NAMES = [made.__name__ for made, *_ in UNARY]


@pytest.mark.parametrize(("ours", "numpys"), BINARY)
def test_binary_as_numpy(ours: Any, numpys: Any) -> None:
    a, b = (np.array(side) for side in zip(*PAIRS, strict=True))
    np.testing.assert_array_equal(ours(a, b), numpys(a, b))
    for left, right in PAIRS:
        made = ours(left, right)
        assert type(made) is float
        np.testing.assert_equal(made, float(numpys(left, right)))
    np.testing.assert_array_equal(ours(a, 1.0), numpys(a, 1.0))


@pytest.mark.parametrize(("ours", "numpys", "symbolic"), UNARY, ids=NAMES)
def test_unary_as_numpy(ours: Any, numpys: Any, symbolic: Any) -> None:
    values = np.array([0.001, 0.5, 1.0, 1.5, 2.0, 3.999, 50.0])
    made = ours(values)
    np.testing.assert_array_equal(made, numpys(values))
    for value, expected in zip(values, made, strict=True):
        assert float(ours(float(value))) == expected
    x = sympy.Symbol("x", positive=True)
    assert ours(x) == symbolic(x)


@pytest.mark.parametrize("ours", [xp.ceil, xp.floor])
def test_rounding_keeps_what_is_not_finite(ours: Any) -> None:
    assert ours(INF) == INF
    assert ours(-INF) == -INF
    assert math.isnan(ours(NAN))
    assert type(ours(2.5)) is float


def test_ceil_div() -> None:
    assert [xp.ceil_div(a, 16.0) for a in (0.0, 1.0, 16.0, 17.0)] == [0.0, 1.0, 1.0, 2.0]
    np.testing.assert_array_equal(xp.ceil_div(np.array([31, 32, 33]), 16), [2, 2, 3])


def test_where() -> None:
    assert xp.where(True, 1.0, 2.0) == 1.0
    assert xp.where(np.bool_(False), 1.0, 2.0) == 2.0
    mask = np.array([True, False])
    np.testing.assert_array_equal(xp.where(mask, 1.0, np.array([5.0, 6.0])), [1.0, 6.0])
    # a plain condition between arrays still gives an array of the common shape
    assert xp.where(True, np.ones(3), np.zeros(3)).shape == (3,)
    assert xp.where(True, 1.0, np.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    x = sympy.Symbol("x", positive=True)
    piece = xp.where(x > 1, x, 0.0)
    assert isinstance(piece, sympy.Piecewise)
    assert [float(piece.subs(x, value)) for value in (3, 1)] == [3.0, 0.0]


def test_symbols() -> None:
    x, y = sympy.symbols("x y", positive=True)
    assert xp.maximum(x, y) == sympy.Max(x, y)
    assert xp.minimum(x, 3) == sympy.Min(x, 3)


def test_quantities_keep_their_units() -> None:
    units = pint.UnitRegistry()
    second, milli = units.Quantity(1.0, "s"), units.Quantity(200.0, "ms")
    assert xp.maximum(second, milli) == second
    assert xp.minimum(second, milli) == milli
    assert xp.where(np.array([False]), second, milli)[0] == milli
    with pytest.raises(pint.DimensionalityError):
        xp.maximum(second, units.Quantity(1.0, "B"))


def test_sympy_stays_away_until_asked() -> None:
    import subprocess
    import sys

    code = (
        "import sys, perfmodel.scenario.estimate as e;"
        "e.estimate(model='meta-llama/Llama-3.1-8B', gpu='h100-sxm').results();"
        "sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
