"""Rules about one value: a figure no part can have, a wrong prefix, a wrong memory type."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Final

from hwdb import load, units
from hwdb.records import KINDS, Cpu, Gpu
from hwdb.rules.base import Database, Finding, rule, si_of

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
    bandwidth = si_of(record.memory.bandwidth)
    if name not in _MEMORY:
        yield Finding("warning", "memory.type", f"{name!r} is none of {', '.join(_MEMORY)}")
    elif bandwidth is not None:
        slow, fast, narrow, wide = _MEMORY[name]
        low, high = slow * narrow * 1e9 / 8, fast * wide * 1e9 / 8
        if not 0.95 * low <= bandwidth <= 1.05 * high:
            span = f"{units.show(low, 'bytes/s')} to {units.show(high, 'bytes/s')}"
            text = record.memory.bandwidth.text
            yield Finding("error", "memory.bandwidth", f"{text!r}: {name} gives {span}")
