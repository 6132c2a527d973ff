"""The closed unit table: text such as ``"3.35 TB/s"`` to SI floats and back.

Here is everything that turns a written quantity into a number. What is not here: any fact about
hardware (those are TOML files beside this one). The base units are byte, second, FLOP, watt, hertz,
US dollar; one table row per legal spelling, nothing is derived at run time, so an unlisted unit is
an error and never a guess. ``tests/unit/hwdb/test_units.py`` proves every row against Pint.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Final

UNITS: Final[dict[str, tuple[str, float]]] = {
    # spelling: (dimension, factor to SI)
    "B": ("bytes", 1.0),
    "kB": ("bytes", 1e3),
    "MB": ("bytes", 1e6),
    "GB": ("bytes", 1e9),
    "TB": ("bytes", 1e12),
    "PB": ("bytes", 1e15),
    "KiB": ("bytes", 2.0**10),
    "MiB": ("bytes", 2.0**20),
    "GiB": ("bytes", 2.0**30),
    "TiB": ("bytes", 2.0**40),
    "B/s": ("bytes/s", 1.0),
    "MB/s": ("bytes/s", 1e6),
    "GB/s": ("bytes/s", 1e9),
    "TB/s": ("bytes/s", 1e12),
    "GiB/s": ("bytes/s", 2.0**30),
    "Mbit/s": ("bytes/s", 1e6 / 8),
    "Gbit/s": ("bytes/s", 1e9 / 8),
    "Tbit/s": ("bytes/s", 1e12 / 8),
    "FLOP/s": ("FLOP/s", 1.0),
    "GFLOP/s": ("FLOP/s", 1e9),
    "TFLOP/s": ("FLOP/s", 1e12),
    "PFLOP/s": ("FLOP/s", 1e15),
    "TOP/s": ("FLOP/s", 1e12),  # one integer operation counts as one FLOP
    "POP/s": ("FLOP/s", 1e15),
    "Hz": ("Hz", 1.0),
    "MHz": ("Hz", 1e6),
    "GHz": ("Hz", 1e9),
    "s": ("s", 1.0),
    "ms": ("s", 1e-3),
    "us": ("s", 1e-6),
    "ns": ("s", 1e-9),
    "h": ("s", 3600.0),
    "W": ("W", 1.0),
    "kW": ("W", 1e3),
    "MW": ("W", 1e6),
    "J": ("J", 1.0),
    "kWh": ("J", 3.6e6),
    "pJ/B": ("J/bytes", 1e-12),
    "pJ/FLOP": ("J/FLOP", 1e-12),
    "USD": ("USD", 1.0),
    "USD/h": ("USD/s", 1.0 / 3600.0),
    "USD/kWh": ("USD/J", 1.0 / 3.6e6),
    "mm2": ("m2", 1e-6),
    "bit": ("bit", 1.0),
    "%": ("1", 1e-2),
    "": ("1", 1.0),
}

_NOT_SHOWN: Final = {"KiB", "MiB", "GiB", "TiB", "GiB/s", "Mbit/s", "Gbit/s", "Tbit/s"} | {
    "TOP/s",
    "POP/s",
    "h",
}

_QUANTITY = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*\Z")


class UnitError(ValueError):
    """A written quantity that cannot be read: no number, unknown unit, or wrong dimension."""


def parse(text: str, dimension: str | None = None) -> float:
    """Read a quantity such as ``"3.35 TB/s"`` and return it in SI.

    Parameters
    ----------
    text : str
        Number and unit, in one of the spellings of `UNITS`.
    dimension : str, optional
        Required dimension (``"bytes/s"``, ``"FLOP/s"``, ``"1"`` …); any if omitted.

    Returns
    -------
    float
        Value in the SI unit of its dimension.

    Raises
    ------
    UnitError
        No number, unknown unit (near spellings are named), wrong dimension, or not finite.

    Examples
    --------
    >>> parse("3.35 TB/s")
    3350000000000.0
    >>> parse("80 GiB") - parse("80 GB")
    5899345920.0
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise UnitError(f"{text!r} is not a quantity: write a number and a unit, like '3.35 TB/s'")
    number, unit = match.groups()
    if unit not in UNITS:
        near = difflib.get_close_matches(unit, UNITS, n=3, cutoff=0.3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UnitError(f"unknown unit {unit!r} in {text!r}{hint}")
    found, factor = UNITS[unit]
    if dimension is not None and found != dimension:
        legal = ", ".join(spelling for spelling, row in UNITS.items() if row[0] == dimension)
        raise UnitError(f"{text!r} has unit of {found}, needs {dimension} ({legal or 'no unit'})")
    value = float(number.replace("_", "")) * factor
    if not math.isfinite(value):
        raise UnitError(f"{text!r} is not a finite number")
    return value


def dimension(text: str) -> str:
    """Dimension of a written quantity.

    >>> dimension("700 W")
    'W'
    """
    parse(text)
    match = _QUANTITY.match(text)
    assert match is not None
    return UNITS[match.group(2)][0]


def show(value: float, dimension: str) -> str:
    """Write an SI value with three significant digits and the largest fitting unit.

    >>> show(3.35e12, "bytes/s")
    '3.35 TB/s'
    >>> show(0.00002, "s")
    '20 us'
    """
    if dimension == "1":
        return f"{value:.4g}"
    rows = [
        (factor, spelling)
        for spelling, (dim, factor) in UNITS.items()
        if dim == dimension and spelling not in _NOT_SHOWN
    ]
    fitting = [row for row in rows if abs(value) >= row[0]] or [min(rows)]
    factor, spelling = max(fitting)
    return f"{value / factor:.4g} {spelling}"
