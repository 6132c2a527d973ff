"""Rules about values against each other: ratios, directions, order, parts of a node."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any, Final

from hwdb import load
from hwdb.citation import Cited
from hwdb.records import Cpu, Gpu, Node, Port, Prices
from hwdb.rules.base import Database, Finding, date_of, rule, si_of


@rule("gpus")
def usable_memory(gpu: Gpu, database: Database) -> Iterator[Finding]:
    """A driver shows the DRAM there is, near the printed size; Metal lends out three quarters."""
    usable, capacity = si_of(gpu.memory.usable), si_of(gpu.memory.capacity)
    share = usable / capacity if usable and capacity else 1.0
    low, high = 0.7 if gpu.memory.unified else 0.9, 1.08  # sold as 80 GB, fitted with 80 GiB
    if not low <= share <= high:
        yield Finding("error", "memory.usable", f"{share:.3g} of capacity, not {low} to {high}")


_RATIOS: Final = (  # dtype, its reference, ratio from, to: all else is odd, 4 smells of sparsity
    ("bf16", "fp16", 0.95, 1.05),
    ("tf32", "half", 0.20, 0.55),
    ("fp8", "half", 0.95, 2.1),
    ("int8", "half", 0.95, 2.1),
    ("fp6", "fp8", 0.95, 2.1),
    ("fp4", "fp8", 0.95, 3.1),
    ("int4", "int8", 0.95, 2.1),
)


@rule("gpus")
def dtype_ratios(gpu: Gpu, database: Database) -> Iterator[Finding]:
    """Halving the bits about doubles the rate; a with-sparsity figure breaks that."""
    peak: dict[str, Cited] = {**gpu.peak}
    rates = {dtype: si for dtype, value in peak.items() if (si := si_of(value)) is not None}
    if half := rates.get("bf16", rates.get("fp16")):
        rates["half"] = half
    for dtype, other, low, high in _RATIOS:
        if dtype == "int8" and gpu.memory.type.startswith("GDDR"):
            high *= 2  # GeForce parts accumulate halves in fp32 at half rate, integers at full
        if dtype in rates and other in rates and not low <= rates[dtype] / rates[other] <= high:
            ratio = f"{rates[dtype] / rates[other]:.3g} times {other}"
            yield Finding("warning", f"peak.{dtype}", f"{ratio}, not {low} to {high}; dense?")
    lanes = si_of(gpu.vector.get("fp32"))
    if half and lanes and half < 0.98 * lanes:
        yield Finding("error", "peak", "half-precision matrix rate is below the fp32 vector rate")
    if "fp4" in rates and rates["fp4"] < rates.get("fp8", 0.0):
        yield Finding("error", "peak.fp4", "slower than fp8")


@rule("gpus")
def ridge_point(gpu: Gpu, database: Database) -> Iterator[Finding]:
    """A ridge point far off the field's is a wrong peak or a wrong bandwidth."""
    bandwidth = si_of(gpu.memory.bandwidth)
    for dtype in ("bf16", "fp16"):
        peak = si_of(gpu.peak.get(dtype))
        if peak and bandwidth and not gpu.memory.unified and not 20 <= peak / bandwidth <= 2000:
            ridge = f"{peak / bandwidth:.3g} FLOP/B"
            yield Finding("error", f"peak.{dtype}", f"ridge point {ridge}; 20 to 2000 is plausible")


def _per_cycle(gpu: Gpu) -> float | None:
    peak = si_of(gpu.peak.get("bf16")) or si_of(gpu.peak.get("fp16"))
    count, clock = si_of(gpu.compute.units), si_of(gpu.compute.boost_clock)
    return peak / (count * clock) if peak and count and clock else None


@rule("gpus")
def cycle_rates(gpu: Gpu, database: Database) -> Iterator[Finding]:
    """A unit does a power of two per cycle, its kin the same; twice that is sparsity."""
    own, family = _per_cycle(gpu), (gpu.vendor, gpu.architecture)
    if own is None:
        return
    if 0.25 < math.log2(own) % 1 < 0.75:
        yield Finding("warning", "peak", f"{own:.0f} FLOP per unit and cycle is no power of two")
    # One architecture has fast dies with HBM and slower ones, at several rates, with GDDR.
    dies = [row for row in database["gpus"].values() if row.memory.type.startswith("HBM")]
    kin = [_per_cycle(row) for row in dies if (row.vendor, row.architecture) == family]
    usual = statistics.median([rate for rate in kin if rate is not None] or [own])
    if gpu.memory.type.startswith("HBM") and own > 1.5 * usual:
        message = f"{own:.0f} FLOP per unit and cycle, its kin do {usual:.0f}; dense?"
        yield Finding("warning", "peak", message)


