"""A bracketed root finder for numbers and arrays: fixed points that have no closed form."""

from __future__ import annotations

from collections.abc import Callable

from hwdb.citation import Numeric
from perfmodel.core import xp


def crossing(
    gap: Callable[[Numeric], Numeric], low: Numeric, high: Numeric, passes: int
) -> Numeric:
    """Where a function that is positive at ``low`` falls through zero, at most ``high``.

    Illinois variant of regula falsi (Dahlquist and Bjorck, Numerical Methods, section 6.4): keeps
    the bracket, so a kink or a bend costs passes and never the root.

    Parameters
    ----------
    gap : callable
        The function, called ``passes + 2`` times.
    low, high : numeric
        Bracket; numbers or arrays.
    passes : int
        Refinements.

    Returns
    -------
    numeric
        The crossing; ``high`` where the function is still positive there.

    Examples
    --------
    >>> round(crossing(lambda x: 2.0 - x * x, 0.0, 2.0, 12), 9)
    1.414213562
    >>> crossing(lambda x: 1.0 + 0.0 * x, 0.0, 2.0, 3)
    2.0
    """
    above, below, top = gap(low), gap(high), high
    never = below > 0
    middle, side = high, 0.0
    for _ in range(passes):
        spread = above - below
        middle = low + (high - low) * above / xp.where(spread > 0, spread, 1.0)
        middle = xp.minimum(xp.maximum(middle, low), high)
        found = gap(middle)
        right = found > 0
        # An end that stays twice has its value halved: the next point lands beyond the root.
        again_low, again_high = side < 0, side > 0
        above = xp.where(right, found, xp.where(again_low, above / 2, above))
        below = xp.where(right, xp.where(again_high, below / 2, below), found)
        low, high = xp.where(right, middle, low), xp.where(right, high, middle)
        side = xp.where(right, 1.0, -1.0)
    return xp.where(never, top, middle)
