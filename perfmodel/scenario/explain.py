"""`explain`: the chain of formulas, numbers and sources behind one result.

The answer is computed once more under `recording`; because formulas hand each other the very
objects they return, a recorded argument leads back to the call (or the datasheet value) it came
from. The result is a tree: formula, LaTeX, arguments with units, each argument explained in turn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hwdb
from hwdb.citation import Cited, Numeric, UnknownValue
from hwdb.units import show
from perfmodel.core.errors import MissingDataError, UsageError, near
from perfmodel.core.formula import Call, recording
from perfmodel.core.symbols import SYMBOLS
from perfmodel.scenario.estimate import Estimate, estimate
from perfmodel.scenario.scenario import Scenario
from perfmodel.step.step import Step
from perfmodel.time.operator_time import OperatorTime

# Metric -> attribute of the answer whose chain is shown, and its row of the nomenclature.
CHAINS = {
    "tpot": ("steady", "tpot", "tpot"),
    "ttft": ("steady", "ttft", "ttft"),
    "e2el": ("steady", "e2el", "e2el"),
    "request_throughput": ("steady", "request_rate", "request_rate"),
    "memory": ("memory", "pool", "kv_pool"),
    "power": ("", "power", "power"),
    "energy_per_token": ("", "energy_per_token", "energy_per_token"),
    "cost_per_mtok": ("", "cost_per_token", "cost_per_token"),
}


# Pseudo-formulas of the two sums that join operators to a step.
STEP_SUM, OPERATOR_SUM = "sum_of_operators", "count_times_time"


@dataclass(slots=True)
class Node:
    """One quantity of a chain.

    Attributes
    ----------
    symbol : str
        Row of the nomenclature.
    value : float
        SI value.
    label : str
        Which of several quantities of that symbol (an operator's name).
    formula : str
        Name of the formula it was computed with; empty for inputs and sums.
    expression, substituted, latex : str
        Formula in words, with the numbers put in, and in LaTeX.
    source : str
        Paper or datasheet.
    children : list of Node
        Arguments.
    """

    symbol: str
    value: float
    label: str = ""
    formula: str = ""
    expression: str = ""
    substituted: str = ""
    latex: str = ""
    source: str = ""
    children: list[Node] = field(default_factory=lambda: [])

    @property
    def text(self) -> str:
        """Value with unit."""
        return shown(self.symbol, self.value)

    def walk(self) -> Iterator[tuple[int, Node, bool]]:
        """(depth, node, first time) in reading order, operators' own chains left out.

        A shared node's children appear once.
        """
        yield from self._walk(0, set())

    def _walk(self, depth: int, seen: set[int]) -> Iterator[tuple[int, Node, bool]]:
        first = id(self) not in seen
        seen.add(id(self))
        yield depth, self, first
        for child in self.children if first and self.formula != STEP_SUM else ():
            yield from child._walk(depth + 1, seen)

    def to_dict(self, seen: set[int] | None = None) -> dict[str, Any]:
        """Plain data; a quantity that occurs again is repeated without its own chain."""
        seen = set() if seen is None else seen
        row = SYMBOLS[self.symbol]
        plain: dict[str, Any] = {
            "symbol": self.symbol, "label": self.label, "meaning": row.meaning, "unit": row.unit,
            "value": self.value if math.isfinite(self.value) else None,
            "formula": self.formula, "expression": self.expression, "latex": self.latex,
            "source": self.source,
        }  # fmt: skip
        if id(self) not in seen:
            seen.add(id(self))
            plain["from"] = [child.to_dict(seen) for child in self.children]
        return plain


@dataclass(frozen=True, slots=True)
class Explanation:
    """A metric's chain, the answer it belongs to, and the chains of single operators."""

    metric: str
    answer: Estimate
    chain: Node | None
    operators: dict[str, Node]


def explain(
    metric: str = "tpot", scenario: Scenario | None = None, /, **question: Any
) -> Explanation:
    """Show how a result comes about.

    Parameters
    ----------
    metric : str
        One of `CHAINS`.
    scenario : Scenario, optional
        The question; or give its fields as keywords.

    Raises
    ------
    perfmodel.core.errors.UsageError
        Unknown metric, or a question that `estimate` refuses.
    perfmodel.core.errors.MissingDataError
        The database lacks a fact that the metric needs.

    Examples
    --------
    >>> told = explain("tpot", model="meta-llama/Llama-3.1-8B", gpu="h100-sxm")
    >>> told.chain.formula
    'mean_tpot'
    """
    name = metric.removesuffix("_ms").removesuffix("_j")
    if name not in CHAINS:
        raise UsageError(f"nothing to explain called {metric!r}{near(name, CHAINS)}; "
                         f"choose from {', '.join(CHAINS)}")  # fmt: skip
    with recording() as trace:
        answer = estimate(scenario, **question)
        owner, attribute, symbol = CHAINS[name]
        holder = getattr(answer, owner) if owner else answer
        try:
            target = None if holder is None or answer.steady is None else getattr(holder, attribute)
        except UnknownValue as error:
            raise MissingDataError(str(error)) from None
    origin = _Origins(trace.calls, answer)
    chain = None if target is None else origin.node(symbol, target)
    return Explanation(name, answer, chain, _operator_chains(origin, answer))


def _operator_chains(origin: _Origins, answer: Estimate) -> dict[str, Node]:
    """Chain of every operator of the decode step, slowest first."""
    if answer.steady is None:
        return {}
    timed: list[OperatorTime] = list(answer.steady.decode.operators)
    timed.sort(key=lambda item: -float(item.total))
    chains: dict[str, Node] = {}
    for item in timed:  # layers of several kinds have operators of one name: the slowest speaks
        chains.setdefault(item.operator.name, origin.node("kernel_time", item.time))
    return chains


class _Origins:
    """Where a number came from, by object identity: a recorded call or a cited value."""

    def __init__(self, calls: list[Call], answer: Estimate) -> None:
        self.calls = {id(call.result): call for call in calls}
        self.made: dict[int, Node] = {}
        machine = answer.resolved.machine
        self.steps = {} if answer.steady is None else {
            id(step.time): step for step in (answer.steady.decode, answer.steady.mixed)
        }  # fmt: skip
        self.facts: dict[int, tuple[Any, str, Cited]] = {}
        fabrics = [wire.fabric for wire in (machine.node.scale_up, machine.node.scale_out) if wire]
        wires = [hwdb.fabric(name) for name in fabrics]
        for record in (machine.gpu, machine.node, machine.calibration, *wires):
            for path, value in hwdb.cited(record):
                self.facts[id(value.si)] = (record, path, value)

    def node(self, symbol: str, value: Numeric, depth: int = 6) -> Node:
        """Node of one value, its arguments explained down to inputs and facts.

        Equal objects share one node: the chain is a graph, drawn once. ``depth`` ends the unrolling
        of the fixed point between running batch and step time.
        """
        if id(value) in self.steps:
            return self._step(symbol, value, self.steps[id(value)])
        call = self.calls.get(id(value))
        if call is None or depth == 0:
            return Node(symbol, float(value), source=self._fact(value))
        if id(value) in self.made:
            return self.made[id(value)]
        made = Node(
            call.formula.result,
            float(value),
            formula=call.formula.name,
            expression=call.formula.words,
            substituted=_substituted(call),
            latex=call.formula.latex,
            source=call.formula.source,
        )
        self.made[id(value)] = made
        for name, argument in call.arguments.items():
            made.children.append(self.node(name, argument, depth - 1))
        return made

    def _step(self, symbol: str, value: Numeric, step: Step) -> Node:
        """A step's time: its operators, each with its chain, and the engine's overhead."""
        if id(value) in self.made:
            return self.made[id(value)]
        made = Node(symbol, float(value), formula=STEP_SUM,
                    expression="sum(count*kernel_time) + overhead",
                    substituted=f"{len(step.operators)} operators + {_ms(step.overhead)}",
                    source="operators of a step follow each other")  # fmt: skip
        self.made[id(value)] = made
        for item in step.operators:
            one = self.node("kernel_time", item.time)
            times = f"{float(item.operator.count):g}*{one.text}"
            total = Node("busy_time", float(item.total), item.operator.name, OPERATOR_SUM,
                         "count*kernel_time", times, children=[one])  # fmt: skip
            made.children.append(total)
        made.children.append(self.node("overhead", step.overhead))
        return made

    def _fact(self, value: Numeric) -> str:
        found = self.facts.get(id(value))
        if found is None:
            return ""
        record, path, cited = found
        source = record.sources.get(cited.source)
        title = source.title if source else "set by the user"
        return f"{record.id}: {path} ({cited.kind}; {title})"


def _ms(value: Numeric) -> str:
    return shown("step_time", float(value))


def _substituted(call: Call) -> str:
    """The formula with this call's numbers in place of its names."""

    def number(match: re.Match[str]) -> str:
        name = match.group()
        return shown(name, float(call.arguments[name])) if name in call.arguments else name

    return re.sub(r"[A-Za-z_]\w*", number, call.formula.words)


def shown(symbol: str, value: float) -> str:
    """Value of a quantity with its unit, three to four significant digits.

    >>> shown("tpot", 0.0123)
    '12.3 ms'
    """
    unit = SYMBOLS[symbol].unit
    if unit in ("1", "1/s"):
        return f"{value:.6g}" + ("" if unit == "1" else " /s")
    if unit in ("s", "FLOP/s", "W", "J", "USD", "USD/s"):
        return show(value, unit)
    if unit in ("B", "B/s"):
        return show(value, unit.replace("B", "bytes"))
    if unit == "FLOP":
        return show(value, "FLOP/s").removesuffix("/s")
    return f"{value:.4g} {unit}"
