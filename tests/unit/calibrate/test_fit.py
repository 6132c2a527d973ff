"""Fitting: known rates come back within their errors; beliefs pull; pools widen."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from perfmodel.calibrate.fit import Belief, Parameter, fit, numeric_jacobian
from perfmodel.calibrate.intervals import draws, half_width
from perfmodel.calibrate.pool import ALONE, LEAST, hierarchical, pool
from perfmodel.calibrate.validate import cross_validate, errors, folds, leave_one_out
from perfmodel.core.errors import DataError

RATES = (
    Parameter("bandwidth", "B/s", 1e12, 1e10, 1e14, "of a stream"),
    Parameter("floor", "s", 1e-6, 1e-9, 1e-3, "of a launch"),
)
TRUE = np.log([2.5e12, 3e-6])


@dataclasses.dataclass(frozen=True)
class Stream:
    """Time of a copy: bytes over bandwidth, plus a floor."""

    moved: np.ndarray
    measured: np.ndarray
    parameters: tuple[Parameter, ...] = RATES

    @property
    def groups(self) -> np.ndarray:
        return self.moved

    def subset(self, keep: np.ndarray) -> "Stream":
        return Stream(self.moved[keep], self.measured[keep])

    def residuals(self, logs: np.ndarray) -> np.ndarray:
        bandwidth, floor = np.exp(logs)
        return np.log((self.moved / bandwidth + floor) / self.measured)

    def jacobian(self, logs: np.ndarray) -> np.ndarray:
        return numeric_jacobian(self.residuals, logs)


def streams(noise: float, seed: int = 0, n: int = 200, true: np.ndarray = TRUE) -> Stream:
    rng = np.random.default_rng(seed)
    moved = np.exp(rng.uniform(np.log(1e4), np.log(1e9), n))
    bandwidth, floor = np.exp(true)
    return Stream(moved, (moved / bandwidth + floor) * np.exp(rng.normal(0, noise, n)))


def test_exact_rows_give_the_exact_rates() -> None:
    found = fit(streams(0.0))
    assert found.logs == pytest.approx(TRUE, abs=1e-5)
    assert found.n == 200
    assert found.values == pytest.approx({"bandwidth": 2.5e12, "floor": 3e-6}, rel=1e-4)


def test_errors_are_honest() -> None:
    """Over many noisy repetitions, (found - true) / error is standard normal."""
    scores = []
    for seed in range(60):
        found = fit(streams(0.05, seed))
        scores.append((found.logs - TRUE) / np.array(list(found.errors.values())))
    assert np.abs(np.mean(scores, axis=0)).max() < 4 / np.sqrt(60)
    # 60 draws: a standard deviation is known to 9 %
    assert np.std(scores, axis=0) == pytest.approx([1, 1], abs=0.3)


def test_outliers_hardly_move_the_fit() -> None:
    clean = streams(0.02)
    wild = clean.measured.copy()
    wild[::20] *= 10  # one row in twenty is ten times too slow
    moved = fit(Stream(clean.moved, wild)).logs - fit(clean).logs
    assert np.abs(moved).max() < 0.03


def test_a_belief_rules_where_rows_are_silent() -> None:
    small = Stream(np.full(5, 1e3), np.full(5, 3e-6))  # bandwidth cannot be seen
    belief = Belief(np.log([7e12, 1e-6]), np.array([0.1, 10.0]))
    found = fit(small, belief)
    assert found.values["bandwidth"] == pytest.approx(7e12, rel=1e-3)
    assert found.values["floor"] == pytest.approx(3e-6, rel=0.02)
    # no row saw it: the belief stays as wide as it was
    assert found.errors["bandwidth"] == pytest.approx(0.1, rel=0.05)


def test_several_starts_leave_a_bad_guess() -> None:
    class Wavy(Stream):
        def residuals(self, logs: np.ndarray) -> np.ndarray:
            away = logs[0] - TRUE[0]
            wavy = away**2 / 20 + 1 - np.cos(3 * away)
            return np.append(super().residuals(np.array([TRUE[0], logs[1]])), wavy)

    data = streams(0.0)
    model = Wavy(data.moved, data.measured, (dataclasses.replace(RATES[0], start=2e11), RATES[1]))
    assert fit(model).cost > 0.1
    assert fit(model, starts=16).logs[0] == pytest.approx(TRUE[0], abs=0.05)


def test_rates_on_their_bounds_are_named() -> None:
    low = dataclasses.replace(RATES[0], high=1e12)
    data = streams(0.0)
    found = fit(Stream(data.moved, data.measured, (low, RATES[1])))
    assert found.at_bounds() == ("bandwidth",)


def test_bad_rows_get_one_line() -> None:
    with pytest.raises(DataError, match="1 rows cannot determine 2 rates"):
        fit(streams(0.0, n=1))
    data = streams(0.0)
    broken = Stream(np.where(np.arange(200) == 7, np.nan, data.moved), data.measured)
    with pytest.raises(DataError, match="row 7: the formula gives no finite time"):
        fit(broken)


def test_a_pool_is_as_wide_as_its_members() -> None:
    exact = np.zeros(1)
    belief = pool([np.array([0.0]), np.array([0.2]), np.array([0.4])], [exact] * 3)
    assert belief.mean == pytest.approx([0.2])
    assert belief.deviation == pytest.approx([0.2 * np.sqrt(4 / 3)])
    assert pool([exact], [exact]).deviation == pytest.approx([ALONE * np.sqrt(2)])
    twins = pool([exact, exact], [exact, exact])
    assert twins.deviation == pytest.approx([LEAST * np.sqrt(1.5)])


def test_a_poorly_measured_gpu_is_drawn_to_its_generation() -> None:
    offsets = {"a": 0.0, "b": 0.02, "c": -0.02}
    models = {
        gpu: streams(0.01, i, true=TRUE + off) for i, (gpu, off) in enumerate(offsets.items())
    }
    moved = np.full(4, 1e4)  # 4 ns of 3 us: says nothing of bandwidth
    models["poor"] = Stream(moved, 3e-6 * np.array([0.98, 1.0, 1.01, 1.02]))
    pooled = hierarchical(models, dict.fromkeys(models, "one"))
    assert pooled.fits["poor"].logs[0] == pytest.approx(TRUE[0], abs=0.2)
    assert pooled.fits["a"].logs == pytest.approx(TRUE, abs=0.01)


def test_an_unmeasured_gpu_inherits_with_wider_errors() -> None:
    models = {
        f"{gen}{i}": streams(0.01, i, true=TRUE + shift + 0.05 * i)
        for gen, shift in (("x", 0.0), ("y", 0.5))
        for i in range(3)
    }
    pooled = hierarchical(models, {gpu: gpu[0] for gpu in models})
    known, new = pooled.inherited("x"), pooled.inherited("z")
    assert known.mean == pytest.approx(TRUE + 0.05, abs=0.02)
    assert (known.deviation > list(pooled.fits["x0"].errors.values())).all()
    assert (new.deviation > 3 * known.deviation).all()
    left = leave_one_out(models, {gpu: gpu[0] for gpu in models})
    residuals, widths = left["x1"]
    assert np.abs(residuals).max() < 0.1
    assert (np.abs(residuals) <= widths).mean() > 0.85


def test_folds_keep_groups_whole_and_deal_them_evenly() -> None:
    groups = np.repeat(np.arange(50), 4)
    fold = folds(groups, 5)
    assert all(len(set(fold[groups == group])) == 1 for group in range(50))
    assert np.bincount(fold).tolist() == [40] * 5
    assert (folds(groups, 5) == fold).all()
    with pytest.raises(DataError, match="3 groups of rows cannot make 5 folds"):
        folds(np.arange(3), 5)


def test_cross_validated_intervals_cover_nine_in_ten() -> None:
    left, widths = cross_validate(streams(0.05, n=2000))
    found = errors(left, widths)
    assert found.coverage == pytest.approx(0.9, abs=0.03)
    # median of |exp(N(0, 0.05)) - 1|
    assert found.median == pytest.approx(0.05 * stats.norm.ppf(0.75), rel=0.1)
    assert found.bias == pytest.approx(0, abs=0.005)


def test_error_figures_by_hand() -> None:
    found = errors(np.log([1.1, 0.5, 1.0, 2.0, 1.0]), np.full(5, 0.2))
    assert (found.n, found.bias) == (5, 0.0)
    assert found.median == pytest.approx(0.1)
    assert found.mean == pytest.approx(1.6 / 5)
    assert found.p90 == pytest.approx(0.8)
    assert found.coverage == pytest.approx(0.6)
    assert "coverage" not in str(errors(np.zeros(3)))
    with pytest.raises(DataError, match="no rows"):
        errors(np.zeros(0))


def test_draws_have_the_covariance_they_were_drawn_from() -> None:
    covariance = np.array([[0.04, 0.01], [0.01, 0.09]])
    sample = np.log(draws(TRUE, covariance, 4096))
    assert sample.shape == (4096, 2)
    np.testing.assert_allclose(np.cov(sample.T), covariance, rtol=0.02, atol=5e-4)
    assert sample.mean(axis=0) == pytest.approx(TRUE, abs=1e-3)


def test_widths_add_what_rates_and_formula_leave_open() -> None:
    jacobian = np.array([[1.0, 0.0], [0.0, 0.0]])
    widths = half_width(jacobian, np.diag([0.01, 0.04]), 0.2)
    assert widths == pytest.approx([np.hypot(0.2, 0.16449), 0.2])
