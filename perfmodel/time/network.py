"""Time of collectives: latency and bandwidth terms of each algorithm, and the best of them.

``message`` is the buffer of one rank before the operation (after it for all-gather), ``latency``
one hop, ``link`` a device's bandwidth per direction into its fabric. A device-wide ``link`` assumes
a switch or a full mesh; rings over fewer links appear as a lower ``link``.
"""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula

THAKUR = "Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005, section 4"
ONE_SHOT = "every rank reads all other buffers directly (one step, g - 1 buffers in)"
IN_SWITCH = "reduction in the switch (NVLink SHARP): a buffer leaves once and returns once"


@formula("link", "definition")
def achieved_link(link: Numeric, link_efficiency: Numeric) -> Numeric:
    """Bandwidth that collectives achieve of a device's port [B/s]."""
    return link * link_efficiency


@formula("collective_time", THAKUR)
def ring_all_reduce(message: Numeric, group: Numeric, link: Numeric, latency: Numeric) -> Numeric:
    """Reduce-scatter then all-gather around a ring [s].

    Examples
    --------
    >>> ring_all_reduce(8e6, 8.0, 400e9, 0.0)
    3.5e-05
    """
    return 2 * (group - 1) * latency + 2 * (group - 1) / group * message / link


@formula("collective_time", THAKUR)
def tree_all_reduce(message: Numeric, group: Numeric, link: Numeric, latency: Numeric) -> Numeric:
    """Recursive halving and doubling [s]: logarithmic latency, ring bandwidth."""
    return 2 * xp.log2(group) * latency + 2 * (group - 1) / group * message / link


@formula("collective_time", ONE_SHOT)
def one_shot_all_reduce(
    message: Numeric, group: Numeric, link: Numeric, latency: Numeric
) -> Numeric:
    """Every rank gathers all buffers and reduces alone [s]; best for small messages."""
    return xp.where(group > 1, latency, 0.0) + (group - 1) * message / link


@formula("collective_time", ONE_SHOT)
def two_shot_all_reduce(
    message: Numeric, group: Numeric, link: Numeric, latency: Numeric
) -> Numeric:
    """Each rank reduces its slice, then all gather the slices [s]."""
    return xp.where(group > 1, 2 * latency, 0.0) + 2 * (group - 1) / group * message / link


@formula("collective_time", IN_SWITCH)
def in_switch_all_reduce(
    message: Numeric, group: Numeric, link: Numeric, latency: Numeric
) -> Numeric:
    """The switch adds the buffers [s]: one buffer out and one in, at the same time."""
    return xp.where(group > 1, 2 * latency + message / link, 0.0)


@formula("collective_time", THAKUR)
def all_gather(message: Numeric, group: Numeric, link: Numeric, latency: Numeric) -> Numeric:
    """Each rank ends with ``message`` bytes of which it had its share [s]; also reduce-scatter."""
    return xp.where(group > 1, latency, 0.0) + (group - 1) / group * message / link


@formula(
    "collective_time", "each rank keeps 1/g of its buffer and sends the rest, links in parallel"
)
def all_to_all(message: Numeric, group: Numeric, link: Numeric, latency: Numeric) -> Numeric:
    """Every rank sends a g-th of its ``message`` to every other [s]."""
    return xp.where(group > 1, latency, 0.0) + (group - 1) / group * message / link


@formula("collective_time", "latency-bandwidth (Hockney) model")
def point_to_point(message: Numeric, link: Numeric, latency: Numeric) -> Numeric:
    """One buffer to one neighbour [s]."""
    return latency + message / link


@formula("collective_time", "engines pick the fastest algorithm for a size")
def faster(collective_time: Numeric, alternative: Numeric) -> Numeric:
    """The better of two algorithms for the same collective [s]."""
    return xp.minimum(collective_time, alternative)


@formula("kernel_time", "a collective is launched like a kernel")
def launched(collective_time: Numeric, overhead: Numeric) -> Numeric:
    """Time of a collective with its fixed cost [s]."""
    return collective_time + overhead
