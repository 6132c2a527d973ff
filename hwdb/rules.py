"""The rules of the lint: small functions, each looking for one kind of slip in one record.

A rule gets one record and the database (for references) and yields `Finding`s. *Errors* are
slips: a dangling id, a figure no part can have, a claim its source cannot carry. *Warnings* are
oddities that a real part may have, worth a second look. To add a rule, write a function here with
``@rule`` above it; `hwdb.check` runs them all.
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any, Final, Literal, NamedTuple

from hwdb import load, units
from hwdb.citation import Cited
from hwdb.records import KINDS, Cpu, Gpu, Node, Port, Prices

Database = Mapping[str, Mapping[str, Any]]


class Finding(NamedTuple):
    """Something wrong: how bad, where (a rule gives the field), what, and which rule says so."""

    severity: Literal["error", "warning"]
    where: str
    message: str
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.message} [{self.rule}]"


Find = Callable[[Any, Database], Iterator[Finding]]


class Rule(NamedTuple):
    """A registered check: its name, one line why, the kinds it looks at, and the function."""

    name: str
    why: str
    kinds: tuple[str, ...]
    find: Find


RULES: Final[list[Rule]] = []


def rule(*kinds: str) -> Callable[[Find], Find]:
    """Register a check for the given kinds of record (all, if none is given).

    The function's name is the rule's name, its docstring says why there is such a rule.
    """

    def register(find: Any) -> Find:
        name, why = find.__name__.replace("_", "-"), (find.__doc__ or "").rstrip(".")
        RULES.append(Rule(name, why, kinds or tuple(KINDS), find))
        return find

    return register


def _si(value: Cited | None) -> float | None:
    return float(value.si) if value is not None and value.known else None


def _kin(record: Any, database: Database) -> list[Any]:
    return [row for rows in database.values() for row in rows.values() if type(row) is type(record)]


def _date(text: str) -> datetime.date | None:
    try:
        date = datetime.date.fromisoformat(text)
    except ValueError:
        return None
    return date if date.isoformat() == text else None  # ISO has other spellings of a day


# ---- citations -----------------------------------------------------------------------------------


@rule()
def sources_used(record: Any, database: Database) -> Iterator[Finding]:
    """A source nobody cites is a leftover, or its fact was forgotten."""
    kin = _kin(record, database)
    for key, source in record.sources.items():
        # A variant inherits its base's sources and need not cite all of them.
        users = [row for row in kin if row.sources.get(key) == source]
        facts = [value for row in users for _, value in load.cited(row)]
        notes = [row.note for row in (*users, *facts)]
        cited = any(key in (value.source, *value.checked) for value in facts)
        if not cited and not any(f"'{key}'" in note for note in notes):
            yield Finding("error", f"sources.{key}", f"no value cites it, no note names '{key}'")


@rule()
def sources_found(record: Any, database: Database) -> Iterator[Finding]:
    """A source must lead a reader to the page, and say when it was read."""
    for key, source in record.sources.items():
        is_note = source.kind == "note" and not source.url
        if not is_note and not re.fullmatch(r"https?://[\w-]+(\.[\w-]+)+([/?#]\S*)?", source.url):
            yield Finding("error", f"sources.{key}.url", f"{source.url!r} is no http(s) address")
        if _date(source.accessed) is None:
            yield Finding("error", f"sources.{key}.accessed", f"{source.accessed!r}: YYYY-MM-DD")


@rule()
def provenance(record: Any, database: Database) -> Iterator[Finding]:
    """No figure is passed off as read where it was not: unopened, or not the vendor's own page."""
    for path, value in load.cited(record):
        source = record.sources.get(value.source)
        barred = {"note", "table", "code"} if value.kind == "datasheet" else {"note"}
        if source and source.kind in barred and value.kind not in ("recalled", "estimated"):
            yield Finding("error", path, f"{value.kind}, but {value.source!r} is a {source.kind}")
        pages = [record.sources[key] for key in value.checked]
        if any(page.kind == "note" for page in pages) or len({page.url for page in pages}) == 1:
            yield Finding("error", path, "'checked' needs two different pages that were opened")


