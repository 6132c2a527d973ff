"""Mixture of experts: how many experts a step touches and how the tokens spread over ranks."""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula


@formula("distinct", "expected occupancy, independent uniform routing (MoE-Lens, arXiv 2504.09345)")
def distinct_experts(experts: Numeric, top_k: Numeric, rows: Numeric) -> Numeric:
    """Expected number of experts that ``rows`` tokens touch, ``top_k`` each, routed uniformly [1].

    E (1 - (1 - k/E)^T). Real routers are skewed and touch fewer.

    Examples
    --------
    >>> round(float(distinct_experts(8.0, 2.0, 64.0)), 6)
    8.0
    >>> round(float(distinct_experts(256.0, 8.0, 1.0)), 6)
    8.0
    """
    share = xp.minimum(top_k / experts, 1 - 1e-12)  # with k = E the logarithm would be of zero
    return experts * (1 - xp.exp(rows * xp.log1p(-share)))


@formula("rows", "token conservation; imbalance = heaviest rank over mean")
def expert_rows(rows: Numeric, top_k: Numeric, ep: Numeric, imbalance: Numeric) -> Numeric:
    """Token-expert pairs on the heaviest expert-parallel rank [1]; ``rows`` tokens enter the group.

    With ``ep = 1`` every rank holds a slice of all experts and none is heavier.
    """
    return rows * top_k / ep * xp.where(ep > 1, imbalance, 1.0)
