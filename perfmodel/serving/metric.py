"""`Metric`: what a column of results is called, in which unit, and how it follows from an answer.

Names and definitions are vLLM's: ``ttft`` includes queueing, ``tpot = (e2el - ttft)/(osl - 1)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwdb.citation import Numeric
from perfmodel.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Metric:
    """One result.

    Parameters
    ----------
    name : str
        Column name without unit.
    unit : str
        SI unit of the value inside.
    suffix : str
        Unit suffix of the exported column (``ms``); empty if the name says it.
    scale : float
        Exported value = value x scale.
    shown : str
        Unit on screen.
    larger_is_better : bool
    meaning : str
        One line.
    value : callable
        Answer -> numeric [unit].
    aliases : tuple of str
        Names in other tools.
    """

    name: str
    unit: str
    meaning: str
    value: Callable[[Any], Numeric]
    larger_is_better: bool
    suffix: str = ""
    scale: float = 1.0
    shown: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """Exported column name.

        >>> Metric("ttft", "s", "", lambda a: 0.0, False, "ms", 1e3).column
        'ttft_ms'
        """
        return f"{self.name}_{self.suffix}" if self.suffix else self.name


METRICS: Registry[Metric] = Registry("perfmodel.serving.metrics", "METRIC", "metric")
