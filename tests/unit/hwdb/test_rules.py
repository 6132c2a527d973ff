"""Each rule of the lint: silent on a sound little database, and caught by one planted slip."""

import copy
from typing import Any

import pytest

from hwdb import schema
from hwdb.check import check
from hwdb.records import KINDS
from hwdb.rules import RULES


def cited(value: str, source: str = "ds", **more: Any) -> dict[str, Any]:
    return {"value": value, "source": source, **more}


DS = {"title": "Sheet", "url": "https://example.org/ds.pdf", "accessed": "2026-11-23"}
RECALLED = {"kind": "recalled", "note": "from memory", "checked": ["ds", "b"]}

SOUND: dict[str, dict[str, dict[str, Any]]] = {
    "gpus": {
        "toy": {
            "name": "Toy",
            "vendor": "acme",
            "architecture": "one",
            "released": "2024-01",
            "node": "box",
            "aliases": ["toy-80gb"],
            "sources": {"ds": DS},
            "memory": {
                "type": "HBM3",
                "capacity": cited("80 GB"),
                "usable": cited("81559 MiB"),
                "bandwidth": cited("3.35 TB/s"),
                "l2": cited("50 MiB"),
            },
            "peak": {
                "tf32": cited("494.7 TFLOP/s"),
                "bf16": cited("989.4 TFLOP/s"),
                "fp8": cited("1978.9 TFLOP/s"),
                "int8": cited("1978.9 TOP/s"),
                "fp4": cited("3957.8 TFLOP/s"),
            },
            "vector": {"fp32": cited("67 TFLOP/s")},
            "compute": {
                "units": cited("132"),
                "base_clock": cited("1.2 GHz"),
                "boost_clock": cited("1.83 GHz"),
            },
            "power": {"tdp": cited("700 W"), "idle": cited("70 W")},
            "scale_up": {"fabric": "link", "bandwidth": cited("450 GB/s"), "links": cited("18")},
            "host": {"fabric": "bus", "bandwidth": cited("64 GB/s")},
        }
    },
    "cpus": {
        "core": {
            "name": "Core",
            "vendor": "acme",
            "architecture": "c",
            "released": "2023-01",
            "sources": {"ds": DS},
            "cores": cited("56"),
            "vector_width": cited("512 bit"),
            "base_clock": cited("2 GHz"),
            "boost_clock": cited("3.8 GHz"),
            "memory": {"type": "DDR5-4800", "bandwidth": cited("307.2 GB/s")},
            "peak": {"fp32": cited("7.2 TFLOP/s")},
            "power": {"tdp": cited("350 W")},
        }
    },
    "nodes": {
        "box": {
            "name": "Box",
            "gpu": "toy",
            "gpus": cited("8"),
            "sources": {"ds": DS},
            "scale_up": {"fabric": "link", "domain": cited("8"), "topology": "switch"},
            "scale_out": {"fabric": "net", "ports": cited("8")},
            "cpu": "core",
            "sockets": cited("2"),
            "host_memory": {"capacity": cited("2 TB"), "bandwidth": cited("614.4 GB/s")},
            "storage": "disk",
            "power": {"tdp": cited("10.2 kW")},
        }
    },
    "fabrics": {
        name: {
            "name": name,
            "use": use,
            "bandwidth": cited(bandwidth),
            "latency": cited("1 us"),
            "sources": {"ds": DS},
        }
        for name, use, bandwidth in (
            ("link", "scale-up", "25 GB/s"),
            ("net", "scale-out", "400 Gbit/s"),
            ("bus", "host", "63 GB/s"),
        )
    },
    "storage": {
        "disk": {
            "name": "Disk",
            "capacity": cited("3.84 TB"),
            "read_bandwidth": cited("7 GB/s"),
            "write_bandwidth": cited("4 GB/s"),
            "latency": cited("80 us"),
            "sources": {"ds": DS},
        }
    },
    "prices": {
        "toy": {
            "name": "Toy",
            "sources": {"ds": DS},
            "offers": [
                {
                    "seller": "cloud",
                    "term": "on-demand",
                    "gpus": 8,
                    "date": "2026-11-01",
                    "rent": cited("24 USD/h"),
                },
                {
                    "seller": "shop",
                    "term": "purchase",
                    "gpus": 1,
                    "date": "2026-11-01",
                    "purchase": cited("25000 USD"),
                },
            ],
        }
    },
}


