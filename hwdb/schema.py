"""The file edge: pydantic reads the records' own annotations, strictly, and reports every error.

`read` turns one parsed TOML table into a record (cited values: `hwdb.citation`); `json_schema`
gives editors the same rules (committed under ``hwdb/schema/``, checked by a test).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hwdb.records import KINDS


class HwdbError(ValueError):
    """A hardware file that breaks the schema; one line per problem."""


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
