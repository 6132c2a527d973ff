"""Iteration-level simulation of engines and clusters: every request's latencies, and their tails.

`surface` tabulates the step time, `policy` says what a step may hold, `fleet` what serves and how
requests find it. `serve` runs it: `core` is compiled and jumps over stretches of steps, `twin` does
the same step by step in plain Python. `record` is what both leave behind, `result` reads it,
with `work` and `power` for utilisation and energy; `series`, `export` and `trace` write files.
"""

from perfmodel.serving.simulate.fleet import Cluster, Replica
from perfmodel.serving.simulate.policy import POLICIES, Engine, Policy
from perfmodel.serving.simulate.record import Slo
from perfmodel.serving.simulate.result import Simulation
from perfmodel.serving.simulate.serve import (
    cache_blocks,
    has_core,
    replay,
    serve,
    simulate,
    surface_for,
)
from perfmodel.serving.simulate.surface import Surface, tabulate

__all__ = [
    "POLICIES",
    "Cluster",
    "Engine",
    "Policy",
    "Replica",
    "Simulation",
    "Slo",
    "Surface",
    "cache_blocks",
    "has_core",
    "replay",
    "serve",
    "simulate",
    "surface_for",
    "tabulate",
]
