"""Rules about where values and records come from and what they name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import reduce
from typing import Any, Final

from hwdb import load
from hwdb.records import Cpu, Gpu, Prices
from hwdb.rules.base import Database, Finding, date_of, rule, siblings


@rule()
def sources_used(record: Any, database: Database) -> Iterator[Finding]:
    """A source nobody cites is a leftover, or its fact was forgotten."""
    kin = siblings(record, database)
    for key, source in record.sources.items():
        # A variant inherits its base's sources and need not cite all of them.
        users = [row for row in kin if row.sources.get(key) == source]
        facts = [value for row in users for _, value in load.cited(row)]
        notes = [row.note for row in (*users, *facts)]
        cited = any(key in (value.source, *value.checked) for value in facts)
        if not cited and not any(f"'{key}'" in note for note in notes):
            yield Finding("error", f"sources.{key}", f"no value cites it, no note names '{key}'")


@rule()
def sources_found(record: Any, database: Database) -> Iterator[Finding]:
    """A source must lead a reader to the page, and say when it was read."""
    for key, source in record.sources.items():
        is_note = source.kind == "note" and not source.url
        if not is_note and not re.fullmatch(r"https?://[\w-]+(\.[\w-]+)+([/?#]\S*)?", source.url):
            yield Finding("error", f"sources.{key}.url", f"{source.url!r} is no http(s) address")
        if date_of(source.accessed) is None:
            yield Finding("error", f"sources.{key}.accessed", f"{source.accessed!r}: YYYY-MM-DD")


@rule()
def provenance(record: Any, database: Database) -> Iterator[Finding]:
    """No figure is passed off as read where it was not: unopened, or not the vendor's own page."""
    for path, value in load.cited(record):
        source = record.sources.get(value.source)
        barred = {"note", "table", "code"} if value.kind == "datasheet" else {"note"}
        if source and source.kind in barred and value.kind not in ("recalled", "estimated"):
            yield Finding("error", path, f"{value.kind}, but {value.source!r} is a {source.kind}")
        pages = [record.sources[key] for key in value.checked]
        if any(page.kind == "note" for page in pages) or len({page.url for page in pages}) == 1:
            yield Finding("error", path, "'checked' needs two different pages that were opened")


_REFERENCES: Final = (  # field, kind of record that its id names
    ("node", "nodes"),
    ("gpu", "gpus"),
    ("cpu", "cpus"),
    ("storage", "storage"),
    ("scale_up.fabric", "fabrics"),
    ("scale_out.fabric", "fabrics"),
    ("host.fabric", "fabrics"),
)


@rule()
def references(record: Any, database: Database) -> Iterator[Finding]:
    """An id that leads nowhere breaks every configuration built on the record."""
    own_id = (("id", "gpus"),) if isinstance(record, Prices) else ()
    for path, kind in (*own_id, *_REFERENCES):
        name = reduce(lambda row, step: getattr(row, step, None), path.split("."), record)
        if isinstance(name, str) and name not in database[kind]:
            near = difflib.get_close_matches(name, database[kind], n=3, cutoff=0.4)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            yield Finding("error", path, f"no {name!r} among the {kind}{hint}")


@rule()
def aliases(record: Any, database: Database) -> Iterator[Finding]:
    """A name must lead to one record."""

    def names(row: Any) -> set[str]:
        return {name.lower().replace("_", "-") for name in (row.id, *row.aliases)}

    for other in siblings(record, database):
        if other is not record and (shared := names(record) & names(other)):
            yield Finding("error", "aliases", f"{other.id} answers to {min(shared)!r} too")


@rule("gpus", "cpus")
def released(record: Gpu | Cpu, database: Database) -> Iterator[Finding]:
    """Release months are compared as text."""
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", record.released):
        yield Finding("error", "released", f"{record.released!r}: write YYYY-MM")