@rule("gpus", "cpus")
def per_direction(record: Gpu | Cpu, database: Database) -> Iterator[Finding]:
    """A port is its links together, one direction; sheets like to print both."""
    for path in ("scale_up", "host"):
        port: Port | None = getattr(record, path, None)
        fabric = database["fabrics"].get(port.fabric) if port else None
        if port is None or fabric is None:
            continue
        links, whole, one = si_of(port.links), si_of(port.bandwidth), si_of(fabric.bandwidth)
        if not whole or not one or (links is None and path != "host"):
            continue
        ratio = whole / one / (links or 1.0)
        # Without a count of links the port may be narrower than the standard's full width.
        if ratio > 1.1 or (links and abs(ratio - 1) > 0.05):
            why = "; both directions?" if abs(ratio - 2) < 0.1 else ""
            message = f"{ratio:.3g} times {links or 1:g} of {fabric.id}{why}"
            yield Finding("error", f"{path}.bandwidth", message)


_ORDER: Final = (
    ("power.idle", "power.tdp"),
    ("compute.base_clock", "compute.boost_clock"),
    ("base_clock", "all_core_clock"),
    ("base_clock", "boost_clock"),
    ("all_core_clock", "boost_clock"),
)


@rule()
def order(record: Any, database: Database) -> Iterator[Finding]:
    """Idle is below busy, base clock below boost."""
    values = {path: si for path, v in load.cited(record) if (si := si_of(v)) is not None}
    for low, high in _ORDER:
        if low in values and high in values and values[low] > values[high]:
            yield Finding("error", low, f"exceeds {high}")


@rule("nodes")
def node_parts(node: Node, database: Database) -> Iterator[Finding]:
    """A node is made of the parts it names."""
    gpu, cpu = database["gpus"].get(node.gpu), database["cpus"].get(node.cpu or "")
    count, sockets = si_of(node.gpus), si_of(node.sockets)
    power = si_of(node.power.tdp) if node.power else None
    if gpu and count and power and (tdp := si_of(gpu.power.tdp)) and power < count * tdp:
        yield Finding("error", "power.tdp", f"less than {count:g} times {gpu.id}'s {tdp:g} W")
    if gpu and node.scale_up and gpu.scale_up and node.scale_up.fabric != gpu.scale_up.fabric:
        yield Finding("error", "scale_up.fabric", f"{gpu.id} has {gpu.scale_up.fabric}")
    host = si_of(node.host_memory.bandwidth) if node.host_memory else None
    socket = si_of(cpu.memory.bandwidth) if cpu else None
    if host and sockets and socket and not 0.6 <= host / sockets / socket <= 1.05:
        message = f"{host / sockets / socket:.3g} times {sockets:g} sockets of {node.cpu}"
        yield Finding("warning", "host_memory.bandwidth", message)
    if cpu and not node.sockets:
        yield Finding("error", "sockets", "how many of the cpu?")


@rule("prices")
def offers(prices: Prices, database: Database) -> Iterator[Finding]:
    """A price is asked on a day, by the hour or for good, and no part is free."""
    for index, offer in enumerate(prices.offers):
        where, date = f"offers.{index}", date_of(offer.date)
        asked = offer.purchase if offer.term == "purchase" else offer.rent
        source = prices.sources.get(asked.source) if asked else None
        if date is None:
            yield Finding("error", f"{where}.date", f"{offer.date!r}: YYYY-MM-DD")
        elif source and (read := date_of(source.accessed)) and date > read:
            yield Finding("error", f"{where}.date", f"{date} is after {read}, when it was read")
        if asked is None or None not in (offer.rent, offer.purchase) or offer.gpus < 1:
            yield Finding("error", where, "needs gpus >= 1 and rent, or a purchase price")
        elif (usd := si_of(asked)) is not None:
            each = usd / offer.gpus * (1 if asked is offer.purchase else 3600)
            low, high = (100, 500_000) if asked is offer.purchase else (0.05, 50)
            if not low <= each <= high:
                yield Finding("error", where, f"{each:.4g} USD per GPU; {low} to {high} expected")
