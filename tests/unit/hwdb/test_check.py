"""The report of the lint: counts, order, text, and files that cannot be read."""

import pytest

import hwdb
from hwdb import load
from hwdb.check import Report, check
from hwdb.records import KINDS
from hwdb.rules import Finding


def test_counts(write):
    report = check()
    values = [
        value
        for kind in KINDS
        for name in hwdb.ls(kind)
        for _, value in load.cited(hwdb.get(kind, name))
    ]
    assert report.records == {kind: len(hwdb.ls(kind)) for kind in KINDS}
    assert sum(report.values.values()) == len(values)
    assert report.values["unknown"] == sum(not value.known for value in values)


def test_broken_files_are_findings_and_the_rest_is_checked(write):
    write("gpus/acme/cut", 'name = "cut of')
    write("gpus/acme/wrong", 'base = "toy"\nreleasd = "x"\nnode = 3')
    write("gpus/acme/Odd_Name", 'base = "toy"\n[power]\ntdp = { value = "0 W", source = "ds" }')
    report = check()
    loads = [row for row in report.errors if row.rule == "loads"]
    assert [row.where for row in loads] == [
        f"gpus/{name}: file" for name in ("cut", "wrong", "wrong")
    ]
    assert "Unterminated string" in loads[0].message
    assert any(row.where == "gpus/odd-name: power.tdp" for row in report.errors)
    assert any(row.where == "gpus/toy: node" for row in report.errors)


def test_duplicate_ids_and_missing_folder_are_findings(write, monkeypatch):
    write("gpus/other/toy", "")
    assert any("define the same id 'toy'" in row.message for row in check().errors)
    monkeypatch.setenv("PERFMODEL_HWDB", "/nowhere")
    assert {row.message for row in check().errors} == {"PERFMODEL_HWDB=/nowhere is not a folder"}


def test_errors_come_first(write):
    write("gpus/acme/odd", 'base = "toy"\n[memory]\ntype = "core rope"')
    severities = [row.severity for row in check().findings]
    assert severities == sorted(severities)
    assert set(severities) == {"error", "warning"}


def test_text_is_plain_lines():
    bad = Finding("error", "gpus/toy: power.tdp", "'0 W' is not positive", "ranges")
    odd = Finding("warning", "gpus/toy: peak", "dense?", "cycle-rates")
    report = Report((bad, odd), {"gpus": 1}, {"datasheet": 5, "unknown": 1})
    assert str(report).splitlines() == [
        "error: gpus/toy: power.tdp: '0 W' is not positive [ranges]",
        "warning: gpus/toy: peak: dense? [cycle-rates]",
        "records: 1 gpus",
        "values: 5 datasheet, 1 unknown",
        "findings: 1 errors, 1 warnings",
    ]
    assert report.errors == (bad,)


@pytest.mark.parametrize("database", [{}, {"gpus": {}}])
def test_empty_database(database):
    report = check(database)
    assert report.findings == ()
    assert report.records == dict.fromkeys(KINDS, 0)
