"""The file edge: pydantic reads the records' own annotations, strictly, and reports every error.

A cited value is written ``{ value = "3.35 TB/s", source = "ds", at = "p. 2" }`` or, where nobody
knows, ``{ unknown = "why" }``. `read` turns one parsed TOML table into a record; `json_schema`
gives editors the same rules (committed under ``hwdb/schema/``, checked by a test).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import core_schema

from hwdb import units
from hwdb.records import KINDS, Cited, Kind


class HwdbError(ValueError):
    """A hardware file that breaks the schema; one line per problem."""


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CitedEntry:
    """The file form of a `Cited` value."""

    value: Annotated[str, Field(description="number and unit, like '3.35 TB/s'")] = ""
    source: Annotated[str, Field(description="key of [sources.*]")] = ""
    at: Annotated[str, Field(description="where in the source")] = ""
    kind: Kind = "datasheet"
    note: str = ""
    low: Annotated[str, Field(description="lower bound of an estimate")] = ""
    high: Annotated[str, Field(description="upper bound of an estimate")] = ""
    checked: Annotated[
        tuple[str, ...], Field(description="two sources a recalled value was checked against")
    ] = ()
    unknown: Annotated[str, Field(description="why nobody knows; excludes value")] = ""

    def cited(self, dimension: str) -> Cited:
        """Check the entry and convert it to SI; raises ValueError with the reason."""
        if self.unknown:
            if self.value:
                raise ValueError("has both value and unknown")
            return Cited(float("nan"), dimension, unknown=self.unknown)
        if not self.value:
            raise ValueError('needs value = "number unit" or unknown = "why"')
        if self.kind == "modified":
            raise ValueError("kind 'modified' is set by --set, never written in a file")
        if not self.source:
            raise ValueError("needs a source")
        low = units.parse(self.low, dimension) if self.low else None
        high = units.parse(self.high, dimension) if self.high else None
        value = units.parse(self.value, dimension)
        if self.kind == "estimated" and (low is None or high is None or not low <= value <= high):
            raise ValueError("an estimate needs low and high around its value")
        if self.kind == "recalled" and len(self.checked) < 2:
            raise ValueError("a recalled value needs two sources in 'checked'")
        if self.kind in ("derived", "recalled") and not self.note:
            raise ValueError(f"a {self.kind} value needs a note saying how")
        return Cited(
            value, dimension, self.value, self.kind, self.source, self.at, self.note,
            low, high, self.checked,
        )  # fmt: skip


_ENTRY = TypeAdapter(CitedEntry)


def cited_schema(dimension: str) -> core_schema.CoreSchema:
    """Core schema of a `Cited` field of the given SI dimension."""

    def convert(entry: CitedEntry) -> Cited:
        return entry.cited(dimension)

    return core_schema.no_info_after_validator_function(convert, _ENTRY.core_schema)


@functools.cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    record = KINDS[kind]
    record.__pydantic_config__ = ConfigDict(extra="forbid")
    return TypeAdapter(record)


def read(kind: str, table: dict[str, Any], where: str) -> Any:
    """Validate one parsed TOML table.

    Parameters
    ----------
    kind : str
        Folder name, a key of `hwdb.records.KINDS`.
    table : dict
        The table, inheritance already resolved, with ``id`` filled in.
    where : str
        File name used in messages.

    Raises
    ------
    HwdbError
        With one line per problem found.
    """
    try:
        return _adapter(kind).validate_python(table)
    except ValidationError as error:
        lines = [
            f"{where}: {'.'.join(map(str, row['loc'])) or 'file'}: {_plain(row['msg'])}"
            for row in error.errors(include_url=False)
        ]
        raise HwdbError("\n".join(lines)) from None


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").replace(
        "Unexpected keyword argument", "unknown key"
    )


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema of one kind of file, for editors.

    ``id`` and ``vendor`` come from the path, and a file with ``base`` may leave any field out, so
    nothing is required but the parts of a source and of an offer.
    """
    schema = _adapter(kind).json_schema(mode="validation")
    for name in ("id", "vendor"):
        schema["properties"].pop(name, None)
    schema["properties"] |= {
        "$schema": {"type": "string"},
        "base": {"type": "string", "description": "id of the file this one varies"},
        "omit": {"type": "array", "items": {"type": "string"}, "description": "base keys to drop"},
    }
    schema["required"] = []
    for name, part in schema["$defs"].items():
        if name not in ("Source", "Offer"):  # a variant may override one leaf of any other table
            part.pop("required", None)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def write_schemas(folder: Path) -> None:
    """Write one ``<kind>.json`` per kind into a folder (``hwdb/schema`` holds the committed)."""
    for kind in KINDS:
        text = json.dumps(json_schema(kind), indent=2, sort_keys=True, ensure_ascii=False)
        (folder / f"{kind}.json").write_text(text + "\n", encoding="utf-8")