_REFERENCES: Final = (  # field, kind of record that its id names
    ("node", "nodes"),
    ("gpu", "gpus"),
    ("cpu", "cpus"),
    ("storage", "storage"),
    ("scale_up.fabric", "fabrics"),
    ("scale_out.fabric", "fabrics"),
    ("host.fabric", "fabrics"),
)


@rule()
def references(record: Any, database: Database) -> Iterator[Finding]:
    """An id that leads nowhere breaks every configuration built on the record."""
    own_id = (("id", "gpus"),) if isinstance(record, Prices) else ()
    for path, kind in (*own_id, *_REFERENCES):
        name = reduce(lambda row, step: getattr(row, step, None), path.split("."), record)
        if isinstance(name, str) and name not in database[kind]:
            near = difflib.get_close_matches(name, database[kind], n=3, cutoff=0.4)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            yield Finding("error", path, f"no {name!r} among the {kind}{hint}")


@rule()
def aliases(record: Any, database: Database) -> Iterator[Finding]:
    """A name must lead to one record."""

    def names(row: Any) -> set[str]:
        return {name.lower().replace("_", "-") for name in (row.id, *row.aliases)}

    for other in _kin(record, database):
        if other is not record and (shared := names(record) & names(other)):
            yield Finding("error", "aliases", f"{other.id} answers to {min(shared)!r} too")


@rule("gpus", "cpus")
def released(record: Gpu | Cpu, database: Database) -> Iterator[Finding]:
    """Release months are compared as text."""
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", record.released):
        yield Finding("error", "released", f"{record.released!r}: write YYYY-MM")


# ---- magnitudes of one value ---------------------------------------------------------------------

_RANGES: Final = (  # kind, field, lowest, highest: wider than any part, but no wrong prefix fits
    ("gpus", "memory.capacity", "4 GB", "1 TB"),
    ("gpus", "memory.l2", "256 KiB", "1 GiB"),
    ("gpus", "peak.*", "1 TFLOP/s", "100 PFLOP/s"),
    ("gpus", "vector.*", "10 GFLOP/s", "1 PFLOP/s"),
    ("gpus", "compute.*_clock", "200 MHz", "4 GHz"),
    ("gpus", "compute.die_area", "50 mm2", "4000 mm2"),
    ("gpus", "power.*", "1 W", "5 kW"),
    ("cpus", "cores", "2", "512"),
    ("cpus", "*_clock", "800 MHz", "7 GHz"),
    ("cpus", "memory.capacity", "16 GB", "20 TB"),
    ("cpus", "power.*", "1 W", "1 kW"),
    ("nodes", "host_memory.capacity", "4 GB", "1 PB"),
    ("nodes", "power.*", "10 W", "20 MW"),
    ("fabrics", "bandwidth", "100 MB/s", "5 TB/s"),
    ("fabrics", "latency", "10 ns", "100 ms"),
    ("storage", "capacity", "100 GB", "1 PB"),
    ("storage", "*_bandwidth", "50 MB/s", "1 TB/s"),
    ("storage", "latency", "1 us", "1 s"),
    ("calibrations", "compute.*", "0.01", "1"),
    ("calibrations", "memory.*", "0.01", "1"),
    ("calibrations", "link", "0.01", "1"),
)


@rule()
def ranges(record: Any, database: Database) -> Iterator[Finding]:
    """A quantity that is not positive, or a thousandfold off, is a slip of sign or prefix."""
    known = [(path, value) for path, value in load.cited(record) if value.known]
    for path, value in known:
        if float(value.si) <= 0:
            yield Finding("error", path, f"{value.text!r} is not positive")
        for kind, field, low, high in _RANGES:
            applies = isinstance(record, KINDS[kind]) and fnmatchcase(path, field)
            if applies and not units.parse(low) <= float(value.si) <= units.parse(high):
                yield Finding("error", path, f"{value.text!r} is not within {low} to {high}")