def database(*edits: tuple[str, Any]) -> dict[str, dict[str, Any]]:
    """The sound database with the given paths (``gpus/toy/power.tdp``) set, as records.

    An edit of a cited value may be just its text; None removes the key.
    """
    tables = copy.deepcopy(SOUND)
    for path, value in edits:
        kind, name, rest = path.split("/")
        *steps, last = rest.split(".") if rest else [name]
        target: Any = tables[kind][name] if rest else tables[kind]
        for step in steps:
            target = target[int(step)] if isinstance(target, list) else target[step]
        old = target.get(last)
        if value is None:
            del target[last]
        else:
            is_cited = isinstance(old, dict) and "value" in old and isinstance(value, str)
            target[last] = cited(value) if is_cited else value
    return {
        kind: {name: schema.read(kind, {"id": name, **table}, name) for name, table in rows.items()}
        for kind, rows in tables.items()
    }


SECOND = copy.deepcopy(SOUND["gpus"]["toy"]) | {"aliases": []}
SPARSE = copy.deepcopy(SECOND) | {"peak": {"bf16": cited("1978.9 TFLOP/s")}}
PAGE_B = {**DS, "url": "https://example.org/b", "kind": "table"}

SLIPS: list[tuple[str, str, list[tuple[str, Any]]]] = [
    # rule, where it must be found, what is planted
    ("sources-used", "gpus/toy: sources.b", [("gpus/toy/sources.b", PAGE_B)]),
    ("sources-found", "gpus/toy: sources.ds.url", [("gpus/toy/sources.ds.url", "example.org")]),
    ("sources-found", "gpus/toy: sources.ds.url", [("gpus/toy/sources.ds.url", "")]),
    ("sources-found", "gpus/toy: sources.ds.url", [("gpus/toy/sources.ds.url", "http://a b.c")]),
    (
        "sources-found",
        "gpus/toy: sources.ds.accessed",
        [("gpus/toy/sources.ds.accessed", "2026-13-01")],
    ),
    (
        "sources-found",
        "gpus/toy: sources.ds.accessed",
        [("gpus/toy/sources.ds.accessed", "20261123")],
    ),
    ("provenance", "gpus/toy: power.tdp", [("gpus/toy/sources.ds.kind", "table")]),
    ("provenance", "gpus/toy: power.tdp", [("gpus/toy/sources.ds.kind", "note")]),
    (
        "provenance",
        "gpus/toy: power.tdp",
        [
            ("gpus/toy/sources.b", {**PAGE_B, "kind": "note", "url": ""}),
            ("gpus/toy/power.tdp", cited("700 W", "b", kind="derived", note="n")),
        ],
    ),
    (
        "provenance",
        "gpus/toy: power.tdp",
        [
            ("gpus/toy/sources.b", {**PAGE_B, "url": DS["url"]}),
            ("gpus/toy/power.tdp", cited("700 W", **RECALLED)),
        ],
    ),
    (
        "provenance",
        "gpus/toy: power.tdp",
        [
            ("gpus/toy/sources.b", {**PAGE_B, "kind": "note"}),
            ("gpus/toy/power.tdp", cited("700 W", **RECALLED)),
        ],
    ),
    ("references", "gpus/toy: node", [("gpus/toy/node", "bx")]),
    ("references", "gpus/toy: scale_up.fabric", [("gpus/toy/scale_up.fabric", "lnk")]),
    ("references", "gpus/toy: host.fabric", [("gpus/toy/host.fabric", "pcie9")]),
    ("references", "nodes/box: gpu", [("nodes/box/gpu", "toi")]),
    ("references", "nodes/box: cpu", [("nodes/box/cpu", "cor")]),
    ("references", "nodes/box: storage", [("nodes/box/storage", "tape")]),
    ("references", "nodes/box: scale_out.fabric", [("nodes/box/scale_out.fabric", "nte")]),
    ("references", "prices/joy: id", [("prices/joy/", SOUND["prices"]["toy"])]),
    ("aliases", "gpus/toy: aliases", [("gpus/two/", {**SECOND, "aliases": ["TOY_80GB"]})]),
    ("aliases", "gpus/two: aliases", [("gpus/two/", {**SECOND, "aliases": ["toy"]})]),
    ("released", "gpus/toy: released", [("gpus/toy/released", "2024-13")]),
    ("released", "cpus/core: released", [("cpus/core/released", "Jan 2024")]),
    ("ranges", "gpus/toy: memory.capacity", [("gpus/toy/memory.capacity", "80 TB")]),
    ("ranges", "gpus/toy: power.tdp", [("gpus/toy/power.tdp", "-700 W")]),
    ("ranges", "gpus/toy: power.idle", [("gpus/toy/power.idle", "0 W")]),
    ("ranges", "gpus/toy: compute.boost_clock", [("gpus/toy/compute.boost_clock", "1.8 MHz")]),
    ("ranges", "cpus/core: base_clock", [("cpus/core/base_clock", "2 Hz")]),
    ("ranges", "fabrics/net: latency", [("fabrics/net/latency", "1 s")]),
    ("ranges", "storage/disk: read_bandwidth", [("storage/disk/read_bandwidth", "7 MB/s")]),
    ("binary-prefixes", "gpus/toy: memory.capacity", [("gpus/toy/memory.capacity", "85.9 GB")]),
    ("binary-prefixes", "gpus/toy: memory.l2", [("gpus/toy/memory.l2", "50 MB")]),
    ("memory-type", "gpus/toy: memory.bandwidth", [("gpus/toy/memory.type", "HBM2")]),
    ("memory-type", "gpus/toy: memory.bandwidth", [("gpus/toy/memory.type", "GDDR6X")]),
    ("memory-type", "gpus/toy: memory.type", [("gpus/toy/memory.type", "core rope")]),
    ("memory-type", "cpus/core: memory.bandwidth", [("cpus/core/memory.bandwidth", "3 TB/s")]),
    ("usable-memory", "gpus/toy: memory.usable", [("gpus/toy/memory.usable", "40960 MiB")]),
    ("usable-memory", "gpus/toy: memory.usable", [("gpus/toy/memory.usable", "81 GiB")]),
    (
        "usable-memory",
        "gpus/toy: memory.usable",
        [("gpus/toy/memory.unified", True), ("gpus/toy/memory.usable", "52 GB")],
    ),
    ("dtype-ratios", "gpus/toy: peak.fp8", [("gpus/toy/peak.fp8", "3957.8 TFLOP/s")]),
    ("dtype-ratios", "gpus/toy: peak.int8", [("gpus/toy/peak.int8", "3957.8 TOP/s")]),
    ("dtype-ratios", "gpus/toy: peak.tf32", [("gpus/toy/peak.tf32", "989.4 TFLOP/s")]),
    ("dtype-ratios", "gpus/toy: peak.fp4", [("gpus/toy/peak.fp4", "1000 TFLOP/s")]),
    ("dtype-ratios", "gpus/toy: peak", [("gpus/toy/peak", {"bf16": cited("60 TFLOP/s")})]),
    ("ridge-point", "gpus/toy: peak.bf16", [("gpus/toy/peak.bf16", "9.9 PFLOP/s")]),
    ("ridge-point", "gpus/toy: peak.fp16", [("gpus/toy/peak.fp16", cited("50 TFLOP/s"))]),
    ("cycle-rates", "gpus/toy: peak", [("gpus/toy/compute.units", "92")]),
    (
        "cycle-rates",
        "gpus/sparse: peak",
        [("gpus/sparse/", SPARSE), ("gpus/two/", SECOND)],
    ),
    (
        "per-direction",
        "gpus/toy: scale_up.bandwidth",
        [("gpus/toy/scale_up.bandwidth", "900 GB/s")],
    ),
    ("per-direction", "gpus/toy: scale_up.bandwidth", [("gpus/toy/scale_up.links", "12")]),
    ("per-direction", "gpus/toy: host.bandwidth", [("gpus/toy/host.bandwidth", "128 GB/s")]),
    ("dtype-ratios", "gpus/toy: peak.int8", [
        ("gpus/toy/peak.int8", cited("4 POP/s", kind="derived", note="twice fp8"))]),
    ("order", "gpus/toy: power.idle", [("gpus/toy/power.idle", "701 W")]),
    ("order", "gpus/toy: compute.base_clock", [("gpus/toy/compute.base_clock", "1.9 GHz")]),
    ("order", "cpus/core: base_clock", [("cpus/core/base_clock", "4 GHz")]),
    ("node-parts", "nodes/box: power.tdp", [("nodes/box/power.tdp", "5 kW")]),
    ("node-parts", "nodes/box: scale_up.fabric", [("nodes/box/scale_up.fabric", "bus")]),
    (
        "node-parts",
        "nodes/box: host_memory.bandwidth",
        [("nodes/box/host_memory.bandwidth", "9 TB/s")],
    ),
    ("node-parts", "nodes/box: sockets", [("nodes/box/sockets", None)]),
    ("offers", "prices/toy: offers.0", [("prices/toy/offers.0.rent", "0.3 USD/h")]),
    ("offers", "prices/toy: offers.0", [("prices/toy/offers.0.rent", "500 USD/h")]),
    ("offers", "prices/toy: offers.1", [("prices/toy/offers.1.purchase", "25 USD")]),
    ("offers", "prices/toy: offers.0.date", [("prices/toy/offers.0.date", "2026-11-24")]),
    ("offers", "prices/toy: offers.0.date", [("prices/toy/offers.0.date", "November")]),
    ("offers", "prices/toy: offers.0", [("prices/toy/offers.0.gpus", 0)]),
    ("offers", "prices/toy: offers.0", [("prices/toy/offers.0.term", "purchase")]),
    ("offers", "prices/toy: offers.0", [("prices/toy/offers.0.rent", None)]),
]  # fmt: skip


