"""Finding files (ids, aliases, user folders, plugins), inheritance, and one-line refusals."""

import dataclasses
import math
import types

import numpy as np
import pytest

import hwdb
from hwdb import load
from hwdb.units import UnitError


def test_shipped_ids_and_aliases_are_forgiving():
    assert hwdb.gpu("H100_SXM") is hwdb.gpu("nvidia/h100-sxm") is hwdb.gpu(" h100 sxm ")
    assert "h100-sxm" in hwdb.ls("gpus")


def test_user_folder_adds_to_the_shipped_files(write):
    toy = hwdb.gpu("toy")
    assert (toy.id, toy.vendor, hwdb.gpu("TOY_alias")) == ("toy", "acme", toy)
    assert {"toy", "h100-sxm"} <= set(hwdb.ls("gpus"))
    assert toy.memory.bandwidth.value == 3.35e12


def test_file_names_may_be_written_like_names(write):
    write("gpus/acme/My_GPU", 'base = "toy"')
    assert hwdb.gpu("My_GPU").id == "my-gpu"
    assert "my-gpu" in hwdb.ls("gpus")


def test_missing_user_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(load.USER_FOLDER, str(tmp_path / "nowhere"))
    with pytest.raises(hwdb.HwdbError, match=r"PERFMODEL_HWDB=.*nowhere is not a folder"):
        hwdb.ls("gpus")


def test_packages_add_files_through_an_entry_point(tmp_path, monkeypatch, write):
    plugin = tmp_path / "plugin"
    (plugin / "gpus/acme").mkdir(parents=True)
    (plugin / "gpus/acme/plugged.toml").write_text('base = "toy"\nname = "Plugged"\n')
    module = types.SimpleNamespace(__path__=[str(plugin)])
    point = types.SimpleNamespace(load=lambda: module)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    load._plugins.cache_clear()
    try:
        # The plugin lies inside the user folder, which is searched for gpus/, not for plugin/gpus/.
        assert hwdb.gpu("plugged").name == "Plugged"
    finally:
        load._plugins.cache_clear()


def test_one_id_in_two_files(write):
    write("gpus/other/h100-sxm", 'base = "toy"')
    with pytest.raises(hwdb.HwdbError, match="define the same id 'h100-sxm'") as caught:
        hwdb.gpu("toy")
    assert str(caught.value).count("h100-sxm.toml") == 2


@pytest.mark.parametrize("name", ["toi", "acme/tuy", "TOY2"])
def test_near_names_are_offered(write, name):
    with pytest.raises(hwdb.NotFound, match=r"no gpu named .*nearest: .*\btoy\b"):
        hwdb.gpu(name)


def test_name_like_no_other_gets_no_hint(write):
    with pytest.raises(hwdb.NotFound) as caught:
        hwdb.gpu("zzzzzzzzzz")
    assert "nearest" not in str(caught.value)


def test_unknown_kind():
    with pytest.raises(hwdb.NotFound, match="kinds are gpus, cpus, nodes"):
        hwdb.ls("gpu")


# ---- inheritance ---------------------------------------------------------------------------------


def test_variant_overrides_only_what_it_says(write):
    write(
        "gpus/acme/toy-big",
        'base = "toy"\nname = "Toy big"\n[memory]\n'
        'capacity = { value = "141 GB", source = "ds" }\n'
        'bandwidth = { value = "4.8 TB/s", source = "ds" }\n',
    )
    toy, big = hwdb.gpu("toy"), hwdb.gpu("toy-big")
    assert (big.id, big.name, big.released) == ("toy-big", "Toy big", toy.released)
    assert (big.memory.capacity.value, big.memory.type) == (141e9, "HBM3")
    assert big.peak["bf16"].value == toy.peak["bf16"].value
    assert big.peak["bf16"].where == "toy-big: gpu.peak.bf16"
    assert big.sources == toy.sources


def test_cited_value_replaces_its_ancestor_whole(write):
    """A new figure must not keep the old one's note, nor an unknown the old value."""
    write(
        "gpus/acme/cut",
        'base = "toy"\n[memory]\nbandwidth = { value = "4 TB/s", source = "ds" }\n'
        '[power]\ntdp = { unknown = "secret" }\nidle = { value = "60 W", source = "ds" }',
    )
    cut = hwdb.gpu("cut")
    assert hwdb.gpu("toy").memory.bandwidth.note == "read twice"
    assert cut.memory.bandwidth.note == ""
    assert not cut.power.tdp.known
    assert cut.power.idle.value == 60


def test_aliases_are_not_inherited(write):
    write("gpus/acme/a-variant", 'base = "toy"')
    assert hwdb.gpu("a-variant").aliases == ()
    assert hwdb.gpu("toy-alias").id == "toy"


def test_omit_drops_a_table_of_the_base(write):
    write("gpus/acme/lone", 'base = "toy"\nomit = ["scale_up"]')
    assert hwdb.gpu("lone").scale_up is None
    assert hwdb.gpu("toy").scale_up.fabric == "toy-link"


@pytest.mark.parametrize("omit", ['["scaleup"]', '"memroy"', "5", '["aliases"]'])
def test_omit_of_what_is_not_there(write, omit):
    write("gpus/acme/lone", f'base = "toy"\nomit = {omit}')
    with pytest.raises(hwdb.HwdbError, match=r"lone\.toml: omit lists keys of 'toy'; it has no"):
        hwdb.gpu("lone")


