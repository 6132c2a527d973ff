"""Step time of models without a cache: one denoising step of each request in the batch.

Diffusion and vision models run the same network over the whole batch; a request of ``output``
steps passes through it so often, and nothing grows.
"""

from __future__ import annotations

import numpy as np

from perfmodel.core.types import TokenGroup
from perfmodel.serving.engine import System
from perfmodel.serving.simulate.surface import Surface
from perfmodel.step.step import run_step


def tabulate_passes(system: System, most: int, longest: int, passes: int = 1) -> Surface:
    """Surface that depends on the number of requests in the step alone.

    Parameters
    ----------
    system : System
        A model that is an operator graph.
    most : int
        Most requests of a step.
    longest : int
        Most passes of a request: the reach of the (empty) attention tables.
    passes : int
        Evaluations of the network per request and step; 2 with classifier-free guidance.

    Raises
    ------
    perfmodel.core.errors.InfeasibleError
        A datapath or a network is missing.
    """
    batch = np.maximum(np.arange(most + 1.0), 1.0) * passes
    step = run_step(
        system.architecture, system.layout, system.precision, system.machine,
        (TokenGroup(batch, 1.0, 0.0),), system.imbalance, "time",
    )  # fmt: skip
    overhead = float(system.machine.calibration.step_overhead.value)
    rows = np.broadcast_to(step.time - overhead, batch.shape).copy()
    rows[0] = 0.0
    none = np.zeros((0, longest + 1))
    return Surface(
        overhead=overhead, rows=rows, sequences=np.zeros(most + 1), decode=np.zeros(longest + 2),
        linear=True, decode_launch=0.0, prefill_launch=0.0,
        work=none, reads=none.copy(), writes=np.zeros(0), planes=np.zeros((0, 2, 4)),
    )  # fmt: skip
