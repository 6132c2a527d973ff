"""Money and energy per token."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core.formula import formula

DEFINITION = "definition"


@formula("cost_per_token", DEFINITION)
def cost_per_token(gpus: Numeric, price: Numeric, throughput: Numeric) -> Numeric:
    """Rent of all GPUs divided by the token rate [USD per token].

    Examples
    --------
    >>> round(cost_per_token(4.0, 2.5 / 3600, 3000.0) * 1e6, 4)
    0.9259
    """
    return gpus * price / throughput


@formula("energy_per_token", DEFINITION)
def energy_per_token(gpus: Numeric, power: Numeric, throughput: Numeric) -> Numeric:
    """Energy of all GPUs divided by the token rate [J per token]."""
    return gpus * power / throughput
