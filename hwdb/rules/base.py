"""What a rule of the lint is, how it is registered, and what rules share.

A rule gets one record and the database (for references) and yields `Finding`s. *Errors* are
slips: a dangling id, a figure no part can have, a claim its source cannot carry. *Warnings* are
oddities that a real part may have, worth a second look. To add a rule, write a function here with
``@rule`` above it; `hwdb.check` runs them all.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from hwdb.citation import Cited
from hwdb.records import KINDS

Database = Mapping[str, Mapping[str, Any]]


class Finding(NamedTuple):
    """Something wrong: how bad, where (a rule gives the field), what, and which rule says so."""

    severity: Literal["error", "warning"]
    where: str
    message: str
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.message} [{self.rule}]"


Find = Callable[[Any, Database], Iterator[Finding]]


class Rule(NamedTuple):
    """A registered check: its name, one line why, the kinds it looks at, and the function."""

    name: str
    why: str
    kinds: tuple[str, ...]
    find: Find


RULES: Final[list[Rule]] = []


def rule(*kinds: str) -> Callable[[Find], Find]:
    """Register a check for kinds of record (by default all); its docstring is the rule's why."""

    def register(find: Any) -> Find:
        name, why = find.__name__.replace("_", "-"), (find.__doc__ or "").rstrip(".")
        RULES.append(Rule(name, why, kinds or tuple(KINDS), find))
        return find

    return register


def si_of(value: Cited | None) -> float | None:
    """SI number of a value, None where it is absent or unknown."""
    return float(value.si) if value is not None and value.known else None


def siblings(record: Any, database: Database) -> list[Any]:
    """All records of the same kind."""
    return [row for rows in database.values() for row in rows.values() if type(row) is type(record)]


def date_of(text: str) -> datetime.date | None:
    """Day that a written date begins with, None where it is no date."""
    try:
        date = datetime.date.fromisoformat(text)
    except ValueError:
        return None
    return date if date.isoformat() == text else None  # ISO has other spellings of a day
