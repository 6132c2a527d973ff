"""Plain data to dataclasses, strictly: unknown, missing and mistyped keys are all named at once."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from perfmodel.core.errors import DataError


@functools.cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    cls.__pydantic_config__ = ConfigDict(extra="forbid")
    return TypeAdapter(cls)


def validated(cls: type[Any], table: dict[str, Any], where: str) -> Any:
    """Build a dataclass from plain data, reporting every unknown, missing or mistyped key."""
    try:
        return _adapter(cls).validate_python(table)
    except ValidationError as error:
        rows = [
            f"{'.'.join(map(str, row['loc']))}: {row['msg']}"
            for row in error.errors(include_url=False)
        ]
        raise DataError(f"{where}: {'; '.join(rows)}") from None
