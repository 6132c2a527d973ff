"""The bracketed root finder: bends, kinks, arrays, and functions that never cross."""

import numpy as np
import pytest

from perfmodel.serving.solve import crossing


@pytest.mark.parametrize("root", [1e-6, 0.3, 7.0, 99.999])
def test_a_line_takes_one_pass(root: float) -> None:
    assert crossing(lambda x: root - x, 0.0, 100.0, 1) == pytest.approx(root, rel=1e-12)


@pytest.mark.parametrize("bend", [0.2, 0.5, 2.0, 5.0])
def test_bends(bend: float) -> None:
    found = crossing(lambda x: 3.0**bend - x**bend, 0.0, 40.0, 25)
    assert found == pytest.approx(3.0, rel=1e-6)


def test_a_kink_cannot_throw_it_out() -> None:
    def gap(x: float) -> float:
        return 1.0 - 0.01 * x if x < 10 else 0.9 - 5.0 * (x - 10)

    assert crossing(gap, 0.0, 1000.0, 40) == pytest.approx(10.18, rel=1e-6)


def test_without_a_crossing_the_upper_end_is_returned() -> None:
    assert crossing(lambda x: 1.0 + x, 0.0, 8.0, 5) == 8.0


def test_arrays_give_what_scalars_give() -> None:
    roots = np.array([0.5, 3.0, 20.0])
    table = crossing(lambda x: roots**2 - x**2, np.zeros(3), np.full(3, 10.0), 12)
    for root, found in zip(roots.tolist(), table.tolist(), strict=True):

        def gap(x: float, root: float = root) -> float:
            return root**2 - x**2

        assert found == pytest.approx(crossing(gap, 0.0, 10.0, 12), rel=1e-12)
    assert table[2] == 10.0
