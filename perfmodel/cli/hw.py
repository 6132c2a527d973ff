"""``perfmodel hw``: list, show and check the hardware database."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

import hwdb
from hwdb.load import NotFound
from hwdb.records import KINDS
from hwdb.units import show as show_quantity
from perfmodel.cli import render
from perfmodel.core.errors import DataError, near
from perfmodel.scenario.envelope import cited_row

app = App(name="hw", help="Hardware database: accelerators, CPUs, machines, wires, prices.")
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]


@app.command
def ls(kind: str = "gpus", *, json: Json = False) -> None:
    """List the records of a kind: gpus, cpus, nodes, fabrics, storage, prices or calibrations.

    Parameters
    ----------
    kind : str
        Folder of the database.
    json : bool
        Print JSON.
    """
    if kind not in KINDS:
        raise DataError(
            f"no kind {kind!r} of hardware{near(kind, KINDS)}; kinds: {', '.join(KINDS)}"
        )
    records = [_loaded(kind, name) for name in _ids(kind)]
    rows = [{"id": record.id, "name": record.name, **_summary(record)} for record in records]
    if json:
        render.emit(render.to_json(rows), None)
    else:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        render.emit(
            render.table("", columns, [[row.get(c) for c in columns] for row in rows]), None
        )


@app.command
def show(name: str, *, kind: str | None = None, json: Json = False) -> None:
    """Show every value of a record with its kind and source.

    Parameters
    ----------
    name : str
        Id or alias.
    kind : str
        Folder, if the id exists in several.
    json : bool
        Print JSON.
    """
    record = _find(name, kind)
    rows = [{"what": path, **cited_row(record, value)} for path, value in hwdb.cited(record)]
    if json:
        about = {"id": record.id, "name": record.name, "note": record.note, "values": rows}
        render.emit(render.to_json(about), None)
        return
    title = f"{record.name} ({record.id})" + (f": {record.note}" if record.note else "")
    columns = ("what", "value", "kind", "source", "at", "note")
    render.emit(render.table(title, columns, [[row[c] for c in columns] for row in rows]), None)


@app.command
def check(*, json: Json = False) -> None:
    """Lint physics and citations of the whole database; exit 4 on an error.

    Parameters
    ----------
    json : bool
        Print JSON.
    """
    from hwdb.check import check as lint

    report = lint()
    if json:
        import dataclasses

        render.emit(render.to_json(dataclasses.asdict(report)), None)
    else:
        render.emit(str(report), None)
    if report.errors:
        raise SystemExit(4)


def _ids(kind: str) -> list[str]:
    try:
        return hwdb.ls(kind)
    except hwdb.HwdbError as error:
        raise DataError(str(error).splitlines()[0]) from None


def _loaded(kind: str, name: str) -> Any:
    try:
        return hwdb.get(kind, name)
    except (NotFound, hwdb.HwdbError) as error:
        raise DataError(str(error).splitlines()[0]) from None


def _find(name: str, kind: str | None) -> Any:
    """Record by name; without a kind the first folder that has it."""
    if kind is not None:
        if kind not in KINDS:
            raise DataError(f"no kind {kind!r} of hardware{near(kind, KINDS)}")
        return _loaded(kind, name)
    for folder in KINDS:
        try:
            return hwdb.get(folder, name)
        except NotFound:
            continue
        except hwdb.HwdbError as error:
            raise DataError(str(error).splitlines()[0]) from None
    names = [known for folder in KINDS for known in hwdb.ls(folder)]
    raise DataError(f"no hardware named {name!r}{near(name, names)} (perfmodel hw ls)")


def _summary(record: Any) -> dict[str, Any]:
    """A few columns that tell records of a kind apart."""
    chosen = {
        "gpus": ("memory.capacity", "memory.bandwidth", "peak.bf16", "peak.fp8", "power.tdp"),
        "cpus": ("cores", "memory.bandwidth", "power.tdp"),
        "nodes": ("gpus", "host_memory.capacity"),
        "fabrics": ("bandwidth", "latency"),
        "storage": ("capacity", "read_bandwidth"),
    }  # fmt: skip
    folder = next(kind for kind, cls in KINDS.items() if isinstance(record, cls))
    values = dict(hwdb.cited(record))
    paths = chosen.get(folder, ())
    summary: dict[str, Any] = {
        path: show_quantity(float(values[path].si), values[path].dimension)
        if path in values and values[path].known
        else ""
        for path in paths
    }
    if folder == "prices":
        summary["offers"] = len(record.offers)
    return summary