def test_variants_may_be_stacked_four_deep(write):
    parent = "toy"
    for child in ("v1", "v2", "v3", "v4"):
        write(f"gpus/acme/{child}", f'base = "{parent}"\nname = "{child}"')
        parent = child
    write("gpus/acme/v5", 'base = "v4"')
    assert hwdb.gpu("v4").power.tdp.value == 700
    with pytest.raises(hwdb.HwdbError, match="bases nest too deep"):
        hwdb.gpu("v5")


@pytest.mark.parametrize("bases", [{"a1": "a1"}, {"a1": "a2", "a2": "a1"}])
def test_circular_bases(write, bases):
    for name, base in bases.items():
        write(f"gpus/acme/{name}", f'base = "{base}"')
    with pytest.raises(hwdb.HwdbError, match="bases nest too deep"):
        hwdb.gpu("a1")


def test_missing_base(write):
    write("gpus/acme/orphan", 'base = "gone"')
    with pytest.raises(hwdb.HwdbError, match=r"orphan\.toml: base 'gone': no such base"):
        hwdb.gpu("orphan")


# ---- values --------------------------------------------------------------------------------------


def test_unknown_value_loads_and_names_itself_when_used(write):
    idle = hwdb.gpu("toy").power.idle
    assert not idle.known
    assert math.isnan(idle.si)
    with pytest.raises(hwdb.UnknownValue) as caught:
        _ = idle.value
    assert str(caught.value) == (
        "toy: gpu.power.idle is unknown (never published); "
        "supply it with --set gpu.power.idle=VALUE"
    )


def test_cited_walks_every_value(write):
    paths = [path for path, _ in load.cited(hwdb.gpu("toy"))]
    assert paths == [
        "memory.capacity",
        "memory.bandwidth",
        "peak.bf16",
        "power.tdp",
        "power.idle",
        "scale_up.bandwidth",
    ]


def test_modify_gives_a_marked_copy(write):
    toy = hwdb.gpu("toy")
    fast = hwdb.modify(toy, "memory.bandwidth", "4 TB/s")
    new = fast.memory.bandwidth
    assert (new.value, new.kind, new.text, new.source) == (4e12, "modified", "4 TB/s", "")
    assert toy.memory.bandwidth.value == 3.35e12
    assert hwdb.modify(toy, "power.idle", 50.0).power.idle.value == 50


def test_modify_takes_arrays_and_new_dtypes(write):
    toy = hwdb.gpu("toy")
    family = hwdb.modify(toy, "memory.bandwidth", np.array([1e12, 2e12]))
    np.testing.assert_array_equal(family.memory.bandwidth.value, [1e12, 2e12])
    assert hwdb.modify(toy, "peak.fp8", "2 PFLOP/s").peak["fp8"].value == 2e15
    assert set(toy.peak) == {"bf16"}


def test_modify_reaches_into_lists(write):
    write(
        "prices/toy",
        'name = "Toy"\nsources.s = { title = "t", url = "https://example.org", '
        'accessed = "2026-11-23" }\noffers = [{ seller = "a", term = "spot", gpus = 1, '
        'date = "2026-11-01", rent = { value = "2 USD/h", source = "s" } }]',
    )
    cheaper = hwdb.modify(hwdb.prices("toy"), "offers.0.rent", "1 USD/h")
    assert cheaper.offers[0].rent.value == 1 / 3600
    assert cheaper.offers[0].seller == "a"


@pytest.mark.parametrize("path", ["memory.bandwith", "peak.bf61", "vector.fp32", "name", ""])
def test_modify_of_no_such_field(write, path):
    with pytest.raises(hwdb.NotFound, match=f"toy has no cited field {path!r}; nearest: "):
        hwdb.modify(hwdb.gpu("toy"), path, "1 TB/s")


def test_modify_with_a_wrong_unit(write):
    with pytest.raises(UnitError, match="has unit of W, needs bytes/s"):
        hwdb.modify(hwdb.gpu("toy"), "memory.bandwidth", "700 W")


def test_records_are_frozen(write):
    with pytest.raises(dataclasses.FrozenInstanceError):
        hwdb.gpu("toy").name = "other"


# ---- files that are not files of ours ------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'name = "cut of', "bad.toml: Unterminated string"),
        (b"\xff\xfe broken", "bad.toml: 'utf-8' codec can't decode"),
        (b"# " + b"x" * 1_000_000, "bad.toml: larger than 1000000 bytes"),
        (b"a = " + b"[" * 100_000, "bad.toml: "),
        (b"a = 1\na = 2", "bad.toml: Cannot overwrite a value"),
    ],
)
def test_unreadable_file(write, content, says):
    write("gpus/acme/bad", content)
    with pytest.raises(hwdb.HwdbError) as caught:
        hwdb.gpu("bad")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_named_like_a_file(write, tmp_path):
    (tmp_path / "gpus/acme/bad.toml").mkdir()
    with pytest.raises(hwdb.HwdbError, match=r"bad\.toml"):
        hwdb.gpu("bad")


def test_wrongly_typed_aliases_do_not_break_the_search(write):
    write("gpus/acme/bad", 'base = "toy"\naliases = 5')
    assert hwdb.gpu("toy-alias").id == "toy"
    with pytest.raises(hwdb.HwdbError, match=r"bad\.toml: aliases: Input should be a valid tuple"):
        hwdb.gpu("bad")
