"""`sweep`: a grid of scenarios as named broadcast axes, evaluated in cache-sized blocks.

Numbers vary inside one array call; kinds (model, GPU, formats) are looped over outside. The product
is never materialised on the way in: an axis is an array of its own shape, so a formula that depends
on two axes costs their product and no more. Infeasible points are nan with a ``reason`` code.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import UsageError, near
from perfmodel.core.types import Reason
from perfmodel.scenario.estimate import estimate
from perfmodel.scenario.scenario import KINDS, NUMBERS
from perfmodel.serving.metric import METRICS

# Points evaluated at once: enough to hide Python, few enough that a step's arrays stay in L2.
BLOCK = 32768


@dataclass(frozen=True, slots=True)
class Sweep:
    """Result of a sweep.

    Attributes
    ----------
    axes : dict
        Axis name to its values, in order; kinds first.
    columns : dict
        Column name to an array of shape ``(len(axis), ...)``; ``reason`` holds the codes of
        `perfmodel.core.types.Reason`.
    """

    axes: dict[str, list[Any]]
    columns: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.axes.values())

    def to_frame(self) -> Any:
        """Tidy pandas frame: one row per point, axes first (imports pandas)."""
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError:
            raise UsageError(
                "to_frame() needs pandas: pip install 'perfmodel[distributed]'"
            ) from None
        frame = pandas.DataFrame({name: col.ravel() for name, col in self.columns.items()})
        if self.axes:
            values = list(self.axes.values())
            frame.index = pandas.MultiIndex.from_product(values, names=list(self.axes))
            frame = frame.reset_index()
        frame["reason"] = [Reason(int(code)).name.lower() for code in frame["reason"]]
        return frame


def sweep(*, columns: Sequence[str] | None = None, **question: Any) -> Sweep:
    """Evaluate all combinations of the listed values.

    Parameters
    ----------
    columns : sequence of str, optional
        Result columns to keep (default: all).
    **question
        Fields of `Scenario`; a list, tuple or array makes an axis. Values of ``set`` may be arrays
        too: their axis is the path.

    Returns
    -------
    Sweep

    Raises
    ------
    perfmodel.core.errors.UsageError
        Unknown field or column, an empty axis, or a value out of range.

    Examples
    --------
    >>> grid = sweep(model="meta-llama/Llama-3.1-8B", gpu=["h100-sxm", "h200-sxm"],
    ...              max_concurrency=[1, 8, 64], columns=["tpot_ms"])
    >>> grid.columns["tpot_ms"].shape
    (2, 3)
    """
    known = {metric.column for metric in METRICS.values()}
    wanted = tuple(columns) if columns is not None else tuple(sorted(known))
    for name in wanted:
        if name not in known:
            raise UsageError(f"no result column {name!r}{near(name, known)}")
    _settle_allocator()
    overrides = dict(question.pop("set", {}))
    question = {name: value for name, value in question.items() if value is not None}
    kinds = _axes(question, KINDS)
    numbers = _axes(question, NUMBERS) | _axes(overrides, tuple(overrides))
    fixed = {name: value for name, value in question.items() if name not in (kinds | numbers)}
    axes: dict[str, list[Any]] = {name: list(values) for name, values in kinds.items()}
    for name, values in numbers.items():
        axes[name] = np.asarray(values, dtype=np.float64).tolist()
    shape = tuple(len(values) for values in axes.values())
    table = {name: np.full(shape, np.nan) for name in (*wanted, "reason")}
    lengths = tuple(len(values) for values in numbers.values())
    for position in itertools.product(*(range(len(values)) for values in kinds.values())):
        chosen = {
            name: values[i] for (name, values), i in zip(kinds.items(), position, strict=True)
        }
        for block in _blocks(lengths):
            _fill(table, position, block, {**fixed, **chosen}, numbers, overrides, wanted)
    return Sweep(axes, table)


def _settle_allocator() -> None:
    """Free one large array, so that the C library keeps the memory of a block's temporaries.

    glibc maps and unmaps every allocation above a threshold that it raises to the largest one
    freed so far; without this a first sweep spends half its time on page faults.
    """
    np.empty(64 * BLOCK)


def _fill(
    table: dict[str, NDArray[np.float64]], position: tuple[int, ...], block: tuple[slice, ...],
    fixed: dict[str, Any], numbers: dict[str, Any], overrides: dict[str, Any],
    wanted: tuple[str, ...],
) -> None:  # fmt: skip
    """Evaluate one block of one combination of kinds and write it into the table."""
    question, changed = dict(fixed), dict(overrides)
    for index, (name, values) in enumerate(numbers.items()):
        part = np.asarray(values, dtype=np.float64)[block[index]]
        part = part.reshape([-1 if i == index else 1 for i in range(len(numbers))])
        (changed if name in overrides else question)[name] = part
    answer = estimate(**question, set=changed)
    for name, value in answer.results(wanted).items():
        table[name][(*position, *block)] = value
    table["reason"][(*position, *block)] = answer.verdict.reason


def _axes(question: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Fields that are lists or arrays."""
    found: dict[str, Any] = {}
    for name in names:
        value: Any = question.get(name, 0)
        dimensions = np.ndim(value)
        if dimensions > 1:
            raise UsageError(f"axis {name} must have one dimension, has {dimensions}")
        if dimensions == 1:
            if len(value) == 0:
                raise UsageError(f"axis {name} is empty")
            found[name] = value
    return found


def _blocks(lengths: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a grid into blocks of at most `BLOCK` points, halving its longest side."""
    sides = list(lengths)
    while math.prod(sides) > BLOCK:
        longest = sides.index(max(sides))
        sides[longest] = -(-sides[longest] // 2)
    starts = [range(0, length, side) for length, side in zip(lengths, sides, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))
