"""How the command line writes a law or a process: ``name(number, key=number)``."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable

from perfmodel.core.errors import UsageError, near


def spec(text: str) -> tuple[str, dict[str | int, float]]:
    """``name(1, key=2)`` as the name and its numbers, by place or by key.

    >>> spec("gamma(burstiness=0.5)")
    ('gamma', {'burstiness': 0.5})

    Raises
    ------
    UsageError
        Not of that form; an argument that is no number.
    """
    match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(?:\(([^()]*)\))?\s*", text)
    if match is None:
        raise UsageError(f"{text!r} is not of the form name(number, key=number)")
    given: dict[str | int, float] = {}
    for place, item in enumerate(match[2].split(",") if match[2] and match[2].strip() else ()):
        key, equals, value = item.rpartition("=")
        found = number(value)
        if found is None:
            raise UsageError(f"{text!r}: {value.strip()!r} is not a number")
        if equals and key.strip() in given:
            raise UsageError(f"{text!r}: {key.strip()} is given twice")
        given[key.strip() if equals else place] = found
    return match[1].lower(), given


def arguments(
    text: str, function: Callable[..., object], given: dict[str | int, float], skip: int = 0
) -> dict[str, float]:
    """Arguments of a `spec` as keywords of a function, whose first ``skip`` are not asked for.

    Raises
    ------
    UsageError
        An argument that the function does not have, is given twice, or is missing.
    """
    known = dict(list(inspect.signature(function).parameters.items())[skip:])
    placed = [name for name, item in known.items() if item.kind is not item.KEYWORD_ONLY]
    has = f"it has {', '.join(known) or 'no arguments'}"
    found: dict[str, float] = {}
    for key, value in given.items():
        if isinstance(key, int):
            if key >= len(placed):
                raise UsageError(f"{text!r}: {value:g} needs a name or is too many; {has}")
            key = placed[key]
        if key not in known:
            raise UsageError(f"{text!r}: no argument {key!r}{near(key, known)}; {has}")
        if key in found:
            raise UsageError(f"{text!r}: {key} is given twice")
        found[key] = value
    for name, item in known.items():
        if name not in found and item.default is item.empty:
            raise UsageError(f"{text!r}: {name} is missing; {has}")
    return found


def number(text: str) -> float | None:
    """A finite number, or None where the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
