"""What every formula promises: numbers, arrays, LaTeX and units say the same; it is explained.

Inputs are drawn log-uniformly from the ranges of the nomenclature's rows. SymPy's ``lambdify`` of
the formula's own expression is the oracle for the numbers, Pint for the dimensions.
"""

import importlib
import math
import pkgutil
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pint
import pytest
import sympy

import perfmodel
from perfmodel.core.formula import FORMULAS, Formula, formula, recording
from perfmodel.core.symbols import SYMBOLS, Symbol
from perfmodel.scenario.scenario import SYMBOL_OF

for _module in pkgutil.walk_packages(perfmodel.__path__, "perfmodel."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)

EVERY = pytest.mark.parametrize("name", sorted(FORMULAS))
POINTS = 64
Values = dict[str, np.ndarray]


def _at_most(smaller: str, larger: str) -> Callable[[Values], Values]:
    return lambda values: values | {smaller: np.minimum(values[smaller], values[larger])}


# Relations between arguments that make a set of values legal.
RELATIONS: dict[str, Callable[[Values], Values]] = {
    # a router that sends every token to every expert is no router
    "distinct_experts": lambda v: v | {"top_k": np.minimum(v["top_k"], v["experts"] - 1)},
    "admission_wait": _at_most("users", "concurrency"),
    "gpu_power": _at_most("idle_power", "tdp"),
    "mean_tpot": _at_most("decode_time", "mixed_time"),
    "prefill_latency": _at_most("decode_time", "mixed_time"),
    "prefill_slot": _at_most("decode_time", "mixed_time"),
    "lane_chunks": _at_most("decode_time", "mixed_time"),
    "arithmetic_intensity": lambda v: v | {"traffic": v["traffic"] + 1},
    "closed_rate": lambda v: v | {"residence": v["residence"] + 1e-9},
}

# May be negative by design: what is left of memory, where the fixed parts alone exceed it.
SIGNED = {"cache_pool"}
# May be infinite by design: an open queue at saturation.
UNBOUNDED = {"open_wait"}
# Lengths may be given as means, but a floor or a ceiling asks for whole ones.
FRACTIONAL = {"imbalance", "moe_tp", "decode_steps"}


# Differences of large numbers: equal up to this share of the largest term, not of the result.
CANCELLING: dict[str, Callable[[Values], np.ndarray]] = {
    "cache_pool": lambda v: v["capacity"] + v["weights"] + v["activations"] + v["reserve"],
    "closed_residence": lambda v: (
        v["prefill_time"] + v["prefill_slot"] * v["users"] + v["decode_steps"] * v["tpot"]
    ),
    # 1 - (1 - k/E)^T with few tokens and many experts
    "distinct_experts": lambda v: v["experts"],
    # its first term takes whole chunks away from each other
    "chunk_pairs": lambda v: (v["past"] + v["new"]) * v["window"],
    # near saturation 1 / (1 - load) magnifies the last bit of the load
    "open_wait": lambda v: (
        v["prefill_slot"] / np.maximum(1 - v["request_rate"] * v["prefill_slot"], 1e-100) ** 2
    ),
}

# Names that share a letter because the literature does; they never meet in one formula.
SHARED_LATEX = {
    "N": {"cols", "users"},  # width of a matrix; customers of a queueing network
    "S": {"keys", "prefill_time"},  # sequence length; service time
    "u": {"units", "utilisation"},
    "M_x": {"activations", "activation_peak"},  # one quantity as an input and as a result
}


def draw(row: Symbol, rng: np.random.Generator) -> np.ndarray:
    """Log-uniform values of a row's range, no wider than 15 decades; zeros where legal."""
    count = row.unit == "1" and row.high > 1
    smallest = 1.0 if count else max(row.high, 1.0) * 1e-12 if row.unit == "1" else 1e-9
    low = row.low or min(smallest, row.high)
    high = min(row.high, 1e15)
    values = np.exp(rng.uniform(math.log(low), math.log(high), POINTS))
    if count and row.name not in FRACTIONAL:
        values = np.maximum(np.round(values), math.ceil(low))
    if row.low == 0:
        values[rng.random(POINTS) < 0.1] = 0.0
    return np.clip(values, row.low, row.high)


def inputs(made: Formula[Any, Any]) -> Values:
    """Legal arguments: one array per parameter, the same on every run."""
    rng = np.random.default_rng(sum(map(ord, made.name)))
    values = {row.name: draw(row, rng) for row in made.symbols()}
    return RELATIONS.get(made.name, lambda same: same)(values)