@rule()
def binary_prefixes(record: Any, database: Database) -> Iterator[Finding]:
    """80 GB and 80 GiB are 7 % apart; sheets give memory in GB, caches in powers of two."""
    for path, value in load.cited(record):
        counts = [float(value.si) / unit for unit in (1e9, 2.0**30)]
        whole = [math.isclose(n, round(n), rel_tol=2e-4) for n in counts if value.known]
        if path == "memory.capacity" and value.text.endswith(" GB") and whole == [False, True]:
            yield Finding("error", path, f"{value.text!r} is a whole number of GiB: write it so")
        if path in ("memory.l2", "l3") and re.search(r" [kMG]B$", value.text):
            yield Finding("warning", path, f"{value.text!r}: caches are sized in KiB and MiB")


_MEMORY: Final = {  # rate of a pin in Gbit/s from, to; bus in bits from, to (JEDEC, sold parts)
    "HBM": (1.0, 12.0, 1024, 24576),
    "HBM2": (1.4, 2.45, 1024, 8192),
    "HBM2E": (2.0, 3.7, 1024, 8192),
    "HBM3": (4.0, 6.5, 1024, 8192),
    "HBM3E": (5.5, 9.8, 1024, 8192),
    "HBM4": (6.0, 12.0, 2048, 24576),
    "GDDR5": (3.6, 9.0, 64, 512),
    "GDDR6": (10.0, 20.0, 64, 512),
    "GDDR6X": (18.0, 24.0, 64, 384),
    "GDDR7": (16.0, 36.0, 64, 512),
    "LPDDR4X": (3.2, 4.3, 64, 256),
    "LPDDR5": (5.5, 6.4, 64, 1024),
    "LPDDR5X": (6.4, 10.7, 64, 1024),
    "DDR4": (1.6, 3.2, 64, 512),
    "DDR5": (3.2, 12.8, 64, 1024),
}


@rule("gpus", "cpus")
def memory_type(record: Gpu | Cpu, database: Database) -> Iterator[Finding]:
    """Bandwidth is pins times their rate, which the type of memory bounds."""
    name = re.split(r"[-\s,(/]", record.memory.type.upper())[0]
    bandwidth = _si(record.memory.bandwidth)
    if name not in _MEMORY:
        yield Finding("warning", "memory.type", f"{name!r} is none of {', '.join(_MEMORY)}")
    elif bandwidth is not None:
        slow, fast, narrow, wide = _MEMORY[name]
        low, high = slow * narrow * 1e9 / 8, fast * wide * 1e9 / 8
        if not 0.95 * low <= bandwidth <= 1.05 * high:
            span = f"{units.show(low, 'bytes/s')} to {units.show(high, 'bytes/s')}"
            text = record.memory.bandwidth.text
            yield Finding("error", "memory.bandwidth", f"{text!r}: {name} gives {span}")


# ---- values against each other -------------------------------------------------------------------

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
    rates = {dtype: si for dtype, value in peak.items() if (si := _si(value)) is not None}
    if half := rates.get("bf16", rates.get("fp16")):
        rates["half"] = half
    for dtype, other, low, high in _RATIOS:
        if dtype == "int8" and gpu.memory.type.startswith("GDDR"):
            high *= 2  # GeForce parts accumulate halves in fp32 at half rate, integers at full
        if dtype in rates and other in rates and not low <= rates[dtype] / rates[other] <= high:
            ratio = f"{rates[dtype] / rates[other]:.3g} times {other}"
            yield Finding("warning", f"peak.{dtype}", f"{ratio}, not {low} to {high}; dense?")
    lanes = _si(gpu.vector.get("fp32"))
    if half and lanes and half < 0.98 * lanes:
        yield Finding("error", "peak", "half-precision matrix rate is below the fp32 vector rate")
    if "fp4" in rates and rates["fp4"] < rates.get("fp8", 0.0):
        yield Finding("error", "peak.fp4", "slower than fp8")


