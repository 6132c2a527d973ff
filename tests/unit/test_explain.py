"""The chain behind a number is the computation itself: same values, same formulas, same facts."""

import math
import re
from collections.abc import Iterator

import pytest
import sympy

import hwdb
from perfmodel.core.errors import MissingDataError, UsageError
from perfmodel.core.formula import FORMULAS
from perfmodel.core.symbols import SYMBOLS
from perfmodel.scenario.estimate import estimate
from perfmodel.scenario.explain import CHAINS, OPERATOR_SUM, STEP_SUM, Node, explain, shown

SUMS = (STEP_SUM, OPERATOR_SUM)

QUESTIONS = {
    "dense": {"model": "meta-llama/Llama-3.1-70B", "gpu": "h100-sxm", "tensor_parallel_size": 4,
              "isl": 4000, "osl": 1000, "max_concurrency": 64},
    "moe": {"model": "deepseek-ai/DeepSeek-V3", "gpu": "h200-sxm", "tensor_parallel_size": 8,
            "expert_parallel_size": 8, "max_concurrency": 256},
    "stages": {"model": "meta-llama/Llama-3.1-8B", "gpu": "l4", "pipeline_parallel_size": 2,
               "data_parallel_size": 2, "max_concurrency": 16},
    "open": {"model": "Qwen/Qwen3-8B", "gpu": "a100-sxm-80gb", "request_rate": 1.0},
    "hybrid": {"model": "nvidia/Nemotron-H-8B-Base-8K", "gpu": "h100-sxm", "max_concurrency": 8},
}  # fmt: skip
EVERY = pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)


def trees(question) -> Iterator[Node]:
    """Every chain that can be shown for a question."""
    for metric in CHAINS:
        told = explain(metric, **question)
        assert told.chain is not None
        yield told.chain
    yield from told.operators.values()


def nodes(question) -> Iterator[Node]:
    for tree in trees(question):
        yield from (node for _, node, first in tree.walk() if first)


@EVERY
def test_the_root_is_the_estimate(question):
    answer = estimate(**question)
    results = answer.results()
    expected = {
        "tpot": results["tpot_ms"] / 1e3,
        "ttft": results["ttft_ms"] / 1e3,
        "e2el": results["e2el_s"],
        "request_throughput": results["request_throughput"],
        "memory": float(answer.memory.pool),
        "power": float(answer.power),
        "energy_per_token": results["energy_per_token_j"],
        "cost_per_mtok": results["cost_per_mtok"] / 1e6,
    }
    assert set(expected) == set(CHAINS)
    for metric, value in expected.items():
        chain = explain(metric, **question).chain
        assert chain is not None
        assert chain.value == pytest.approx(value, rel=1e-12), metric
        assert SYMBOLS[chain.symbol].unit == SYMBOLS[CHAINS[metric][2]].unit
        assert chain.formula in FORMULAS, metric


@EVERY
def test_a_computed_node_shows_formula_numbers_and_source(question):
    for node in nodes(question):
        if node.formula:
            if node.formula in SUMS:
                continue
            made = FORMULAS[node.formula]
            assert node.expression == made.words
            assert node.source == made.source
            assert node.latex.startswith(SYMBOLS[node.symbol].latex)
            assert node.children
            for name, child in zip(made.parameters, node.children, strict=True):
                named = re.search(rf"\b{name}\b", made.words)
                assert not named or shown(name, child.value) in node.substituted
        else:
            assert not node.expression
            assert not node.children


@EVERY
def test_the_children_put_into_the_formula_give_the_node(question):
    """The oracle is SymPy: the formula's own expression, evaluated on the values shown."""
    checked = set()
    for node in nodes(question):
        if not node.formula or node.formula in SUMS:
            continue
        made = FORMULAS[node.formula]
        names = [sympy.Symbol(row.latex, positive=True) for row in made.symbols()]
        assert len(names) == len(node.children), node.formula
        values = dict(zip(names, (child.value for child in node.children), strict=True))
        expression = sympy.sympify(made.expression())
        # of a small difference of large terms no more can be asked than the terms carry
        terms = [abs(float(term.subs(values))) for term in sympy.Add.make_args(expression)]
        scale = max([abs(node.value), *(term for term in terms if math.isfinite(term))])
        found = float(expression.subs(values))
        assert found == pytest.approx(node.value, rel=1e-9, abs=1e-9 * scale), node.formula
        checked.add(node.formula)
    assert {"mean_tpot", "roofline_time", "cost_per_token"} <= checked


