"""``perfmodel explain``: the chain of formulas, numbers and sources behind a result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from perfmodel.cli import render
from perfmodel.cli.estimate import infeasible
from perfmodel.cli.options import OUTPUT, takes_scenario
from perfmodel.core.errors import UsageError, near
from perfmodel.core.symbols import SYMBOLS
from perfmodel.scenario import breakdown
from perfmodel.scenario.envelope import envelope, provenance
from perfmodel.scenario.explain import Explanation, Node, explain
from perfmodel.scenario.scenario import Scenario

DETAILS = ("time", "formula", "memory", "energy", "source")


@takes_scenario
def command(
    scenario: Scenario,
    metric: str = "tpot",
    *,
    detail: Annotated[str, Parameter(group=OUTPUT)] = "time,formula",
    operator: Annotated[str | None, Parameter(group=OUTPUT)] = None,
    json: Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)] = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), group=OUTPUT)] = None,
) -> None:
    """Show why a number is what it is.

    Parameters
    ----------
    metric : str
        tpot, ttft, e2el, request_throughput, memory, power, energy_per_token or cost_per_mtok.
    detail : str
        Sections, comma separated: time, formula, memory, energy, source.
    operator : str
        Show this operator's chain too (names: --detail time).
    json : bool
        Print everything as JSON.
    output : Path
        Write to a file.
    """
    sections = _sections(detail)
    form = render.pick_format(json, False, output)
    if form == "csv":
        raise UsageError(f"-o {output}: an explanation is no table; write .json or .txt")
    told = explain(metric, scenario)
    if operator is not None and operator not in told.operators:
        raise UsageError(f"no operator {operator!r} in this step{near(operator, told.operators)}")
    if form == "json":
        render.emit(render.to_json(_data(told)), output)
    else:
        text = [_SECTIONS[name](told, operator) for name in sections]
        render.emit("\n".join(text), output)
    verdict = told.answer.verdict
    if not verdict.feasible:
        infeasible(verdict.message, verdict.nearest)


def _sections(detail: str) -> list[str]:
    names = [name.strip() for name in detail.split(",") if name.strip()]
    for name in names:
        if name not in DETAILS:
            raise UsageError(
                f"--detail {name!r}{near(name, DETAILS)}; choose from {', '.join(DETAILS)}"
            )
    return names


def _data(told: Explanation) -> dict[str, Any]:
    return {
        **envelope(told.answer),
        "schema": "perfmodel/explain/1",
        "metric": told.metric,
        "chain": told.chain.to_dict() if told.chain else None,
        "operators": {name: node.to_dict() for name, node in told.operators.items()},
    }


def _time(told: Explanation, operator: str | None) -> str:
    steady = told.answer.steady
    if steady is None:
        return ""
    columns = ("operator", "count", "GFLOP", "MB", "FLOP/B", "bound by", "time us", "share %")
    drawn: list[str] = []
    for title, step in (("decode step", steady.decode), ("mixed step", steady.mixed)):
        rows = [
            (row["operator"], row["count"], row["gflop"], row["traffic_mb"] + row["message_mb"],
             row["intensity"], row["bound"], row["time_us"], 100 * row["share"])
            for row in breakdown.operator_rows(step)
        ]  # fmt: skip
        total = f"{title}: {render.number(float(step.time) * 1e3)} ms, of which engine overhead " \
            f"{render.number(float(step.overhead) * 1e3)} ms"  # fmt: skip
        drawn.append(render.table(total, columns, rows))
        if step is steady.mixed or steady.mixed is steady.decode:
            break
    return "\n".join(drawn)


def _formula(told: Explanation, operator: str | None) -> str:
    if told.chain is None:
        return ""
    lines = [f"{told.metric}: {SYMBOLS[told.chain.symbol].meaning}", *_chain(told.chain)]
    chosen = [operator] if operator else list(told.operators)[:1]
    for name in chosen:
        lines += ["", f"operator {name}, once", *_chain(told.operators[name])]
    return "\n".join(lines) + "\n"


def _chain(root: Node) -> list[str]:
    lines: list[str] = []
    for depth, node, first in root.walk():
        pad = "  " * (depth + 1)
        row = SYMBOLS[node.symbol]
        if not node.formula:
            origin = node.source or row.meaning
            lines.append(f"{pad}{node.symbol} = {node.text}    {origin}")
        elif not first:
            lines.append(f"{pad}{node.symbol} = {node.text}    (above)")
        else:
            lines.append(f"{pad}{node.symbol} = {node.expression}")
            lines.append(f"{pad}{' ' * len(node.symbol)} = {node.substituted}")
            lines.append(f"{pad}{' ' * len(node.symbol)} = {node.text}    [{node.source}]")
    return lines


def _memory(told: Explanation, operator: str | None) -> str:
    parts = breakdown.memory_gb(told.answer)
    rows = [(name.replace("_", " "), value) for name, value in parts.items()]
    return render.table("memory of the fullest GPU", ("part", "GB"), rows)


def _energy(told: Explanation, operator: str | None) -> str:
    if told.answer.steady is None:
        return ""
    results = told.answer.results()
    names = ("power_w", "energy_per_token_j", "mfu", "mbu")
    return render.table("power and energy", ("quantity", "value"), [(n, results[n]) for n in names])


def _source(told: Explanation, operator: str | None) -> str:
    shown = provenance(told.answer)
    rows = [
        (row["what"], row["value"], row["kind"], row["source"], row["at"])
        for row in shown["values"]
    ]
    drawn = render.table("values used", ("what", "value", "kind", "source", "where"), rows)
    return f"{drawn}model: {shown['model']}\nprice: {shown['price']}\n"


_SECTIONS = {
    "time": _time, "formula": _formula, "memory": _memory, "energy": _energy, "source": _source,
}  # fmt: skip
