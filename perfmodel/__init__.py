"""Analytical performance model of LLM inference.

>>> import perfmodel
>>> answer = perfmodel.estimate(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", isl=1000, osl=200)
>>> answer.verdict.feasible
True

The public names are functions of the question (`Scenario`): `estimate` answers it, `sweep` answers
a grid of it, `explain` shows the chain of formulas behind a number, `simulate` serves drawn or
recorded requests step by step. Hardware facts are package `hwdb`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfmodel.core.version import VERSION as __version__

if TYPE_CHECKING:
    from perfmodel.core.errors import PerfmodelError as PerfmodelError
    from perfmodel.plan.sweep import Sweep as Sweep
    from perfmodel.plan.sweep import sweep as sweep
    from perfmodel.scenario.estimate import Estimate as Estimate
    from perfmodel.scenario.estimate import estimate as estimate
    from perfmodel.scenario.explain import explain as explain
    from perfmodel.scenario.scenario import Scenario as Scenario
    from perfmodel.scenario.simulation import Outcome as Outcome
    from perfmodel.scenario.simulation import simulate as simulate


_PUBLIC = {
    "Estimate": "perfmodel.scenario.estimate",
    "Outcome": "perfmodel.scenario.simulation",
    "PerfmodelError": "perfmodel.core.errors",
    "Scenario": "perfmodel.scenario.scenario",
    "Sweep": "perfmodel.plan.sweep",
    "estimate": "perfmodel.scenario.estimate",
    "explain": "perfmodel.scenario.explain",
    "simulate": "perfmodel.scenario.simulation",
    "sweep": "perfmodel.plan.sweep",
}
__all__ = [
    "Estimate",
    "Outcome",
    "PerfmodelError",
    "Scenario",
    "Sweep",
    "__version__",
    "estimate",
    "explain",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Import public names when first used: ``import perfmodel`` itself loads nothing heavy."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'perfmodel' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