@EVERY
def test_a_step_is_the_sum_of_its_operators(question):
    """Operators' times, each count times one execution, and the engine's overhead."""
    steps = [node for node in nodes(question) if node.formula == STEP_SUM]
    assert {node.symbol for node in steps} == {"decode_time", "mixed_time"}
    for node in steps:
        *operators, overhead = node.children
        assert node.value == pytest.approx(
            sum(child.value for child in operators) + overhead.value, rel=1e-12
        )
        for child in operators:
            assert child.formula == OPERATOR_SUM
            assert child.label
            assert child.children[0].symbol == "kernel_time"


@EVERY
def test_leaves_that_are_facts_name_their_record(question):
    answer = estimate(**question)
    machine = answer.resolved.machine
    fabrics = [hwdb.fabric(wire.fabric) for wire in (machine.node.scale_up, machine.node.scale_out)
               if wire]  # fmt: skip
    used = (machine.gpu, machine.node, machine.calibration, *fabrics)
    records = {record.id: dict(hwdb.cited(record)) for record in used}
    found = set()
    for node in nodes(question):
        if not node.formula and node.source:
            name, _, rest = node.source.partition(": ")
            path = rest.split(" (")[0]
            assert node.value == records[name][path].si
            found.add((name, path))
    assert (machine.gpu.id, "memory.bandwidth") in found
    assert {(machine.gpu.id, "memory.capacity"), (machine.gpu.id, "memory.usable")} & found
    assert (machine.calibration.id, "kernel_overhead") in found


@EVERY
def test_operators_are_those_of_the_decode_step_slowest_first(question):
    told = explain("tpot", **question)
    steady = told.answer.steady
    assert steady is not None
    slowest: dict[str, float] = {}
    for item in sorted(steady.decode.operators, key=lambda item: -float(item.total)):
        slowest.setdefault(item.operator.name, float(item.time))
    assert {name: node.value for name, node in told.operators.items()} == slowest
    assert list(told.operators) == list(slowest)
    assert all(node.symbol == "kernel_time" or node.symbol == "collective_time"
               for node in told.operators.values())  # fmt: skip


def test_a_modified_value_is_marked():
    told = explain("tpot", **QUESTIONS["dense"], set={"gpu.memory.bandwidth": "6 TB/s"})
    sources = {node.source for tree in told.operators.values() for _, node, _ in tree.walk()}
    assert "h100-sxm: memory.bandwidth (modified; set by the user)" in sources


def test_walk_shows_a_shared_node_once():
    told = explain("e2el", **QUESTIONS["dense"])
    assert told.chain is not None
    seen: dict[int, int] = {}
    for _, node, first in told.chain.walk():
        assert first == (id(node) not in seen)
        seen[id(node)] = seen.get(id(node), 0) + 1
    assert max(seen.values()) > 1  # TPOT enters E2E directly and through TTFT


def test_infeasible_questions_have_no_chain_but_an_answer():
    told = explain("tpot", **QUESTIONS["dense"] | {"tensor_parallel_size": 3})
    assert told.chain is None
    assert told.operators == {}
    assert not told.answer.verdict.feasible


def test_without_a_number_there_is_no_formula():
    told = explain("tpot", model="google-bert/bert-base-uncased", gpu="l4", isl=128)
    assert told.chain is not None
    assert (told.chain.symbol, told.chain.formula) == ("tpot", "")
    assert told.chain.to_dict()["value"] is None


def test_units_in_the_name_may_be_given():
    assert explain("tpot_ms", **QUESTIONS["open"]).metric == "tpot"


def test_unknown_metrics_and_fields_are_refused():
    with pytest.raises(UsageError, match="called 'tpott'; nearest: tpot"):
        explain("tpott", **QUESTIONS["open"])
    with pytest.raises(UsageError, match="no 'gpus'"):
        explain("tpot", gpus="h100-sxm", **QUESTIONS["open"])


def test_an_unknown_fact_is_missing_data(tmp_path, monkeypatch):
    folder = tmp_path / "gpus" / "acme"
    folder.mkdir(parents=True)
    text = 'base = "h100-sxm"\nname = "Toy"\n[power]\ntdp = { unknown = "unpublished" }'
    (folder / "toy.toml").write_text(text)
    monkeypatch.setenv("PERFMODEL_HWDB", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"--set gpu\.power\.tdp="):
        explain("power", model="Qwen/Qwen3-8B", gpu="toy")


@pytest.mark.parametrize(
    ("symbol", "value", "text"),
    [
        ("tpot", 0.0123, "12.3 ms"),
        ("bandwidth", 3.35e12, "3.35 TB/s"),
        ("peak", 989.4e12, "989.4 TFLOP/s"),
        ("flops", 2e12, "2 TFLOP"),
        ("request_rate", 1.5, "1.5 /s"),
        ("isl", 4000.0, "4000"),
        ("intensity", 295.3, "295.3 FLOP/B"),
        ("power", 700.0, "700 W"),
    ],
)
def test_values_are_shown_with_their_unit(symbol, value, text):
    assert shown(symbol, value) == text
