"""The file edge: every problem of a file at once, the rules of a cited value, the JSON Schemas."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

import hwdb
from hwdb import schema
from hwdb.records import KINDS

ROOT = Path(hwdb.__file__).parent
FILES = sorted(path for kind in KINDS for path in (ROOT / kind).rglob("*.toml"))


def test_all_problems_are_reported_with_their_paths(write):
    write(
        "gpus/acme/bad",
        'base = "toy"\nomit = ["node"]\nreleasd = "2024-01"\n[memory]\ntype = 3\n'
        'bandwidth = { value = "3 W", source = "ds" }\ncapacity = "80 GB"\n'
        '[peak]\nbf61 = { value = "1 TFLOP/s", source = "ds" }\n'
        'bf16 = { value = "990 TFLOP/s", source = "ds", kind = "guessed" }\n'
        '[power]\ntdp = { value = "700 W", source = "ds", page = 3 }\n',
    )
    with pytest.raises(hwdb.HwdbError) as caught:
        hwdb.gpu("bad")
    lines = str(caught.value).splitlines()
    told = {line.split(": ")[1]: line for line in lines}
    assert {
        "node", "releasd", "memory.type", "memory.bandwidth", "memory.capacity",
        "peak.bf61.[key]", "peak.bf16.kind", "power.tdp.page",
    } <= set(told)  # fmt: skip
    assert all(line.startswith("bad.toml: ") for line in lines)
    assert "unknown key" in told["releasd"]
    assert "needs bytes/s" in told["memory.bandwidth"]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('{ value = "7 W", source = "ds", kind = "recalled", note = "n" }', "two sources"),
        (
            '{ value = "7 W", source = "ds", kind = "recalled", note = "n", checked = ["ds"] }',
            "two sources",
        ),
        (
            '{ value = "7 W", source = "ds", kind = "recalled", checked = ["ds", "ds"] }',
            "needs a note",
        ),
        ('{ value = "7 W", source = "ds", kind = "derived" }', "needs a note"),
        ('{ value = "7 W", source = "ds", kind = "estimated" }', "needs low and high"),
        (
            '{ value = "7 W", source = "ds", kind = "estimated", low = "6 W" }',
            "needs low and high",
        ),
        (
            '{ value = "7 W", source = "ds", kind = "estimated", low = "8 W", high = "9 W" }',
            "around its value",
        ),
        (
            '{ value = "7 W", source = "ds", kind = "estimated", low = "8 s", high = "9 W" }',
            "needs W",
        ),
        ('{ value = "7 W", source = "ds", kind = "modified" }', "never written in a file"),
        ('{ value = "7 W" }', "needs a source"),
        ('{ source = "ds" }', "needs value"),
        ("{}", "needs value"),
        ('{ value = "7 W", source = "ds", unknown = "why" }', "both value and unknown"),
        ('{ value = 7, source = "ds" }', "valid string"),
        ('{ value = "7", source = "ds" }', "has unit of 1, needs W"),
        ('{ value = "7 W", source = "other" }', "source 'other' is not in [sources]"),
        (
            '{ value = "7 W", source = "ds", note = "n", checked = ["ds", "gone"] }',
            "source 'gone' is not in [sources]",
        ),
        ("7", "power.tdp"),
    ],
)
def test_cited_value_is_refused(write, entry, says):
    write("gpus/acme/bad", f'base = "toy"\n[power]\ntdp = {entry}\n')
    with pytest.raises(hwdb.HwdbError, match=r"^bad\.toml: power\.tdp") as caught:
        hwdb.gpu("bad")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        '{ value = "7 W", source = "ds" }',
        '{ value = "7 W", source = "ds", kind = "estimated", low = "5 W", high = "9 W" }',
        '{ value = "7 W", source = "ds", kind = "derived", note = "twice 3.5 W" }',
        '{ value = "7 W", source = "ds", kind = "recalled", note = "n", checked = ["ds", "b"] }',
    ],
)
def test_cited_value_is_accepted(write, entry):
    write(
        "gpus/acme/good",
        f'base = "toy"\n[power]\ntdp = {entry}\n[sources.b]\ntitle = "b"\n'
        'url = "https://example.org/b"\naccessed = "2026-11-23"\nkind = "table"\n',
    )
    assert hwdb.gpu("good").power.tdp.value == 7


def test_id_and_vendor_come_from_the_path(write):
    write("gpus/acme/good", 'base = "toy"\nid = "liar"\nvendor = "liar"')
    assert (hwdb.gpu("good").id, hwdb.gpu("good").vendor) == ("good", "acme")


@pytest.mark.parametrize("kind", KINDS)
def test_committed_json_schema_is_the_generated_one(kind, tmp_path):
    schema.write_schemas(tmp_path)
    committed, generated = (folder / f"{kind}.json" for folder in (ROOT / "schema", tmp_path))
    assert committed.read_text() == generated.read_text(), "run hwdb.schema.write_schemas"
    assert generated.read_text().endswith("}\n")


@pytest.fixture(scope="module")
def validators():
    found = {}
    for kind in KINDS:
        rules = json.loads((ROOT / "schema" / f"{kind}.json").read_text())
        jsonschema.Draft202012Validator.check_schema(rules)
        found[kind] = jsonschema.Draft202012Validator(rules)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_file_satisfies_its_json_schema(path, validators):
    kind = path.relative_to(ROOT).parts[0]
    validators[kind].validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_file_names_its_json_schema(path):
    head = path.read_text().splitlines()[0]
    assert head.startswith("#:schema ")
    target = (path.parent / head.removeprefix("#:schema ")).resolve()
    assert target == ROOT / "schema" / f"{path.relative_to(ROOT).parts[0]}.json"


@pytest.mark.parametrize(
    "text",
    [
        'releasd = "2024-01"',
        "[memory]\nbandwidth = 3",
        '[peak]\nbf61 = { value = "1 TFLOP/s" }',
        '[power]\ntdp = { value = "1 W", kind = "guessed" }',
        '[sources.a]\ntitle = "no url"',
        'vendor = "acme"',
    ],
)
def test_json_schema_refuses_what_the_loader_refuses(text, validators):
    assert not validators["gpus"].is_valid(tomllib.loads(text))


def test_json_schema_lets_a_variant_override_one_leaf(validators):
    variant = 'base = "toy"\n[memory]\ncapacity = { value = "141 GB", source = "ds" }\n'
    validators["gpus"].validate(tomllib.loads(variant))
