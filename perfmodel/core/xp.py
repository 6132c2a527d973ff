"""The few functions a formula may use beside arithmetic, dispatched on the kind of its arguments.

Floats stay floats, NumPy arrays (and Pint quantities, which speak NumPy's protocol) go to NumPy,
SymPy expressions become `Max`, `Piecewise`, `ceiling`. SymPy is never imported here: an argument
can only be symbolic if somebody else has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy

# Arguments are of any numeric kind, which NumPy's own signatures do not know.
np: Any = numpy


def _symbolic(*args: Any) -> bool:
    sympy = sys.modules.get("sympy")
    return sympy is not None and any(isinstance(arg, sympy.Basic) for arg in args)


def _plain(*args: Any) -> bool:
    return all(isinstance(arg, (int, float)) for arg in args)


def maximum(a: Any, b: Any) -> Any:
    """Larger of two, element by element."""
    if _plain(a, b):
        return a if a >= b or a != a else b  # nan stays nan, as in NumPy
    return _sympy().Max(a, b) if _symbolic(a, b) else np.maximum(a, b)


def minimum(a: Any, b: Any) -> Any:
    """Smaller of two, element by element."""
    if _plain(a, b):
        return a if a <= b or a != a else b
    return _sympy().Min(a, b) if _symbolic(a, b) else np.minimum(a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``."""
    if _symbolic(condition, a, b):
        return _sympy().Piecewise((a, condition), (b, True))
    if getattr(condition, "ndim", 0) == 0 and _plain(a, b):
        return a if condition else b
    return np.where(condition, a, b)


def ceil(a: Any) -> Any:
    """Smallest integer not below, as a float."""
    return _one("ceil", "ceiling", a)


def floor(a: Any) -> Any:
    """Largest integer not above, as a float."""
    return _one("floor", "floor", a)


def ceil_div(a: Any, b: Any) -> Any:
    """How many pieces of size ``b`` cover ``a``."""
    return ceil(a / b)


def exp(a: Any) -> Any:
    """Exponential."""
    return _one("exp", "exp", a)


def sqrt(a: Any) -> Any:
    """Square root."""
    return _one("sqrt", "sqrt", a)


def log1p(a: Any) -> Any:
    """Logarithm of 1 + a."""
    return _sympy().log(1 + a) if _symbolic(a) else _one("log1p", "", a)


def log2(a: Any) -> Any:
    """Logarithm to base 2."""
    return _sympy().log(a, 2) if _symbolic(a) else _one("log2", "", a)


def _one(name: str, symbolic: str, a: Any) -> Any:
    """Function of one argument; floats go through NumPy too, so that scalar and array agree."""
    if _symbolic(a):
        return getattr(_sympy(), symbolic)(a)
    value = getattr(np, name)(a)
    return float(value) if _plain(a) else value


def _sympy() -> Any:
    return sys.modules["sympy"]