@rule("gpus")
def ridge_point(gpu: Gpu, database: Database) -> Iterator[Finding]:
    """A ridge point far off the field's is a wrong peak or a wrong bandwidth."""
    bandwidth = _si(gpu.memory.bandwidth)
    for dtype in ("bf16", "fp16"):
        peak = _si(gpu.peak.get(dtype))
        if peak and bandwidth and not gpu.memory.unified and not 20 <= peak / bandwidth <= 2000:
            ridge = f"{peak / bandwidth:.3g} FLOP/B"
            yield Finding("error", f"peak.{dtype}", f"ridge point {ridge}; 20 to 2000 is plausible")


def _per_cycle(gpu: Gpu) -> float | None:
    peak = _si(gpu.peak.get("bf16")) or _si(gpu.peak.get("fp16"))
    count, clock = _si(gpu.compute.units), _si(gpu.compute.boost_clock)
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
        links, whole, one = _si(port.links), _si(port.bandwidth), _si(fabric.bandwidth)
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
    values = {path: si for path, v in load.cited(record) if (si := _si(v)) is not None}
    for low, high in _ORDER:
        if low in values and high in values and values[low] > values[high]:
            yield Finding("error", low, f"exceeds {high}")


@rule("nodes")
def node_parts(node: Node, database: Database) -> Iterator[Finding]:
    """A node is made of the parts it names."""
    gpu, cpu = database["gpus"].get(node.gpu), database["cpus"].get(node.cpu or "")
    count, sockets = _si(node.gpus), _si(node.sockets)
    power = _si(node.power.tdp) if node.power else None
    if gpu and count and power and (tdp := _si(gpu.power.tdp)) and power < count * tdp:
        yield Finding("error", "power.tdp", f"less than {count:g} times {gpu.id}'s {tdp:g} W")
    if gpu and node.scale_up and gpu.scale_up and node.scale_up.fabric != gpu.scale_up.fabric:
        yield Finding("error", "scale_up.fabric", f"{gpu.id} has {gpu.scale_up.fabric}")
    host = _si(node.host_memory.bandwidth) if node.host_memory else None
    socket = _si(cpu.memory.bandwidth) if cpu else None
    if host and sockets and socket and not 0.6 <= host / sockets / socket <= 1.05:
        message = f"{host / sockets / socket:.3g} times {sockets:g} sockets of {node.cpu}"
        yield Finding("warning", "host_memory.bandwidth", message)
    if cpu and not node.sockets:
        yield Finding("error", "sockets", "how many of the cpu?")


@rule("prices")
def offers(prices: Prices, database: Database) -> Iterator[Finding]:
    """A price is asked on a day, by the hour or for good, and no part is free."""
    for index, offer in enumerate(prices.offers):
        where, date = f"offers.{index}", _date(offer.date)
        asked = offer.purchase if offer.term == "purchase" else offer.rent
        source = prices.sources.get(asked.source) if asked else None
        if date is None:
            yield Finding("error", f"{where}.date", f"{offer.date!r}: YYYY-MM-DD")
        elif source and (read := _date(source.accessed)) and date > read:
            yield Finding("error", f"{where}.date", f"{date} is after {read}, when it was read")
        if asked is None or None not in (offer.rent, offer.purchase) or offer.gpus < 1:
            yield Finding("error", where, "needs gpus >= 1 and rent, or a purchase price")
        elif (usd := _si(asked)) is not None:
            each = usd / offer.gpus * (1 if asked is offer.purchase else 3600)
            low, high = (100, 500_000) if asked is offer.purchase else (0.05, 50)
            if not low <= each <= high:
                yield Finding("error", where, f"{each:.4g} USD per GPU; {low} to {high} expected")
