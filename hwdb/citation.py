"""`Cited`: a number with its unit, kind and source, and the file form it is read from.

A file writes ``{ value = "3.35 TB/s", source = "ds", at = "p. 2" }`` or, where nobody knows,
``{ unknown = "why" }``; `Unit` on a field's annotation says which dimension the value must have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import core_schema

from hwdb import units

Numeric: TypeAlias = "float | NDArray[np.float64]"
Kind = Literal["datasheet", "reported", "measured", "derived", "estimated", "recalled", "modified"]


class UnknownValue(LookupError):
    """A fact the database does not have was needed; the message names it and how to supply it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Marks a field's SI dimension: ``Annotated[Cited, Unit("bytes/s")]``."""

    dimension: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic read the file form of a `Cited` (``hwdb.schema`` holds the rules)."""
        return cited_schema(self.dimension)


@dataclass(frozen=True, slots=True)
class Cited:
    """One physical fact: a number in SI, as it was written, of what kind, and where it was read.

    ``si`` is nan where the fact is unknown; read it through `value`, which refuses that.
    """

    si: Numeric
    dimension: str
    text: str = ""
    kind: Kind = "datasheet"
    source: str = ""
    at: str = ""
    note: str = ""
    low: float | None = None
    high: float | None = None
    checked: tuple[str, ...] = ()
    unknown: str = ""
    where: str = ""

    @property
    def value(self) -> Numeric:
        """The SI number; raises `UnknownValue` if the database does not have it."""
        if self.unknown:
            path = self.where.split(": ")[-1]
            raise UnknownValue(
                f"{self.where} is unknown ({self.unknown}); supply it with --set {path}=VALUE"
            )
        return self.si

    @property
    def known(self) -> bool:
        """Whether the database has the number."""
        return not self.unknown


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
