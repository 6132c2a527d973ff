"""Length laws: samples have the stated mean, bounds and quantiles; the parser names what is off."""

import math

import numpy as np
import pytest

from perfmodel.core.errors import DataError, UsageError
from perfmodel.serving.lengths import Empirical, Fixed, LogNormal, Pareto, Uniform, parse

COUNT = 200_000
LAWS = {
    "fixed": Fixed(17),
    "uniform": Uniform(3, 40),
    "lognormal": LogNormal(600, 1.2),
    "short lognormal": LogNormal(1.5, 1.0),
    "capped lognormal": LogNormal(600, 1.2, 2000),
    "pareto": Pareto(1.5, 50, 32000),
    "pareto 1": Pareto(1.0, 2, 100),
    "flat pareto": Pareto(0.3, 1, 9),
    "empirical": Empirical(np.array([1, 5, 9])),
    "weighted": Empirical(np.array([1, 5, 9]), np.array([6.0, 3.0, 1.0])),
}
EACH = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def rng(seed=1):
    return np.random.default_rng(seed)


@EACH
def test_samples_are_token_counts(law):
    values = law.sample(1000, rng())
    assert values.dtype == np.int64
    assert values.shape == (1000,)
    assert values.min() >= 1
    assert law.sample(0, rng()).shape == (0,)


@EACH
def test_a_seed_gives_the_same_bits(law):
    first, again, other = (law.sample(1000, rng(seed)).tobytes() for seed in (1, 1, 2))
    assert first == again
    assert (first == other) == isinstance(law, Fixed)


@EACH
def test_the_mean_is_that_of_the_samples(law):
    values = law.sample(COUNT, rng())
    error = 4 * np.std(values) / math.sqrt(COUNT)
    assert law.mean == pytest.approx(np.mean(values), abs=error + 1e-12)


def test_bounds_are_reached_and_kept():
    for law, low, high in [
        (Uniform(3, 40), 3, 40),
        (Pareto(1.0, 2, 100), 2, 100),
        (LogNormal(6, 1.2, 20), 1, 20),
    ]:
        values = law.sample(COUNT, rng())
        assert (values.min(), values.max()) == (low, high)


def test_uniform_is_uniform():
    counts = np.bincount(Uniform(3, 6).sample(COUNT, rng()))[3:]
    assert len(counts) == 4
    assert np.all(np.abs(counts / COUNT - 0.25) < 0.006)


@pytest.mark.parametrize("nominal", [1, 10, 1000, 8192])
def test_shares_of_a_nominal_length(nominal):
    law = Uniform.of(0.8, 1.0, nominal)
    assert law.low == max(math.floor(0.8 * nominal), 1)
    assert law.high == nominal


def test_shares_do_not_round_past_the_whole_number():
    assert Uniform.of(0.9, 1.1, 10) == Uniform(9, 11)
    assert Uniform.of(0.29, 0.57, 100) == Uniform(29, 57)


@pytest.mark.parametrize(
    ("given", "quantiles"),
    [
        ({"median": 600, "sigma": 1.2}, {0.5: 600}),
        ({"median": 1730, "p90": 5696}, {0.5: 1730, 0.9: 5696}),
        ({"median": 600, "p99": 9000}, {0.5: 600, 0.99: 9000}),
        ({"mean": 900, "p90": 1800}, {0.9: 1800}),
        ({"mean": 900, "p99": 5000}, {0.99: 5000}),
        ({"median": 600, "mean": 900}, {0.5: 600}),
    ],
)
def test_lognormal_from_two_figures(given, quantiles):
    law = LogNormal.of(**given)
    values = law.sample(COUNT, rng())
    for share, value in quantiles.items():
        assert np.quantile(values, share) == pytest.approx(value, rel=0.02)
    if "mean" in given:
        assert law.mean == pytest.approx(given["mean"], rel=1e-3)


def test_pareto_has_its_tail():
    values = Pareto(1.5, 50, 10**8).sample(COUNT, rng())
    assert np.mean(values > 500) == pytest.approx(10**-1.5, rel=0.05)


def test_pareto_mean_at_one_is_the_limit_of_its_neighbours():
    below, at, above = (Pareto(alpha, 2, 1000).mean for alpha in (1 - 1e-7, 1.0, 1 + 1e-7))
    assert at == pytest.approx((below + above) / 2, rel=1e-6)
    assert at == pytest.approx(2 * 1000 / 998 * math.log(500))