def test_sound_database_has_no_findings():
    assert check(database()).findings == ()


@pytest.mark.parametrize(("name", "where", "edits"), SLIPS)
def test_planted_slip_is_found(name, where, edits):
    findings = check(database(*edits)).findings
    assert (name, where) in {(row.rule, row.where) for row in findings}, findings


def test_every_rule_has_a_planted_slip():
    assert {row.name for row in RULES} == {name for name, _, _ in SLIPS}


@pytest.mark.parametrize("row", RULES, ids=lambda row: row.name)
def test_every_rule_says_why_in_one_line(row):
    assert 10 < len(row.why.splitlines()[0]) < 100
    assert set(row.kinds) <= set(KINDS)


# ---- what must not be flagged --------------------------------------------------------------------

INNOCENT: list[tuple[str, list[tuple[str, Any]]]] = [
    ("unknown values", [("gpus/toy/power.tdp", {"unknown": "secret"})]),
    ("a note without address", [
        ("gpus/toy/sources.b", {**PAGE_B, "kind": "note", "url": ""}),
        ("gpus/toy/sources.c", {**PAGE_B, "url": "https://example.org/c"}),
        ("gpus/toy/sources.d", {**PAGE_B, "url": "https://example.org/d", "kind": "code"}),
        ("gpus/toy/power.tdp", cited("700 W", "b", **{**RECALLED, "checked": ["c", "d"]})),
    ]),
    ("a reported figure from a table", [
        ("gpus/toy/sources.b", PAGE_B),
        ("gpus/toy/power.tdp", cited("700 W", "b", kind="reported")),
    ]),
    ("a variant that inherits sources", [
        ("gpus/toy/sources.b", PAGE_B),
        ("gpus/toy/power.idle", cited("70 W", "b", kind="reported")),
        ("gpus/two/", {**SECOND, "sources": {"ds": DS, "b": PAGE_B}}),
    ]),
    ("capacity printed in GiB", [("gpus/toy/memory.capacity", "80 GiB")]),
    ("a part whose driver nobody ran", [("gpus/toy/memory.usable", None)]),
    ("unified memory, a quarter kept back", [
        ("gpus/toy/memory.unified", True),
        ("gpus/toy/memory.usable", "60 GB"),
    ]),
    ("an odd ratio with a note", [("gpus/toy/peak.int8", cited("165 TOP/s", note="cut"))]),
    ("fp8 at the bf16 rate", [
        ("gpus/toy/peak", {"bf16": cited("989.4 TFLOP/s"), "fp8": cited("989.4 TFLOP/s")}),
    ]),
    ("a unified part below the ridge", [
        ("gpus/toy/memory.unified", True),
        ("gpus/toy/peak", {"fp16": cited("64 TFLOP/s")}),
        ("gpus/toy/vector", {}),
        ("gpus/toy/compute", {}),
    ]),
    ("a port 3 % off its standard", [("gpus/toy/host.bandwidth", "65 GB/s")]),
    ("a port of half the lanes", [("gpus/toy/host.bandwidth", "32 GB/s")]),
    ("a source that a note names", [
        ("gpus/toy/sources.b", PAGE_B),
        ("gpus/toy/note", "source 'b' prints another figure"),
    ]),
    ("integers at four times a halved rate", [
        ("gpus/toy/memory", {
            "type": "GDDR6X",
            "capacity": cited("24 GB"),
            "bandwidth": cited("1008 GB/s"),
        }),
        ("gpus/toy/peak", {"bf16": cited("165 TFLOP/s"), "int8": cited("660 TOP/s")}),
        ("gpus/toy/compute", {}),
    ]),
    ("a halved variant among its kin", [
        ("gpus/two/", SECOND),
        ("gpus/half/", {**SECOND, "peak": {"bf16": cited("494.7 TFLOP/s")}}),
    ]),
    ("a node of unknown power", [("nodes/box/power", None)]),
]  # fmt: skip


@pytest.mark.parametrize("edits", [row[1] for row in INNOCENT], ids=[row[0] for row in INNOCENT])
def test_sound_oddity_is_left_alone(edits):
    assert check(database(*edits)).findings == ()
