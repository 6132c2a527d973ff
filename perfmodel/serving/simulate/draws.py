"""Random numbers that depend on nothing but their place: equal in the twin and in the core.

A counter-based generator (splitmix64: Steele, Lea and Flood, OOPSLA 2014) needs no state, so that
two implementations that draw in another order still draw the same.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1


def draw(seed: int, stream: int, place: int) -> float:
    """Uniform number in [0, 1) for a place of a stream.

    >>> draw(0, 1, 2) == draw(0, 1, 2), draw(0, 1, 2) == draw(0, 2, 1)
    (True, False)
    >>> round(sum(draw(3, 0, i) for i in range(10_000)) / 10_000, 2)
    0.5
    """
    return (_mix(_mix(_mix(seed) + stream) + place) >> 11) * 2.0**-53


def _mix(number: int) -> int:
    z = (number + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
