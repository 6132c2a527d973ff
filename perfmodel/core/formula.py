"""`@formula`: a cost formula is a plain function, read as numbers, arrays, LaTeX and units.

The decorator attaches what the other readings need (result symbol, source) and registers the
function; calling it costs one indirection. Parameter names must be rows of
`perfmodel.core.symbols`: that is where their LaTeX names and units come from. Under `recording`
every call is kept, so that ``explain`` can print the chain of formulas that led to a number.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar, cast

from perfmodel.core.symbols import SYMBOLS, Symbol

P = ParamSpec("P")
R = TypeVar("R")
FORMULAS: dict[str, Formula[Any, Any]] = {}


@dataclass(slots=True)
class Call:
    """One recorded evaluation: which formula, on what, giving what, under which labels."""

    formula: Formula[Any, Any]
    arguments: dict[str, Any]
    result: Any
    path: tuple[str, ...]


@dataclass(slots=True)
class Trace:
    """Recorded calls in order; `label` names the part of the model being computed."""

    calls: list[Call] = field(default_factory=lambda: [])
    path: tuple[str, ...] = ()


_trace: Trace | None = None


class Formula(Generic[P, R]):
    """A registered cost formula. Call it like the function it wraps."""

    def __init__(self, function: Callable[P, R], result: str, source: str) -> None:
        self.function = function
        self.name = function.__name__
        self.result = result
        self.source = source
        self.parameters = tuple(inspect.signature(function).parameters)
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Evaluate, and keep the call if somebody is recording."""
        if _trace is None:
            return self.function(*args, **kwargs)
        # A new object per call: a formula may return one of its arguments (a maximum does), and
        # ``explain`` follows results by identity.
        result: R = cast(Any, self.function(*args, **kwargs)) + 0.0
        arguments: dict[str, Any] = dict(zip(self.parameters, args, strict=False)) | kwargs
        _trace.calls.append(Call(self, arguments, result, _trace.path))
        return result

    def __repr__(self) -> str:
        return f"<formula {self.name}({', '.join(self.parameters)}) -> {self.result}>"

    def symbols(self) -> tuple[Symbol, ...]:
        """Nomenclature rows of the parameters."""
        return tuple(SYMBOLS[name] for name in self.parameters)

    def expression(self) -> Any:
        """The formula as a SymPy expression: the same function called with symbols."""
        import sympy

        # ``positive`` lets Max and Piecewise simplify; every quantity here is a size or a rate.
        symbols = [sympy.Symbol(row.latex, positive=True) for row in self.symbols()]
        return self.function(*symbols)  # pyright: ignore[reportCallIssue]

    @functools.cached_property
    def latex(self) -> str:
        """``result = expression`` in LaTeX, in textbook symbols."""
        import sympy

        return f"{SYMBOLS[self.result].latex} = {sympy.latex(self.expression())}"

    @functools.cached_property
    def words(self) -> str:
        """Right-hand side in the nomenclature's own names."""
        import sympy

        names = [sympy.Symbol(name, positive=True) for name in self.parameters]
        return str(self.function(*names))  # pyright: ignore[reportCallIssue]


def formula(result: str, source: str) -> Callable[[Callable[P, R]], Formula[P, R]]:
    """Register a cost formula.

    Parameters
    ----------
    result : str
        Row of the nomenclature the function computes.
    source : str
        Paper and section, datasheet, or the argument that derives it.

    Raises
    ------
    ValueError
        A second formula of the same name, or a name that the nomenclature lacks.
    """

    def register(function: Callable[P, R]) -> Formula[P, R]:
        made = Formula(function, result, source)
        unknown = [name for name in (*made.parameters, result) if name not in SYMBOLS]
        if unknown:
            raise ValueError(f"{made.name}: not in the nomenclature: {', '.join(unknown)}")
        if made.name in FORMULAS:
            raise ValueError(f"two formulas are called {made.name}")
        FORMULAS[made.name] = made
        return made

    return register


@contextlib.contextmanager
def recording() -> Generator[Trace, None, None]:
    """Keep every formula call made inside the ``with`` block."""
    global _trace
    outer, _trace = _trace, Trace()
    try:
        yield _trace
    finally:
        _trace = outer


@contextlib.contextmanager
def label(name: str) -> Generator[None, None, None]:
    """Name the part of the model that the calls inside belong to (free when not recording)."""
    if _trace is None:
        yield
        return
    trace, outer = _trace, _trace.path
    trace.path = (*outer, name)
    try:
        yield
    finally:
        trace.path = outer
