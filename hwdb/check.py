"""The lint over the whole database (``perfmodel hw check``): run every rule, count what is there.

What is not here: the rules themselves (`hwdb.rules`) and what makes a single file legal
(`hwdb.schema`); a file that breaks the schema is reported as well, one error per problem.

>>> report = check()
>>> report.records["gpus"] == len(load.ls("gpus"))
True
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hwdb import load
from hwdb.records import KINDS
from hwdb.rules import RULES, Database, Finding
from hwdb.schema import HwdbError


@dataclass(frozen=True, slots=True)
class Report:
    """Findings (errors first), number of records by kind and of values by kind of value."""

    findings: tuple[Finding, ...]
    records: dict[str, int]
    values: dict[str, int]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that must be mended; the rest are warnings."""
        return tuple(row for row in self.findings if row.severity == "error")

    def __str__(self) -> str:
        """One line per finding, then three lines of counts."""
        counts = {"errors": len(self.errors), "warnings": len(self.findings) - len(self.errors)}
        rows = (("records", self.records), ("values", self.values), ("findings", counts))
        lines = [f"{head}: {', '.join(f'{n} {k}' for k, n in row.items())}" for head, row in rows]
        return "\n".join([*map(str, self.findings), *lines])


def check(database: Database | None = None) -> Report:
    """Run every rule over every record.

    A warning about a value that carries a note is settled: someone looked, and says why. (The note
    of a derived value is its arithmetic and settles nothing.)

    Parameters
    ----------
    database : mapping of kind to mapping of id to record, optional
        What to look at; by default everything `hwdb.load` finds, user folders included. A kind that
        is left out counts as empty.

    Returns
    -------
    Report
        A file that cannot be read is a finding (rule ``loads``), never an exception.
    """
    findings: list[Finding] = []
    if database is None:
        database, findings = _loaded()
    database = {kind: database.get(kind, {}) for kind in KINDS}
    values: Counter[str] = Counter()
    for kind, records in database.items():
        for name, record in records.items():
            cited = dict(load.cited(record))
            values.update(value.kind if value.known else "unknown" for value in cited.values())
            settled = {path for path, v in cited.items() if v.note and v.kind != "derived"}
            findings += [
                found._replace(where=f"{kind}/{name}: {found.where}", rule=rule.name)
                for rule in RULES
                if kind in rule.kinds
                for found in rule.find(record, database)
                if found.severity == "error" or found.where not in settled
            ]
    findings.sort(key=lambda row: row.severity)
    records = {kind: len(rows) for kind, rows in database.items()}
    return Report(tuple(findings), records, dict(values.most_common()))


def _loaded() -> tuple[Database, list[Finding]]:
    database: dict[str, dict[str, object]] = {kind: {} for kind in KINDS}
    findings: list[Finding] = []
    for kind in KINDS:
        try:
            names = load.ls(kind)
        except HwdbError as error:  # one id twice, or no such user folder
            findings.append(Finding("error", f"{kind}: folder", str(error), "loads"))
            continue
        for name in names:
            try:
                database[kind][name] = load.get(kind, name)
            except HwdbError as error:
                where = f"{kind}/{name}: file"
                for line in str(error).splitlines():
                    findings.append(Finding("error", where, line, "loads"))
    return database, findings