def test_empirical_from_a_column(tmp_path):
    path = tmp_path / "seen.csv"
    path.write_text("id,output tokens\na,3\nb,0\nc,7\n")
    law = parse(f"{path}:output tokens")
    assert sorted(set(law.sample(100, rng()).tolist())) == [3, 7]
    assert law.mean == 5


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("4000", Fixed(4000)),
        (" 1e3 ", Fixed(1000)),
        ("uniform(800, 1000)", Uniform(800, 1000)),
        ("uniform(low=800,high=1000)", Uniform(800, 1000)),
        ("uniform(0.8,1.0)*8192", Uniform(6553, 8192)),
        ("Uniform( 0.8 , 1 ) * 1000", Uniform(800, 1000)),
        ("lognormal(median=600,sigma=1.2)", LogNormal(600, 1.2)),
        ("lognormal(median=600, sigma=1.2, high=4096)", LogNormal(600, 1.2, 4096)),
        ("lognormal(mean=900,p99=5000)", LogNormal.of(mean=900, p99=5000)),
        ("pareto(1.5, 50, 32000)", Pareto(1.5, 50, 32000)),
        ("pareto(alpha=1.5, high=32000, low=50)", Pareto(1.5, 50, 32000)),
    ],
)
def test_the_command_lines_spelling(text, law):
    assert parse(text) == law


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "none of: 4000, uniform"),
        ("many", "none of: 4000, uniform"),
        ("0", "length is 0 tokens; from 1"),
        ("-5", "length is -5 tokens"),
        ("1.5", "length is 1.5; a whole number"),
        ("inf", "none of"),
        ("1e12", "from 1 to 1e8"),
        ("unifrom(1,2)", "no length law 'unifrom'; nearest: uniform; one of"),
        ("uniform(1)", "high is missing; it has low, high"),
        ("uniform(1,2,3)", "3 needs a name or is too many"),
        ("uniform(1,low=2)", "low is given twice"),
        ("uniform(low=1,low=2)", "low is given twice"),
        ("uniform(9,2)", "low must not exceed high"),
        ("uniform(0.8,1.0)", r"shares of a length as in uniform\(0.8, 1.0\)\*8192"),
        ("uniform(0.8,1.0)*x", r"only uniform\(low, high\) takes \*"),
        ("uniform(0.8,1.0)*0", r"only uniform\(low, high\) takes \*"),
        ("uniform(-1,1)*100", "uniform from -1 to 1 of a length: 0 <= low"),
        ("uniform(0,0)*100", "high is 0 tokens"),
        ("uniform(1,1e300)*1e8", "high is 200000000 tokens; from 1 to 1e8"),
        ("uniform(1,x)", "'x' is not a number"),
        ("uniform(1,)", "'' is not a number"),
        ("uniform((1,2))", "not of the form"),
        ("uniform(1,2", "not of the form"),
        ("lognormal(600,1.2)", "600 needs a name"),
        ("lognormal(median=600)", "takes two of"),
        ("lognormal(median=600,sigma=1,p99=9)", "takes two of"),
        ("lognormal(sigma=1,p99=9)", "takes two of"),
        ("lognormal(median=600,p99=500)", "no lognormal has median=600, p99=500"),
        ("lognormal(mean=600,median=700)", "no lognormal has"),
        ("lognormal(mean=10,p99=1e6)", "no lognormal has"),
        ("lognormal(median=-1,sigma=1)", "median is -1"),
        ("lognormal(median=5,sigma=99)", "sigma of 99"),
        ("lognormal(median=5,sigm=1)", "no argument 'sigm'; nearest: sigma"),
        ("lognormal(median=600,sigma=1)*2", r"only uniform\(low, high\) takes \*"),
        ("pareto(0,1,9)", "alpha of 0"),
        ("pareto(1,9,9)", "low must be less than high"),
        ("pareto(1,1.5,9)", "low is 1.5; a whole number"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "column", "said"),
    [
        ("a,b\n1,2\n", "c", r":1: no column 'c'.*has a, b"),
        ("a,b\n1,x\n", "b", r":2: column 'b' is 'x'; a whole number"),
        ("a,b\n1\n", "b", r":2: 1 columns where the header has 2"),
        ("a,b\n1,0\n", "b", "at least one length"),
        ("", "b", "no column 'b'; has nothing"),
    ],
)
def test_columns_that_cannot_be(tmp_path, content, column, said):
    path = tmp_path / "seen.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        parse(f"{path}:{column}")


def test_files_that_are_not_there(tmp_path):
    (tmp_path / "lengths.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"no such file; nearest: lengths\.csv"):
        parse(f"{tmp_path}/length.csv:a")
    with pytest.raises(DataError, match="no such file"):
        parse(f"{tmp_path}/none/length.csv:a")


@pytest.mark.parametrize(
    ("values", "weights"),
    [([], None), ([0, 1], None), ([1, 2], [1.0]), ([1, 2], [0.0, 0.0]), ([1, 2], [1.0, -1.0]),
     ([1, 2], [1.0, math.nan])],
)  # fmt: skip
def test_empirical_laws_that_cannot_be(values, weights):
    with pytest.raises(UsageError):
        Empirical(np.array(values, dtype=np.int64), None if weights is None else np.array(weights))