@EVERY
def test_values_equal_the_lambdified_expression(name: str) -> None:
    made = FORMULAS[name]
    values = inputs(made)
    symbols = [sympy.Symbol(row.latex, positive=True) for row in made.symbols()]
    assert len(set(symbols)) == len(symbols), "two parameters share one letter"
    twin = sympy.lambdify(symbols, made.expression(), "numpy")
    with np.errstate(divide="ignore", invalid="ignore"):  # Piecewise computes both branches
        expected = np.broadcast_to(twin(*values.values()), (POINTS,)).astype(float)
        got = np.broadcast_to(np.asarray(made(**values), dtype=float), (POINTS,))
    finite = np.isfinite(expected)
    assert np.ptp(expected[finite]) > 0, "the drawn points do not tell anything"
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    slack = 1e-12 * (CANCELLING[name](values) if name in CANCELLING else np.abs(expected))[finite]
    bad = np.abs(got[finite] - expected[finite]) > slack
    assert not bad.any(), [(got[finite][i], expected[finite][i]) for i in np.flatnonzero(bad)[:3]]


@EVERY
def test_array_call_equals_scalar_calls(name: str) -> None:
    made = FORMULAS[name]
    values = inputs(made)
    got = np.broadcast_to(np.asarray(made(**values), dtype=float), (POINTS,))
    for point in range(POINTS):
        one = made(**{key: float(value[point]) for key, value in values.items()})
        assert np.ndim(one) == 0
        assert float(one) == got[point]


@EVERY
def test_values_are_finite_and_not_negative(name: str) -> None:
    got = np.asarray(FORMULAS[name](**inputs(FORMULAS[name])), dtype=float)
    assert not np.isnan(got).any()
    if name not in UNBOUNDED:
        assert np.isfinite(got).all()
    if name in SIGNED:
        assert (got < 0).any(), "no exception is needed any more"
    else:
        assert (got >= 0).all()


UNITS = pint.UnitRegistry(None)
for _line in (
    "second = [time] = s",
    "byte = [information] = B",
    "joule = [energy] = J",
    "watt = joule / second = W",
    "dollar = [money] = USD",
    "FLOP = []",
):
    UNITS.define(_line)
# Pint's NumPy support learns from units that exist; ``where`` and ``log1p`` need no others.


@EVERY
def test_dimension_follows_from_the_arguments(name: str) -> None:
    made = FORMULAS[name]
    values = inputs(made)
    quantities = {
        row.name: UNITS.Quantity(values[row.name][:4], "" if row.unit == "1" else row.unit)
        for row in made.symbols()
    }
    result = UNITS.Quantity(made(**quantities))
    unit = SYMBOLS[made.result].unit
    assert result.dimensionality == UNITS.Quantity(1, "" if unit == "1" else unit).dimensionality


@EVERY
def test_latex_is_one_equation(name: str) -> None:
    text = FORMULAS[name].latex
    left, _, right = text.partition(" = ")
    assert left == SYMBOLS[FORMULAS[name].result].latex
    assert right
    assert text.count("{") == text.count("}")
    for row in FORMULAS[name].symbols():
        assert sympy.latex(sympy.Symbol(row.latex)) in right, f"{row.name} does not appear"


@EVERY
def test_source_and_docstring(name: str) -> None:
    made = FORMULAS[name]
    assert made.source.strip()
    assert made.__doc__
    summary = made.__doc__.strip().splitlines()[0]
    assert len(summary) > 15
    unit = re.escape(SYMBOLS[made.result].unit)
    assert re.search(rf"\[{unit}( per \w+)?\]", made.__doc__), f"the result's unit is {unit}"


def test_every_row_of_the_nomenclature_is_used() -> None:
    used = {name for made in FORMULAS.values() for name in (*made.parameters, made.result)}
    assert set(SYMBOLS) == used | set(SYMBOL_OF.values())


def test_names_and_letters_are_unique() -> None:
    assert all(name == row.name for name, row in SYMBOLS.items())
    letters: dict[str, set[str]] = defaultdict(set)
    for row in SYMBOLS.values():
        letters[row.latex].add(row.name)
    assert {key: names for key, names in letters.items() if len(names) > 1} == SHARED_LATEX


@pytest.mark.parametrize("row", SYMBOLS.values(), ids=lambda row: row.name)
def test_rows_are_complete(row: Symbol) -> None:
    assert row.meaning
    assert row.latex
    assert row.low < row.high
    assert row.name.isidentifier()
    UNITS.Quantity(1, "" if row.unit == "1" else row.unit)


def test_a_formula_must_use_the_nomenclature() -> None:
    with pytest.raises(ValueError, match="not in the nomenclature: velocity"):

        @formula("flops", "nowhere")
        def _wrong(velocity: float) -> float:
            return velocity

    with pytest.raises(ValueError, match="two formulas are called gemm_flops"):

        @formula("flops", "nowhere")
        def gemm_flops(rows: float) -> float:
            return rows


def test_recording_keeps_calls_and_labels() -> None:
    from perfmodel.core.formula import label

    made = FORMULAS["gemm_flops"]
    with recording() as trace, label("layer"), label("up"):
        made(1.0, 2.0, cols=3.0)
    made(1.0, 2.0, 3.0)
    (call,) = trace.calls
    assert (call.path, call.result) == (("layer", "up"), 12.0)
    assert call.arguments == {"rows": 1.0, "inner": 2.0, "cols": 3.0}
