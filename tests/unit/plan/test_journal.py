"""A journal gives back what it took, bit for bit, wherever it was torn; digests name contents."""

import enum
import functools
import json
import math
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.core.errors import DataError, UsageError
from perfmodel.plan import journal as module
from perfmodel.plan.journal import Journal, digest
from tests.unit.plan import work

ROOT = Path(__file__).parents[3]
ROWS = {
    "a": {"x": 0.1 + 0.2, "n": 3, "name": 'quo"te, é \n', "none": None},
    "b": {"x": math.nan, "big": 10**30, "inf": -math.inf, "zero": -0.0},
    "c": {},
}


def bits(row):
    """A row in a form where nan equals itself and -0.0 is not 0.0."""
    return {
        name: struct.pack("d", value) if isinstance(value, float) else value
        for name, value in row.items()
    }


def written(path):
    with Journal(path, work.row) as made:
        for key, row in ROWS.items():
            made.add(key, row)
    return path.read_bytes()


def test_rows_come_back_bit_for_bit(tmp_path):
    text = written(tmp_path / "j")
    with Journal(tmp_path / "j", work.row) as again:
        assert list(again.rows) == list(ROWS)
        for key, row in ROWS.items():
            assert bits(again.rows[key]) == bits(row)
    assert (tmp_path / "j").read_bytes() == text


def test_a_journal_torn_at_any_byte_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "j"
    text = written(path)
    ends = [i + 1 for i, byte in enumerate(text) if byte == ord("\n")]
    assert len(ends) == 1 + len(ROWS)
    for cut in range(len(text) + 1):
        path.write_bytes(text[:cut])
        with Journal(path, work.row) as torn:
            whole = max(sum(end <= cut for end in ends) - 1, 0)
            assert list(torn.rows) == list(ROWS)[:whole], cut
            for key in list(ROWS)[whole:]:
                torn.add(key, ROWS[key])
        assert path.read_bytes() == text


def test_numpy_values_are_written_as_numbers(tmp_path):
    with Journal(tmp_path / "j", work.row) as made:
        made.add("a", {"f": np.float64(0.1), "i": np.int64(3), "b": np.True_})
        assert made.rows["a"] == {"f": 0.1, "i": 3, "b": True}
        assert [type(value) for value in made.rows["a"].values()] == [float, int, bool]


def test_rows_of_other_things_are_refused(tmp_path):
    with Journal(tmp_path / "j", work.row) as made:
        with pytest.raises(UsageError, match=r"'x' is \[1\]"):
            made.add("a", {"x": [1]})
        assert made.rows == {}


@pytest.mark.parametrize(
    "text", ["rate,ttft\n1,2\n", "{}\n", "[1]\n", "no newline", '{"format":1}\n']
)
def test_other_files_stay_as_they_are(tmp_path, text):
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="another kind of file"):
        Journal(path, work.row)
    assert path.read_text() == text


def test_a_journal_of_other_work_is_refused(tmp_path, monkeypatch):
    text = written(tmp_path / "j")
    with pytest.raises(DataError, match="rows of another function"):
        Journal(tmp_path / "j", work.noisy)
    monkeypatch.setattr(module, "VERSION", "99.9")
    with pytest.raises(DataError, match="another version"):
        Journal(tmp_path / "j", work.row)
    assert (tmp_path / "j").read_bytes() == text


@pytest.mark.parametrize("line", [b"garbage", b'{"task":"a"}', b'["a"]', b'{"task":"a","row":1}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "j"
    lines = written(path).split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match="line 3: is damaged"):
        Journal(path, work.row)
    assert path.read_bytes() == b"\n".join(lines)


def test_places_that_take_no_journal(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "j"):
        with pytest.raises(DataError, match=f"^journal {path}: "):
            Journal(path, work.row)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_a_device_is_no_journal():
    with pytest.raises(DataError, match="/dev/zero: is not a regular file"):
        Journal(Path("/dev/zero"), work.row)


@pytest.mark.parametrize("room", [0, 20])
def test_a_full_disk_loses_one_row(tmp_path, room):
    """A limit on file sizes stands for the disk: the row is cut, and gone when it is opened."""
    resource = pytest.importorskip("resource")
    text = written(tmp_path / "j")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / "j", work.row) as made:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(text) + room, before[1]))
        try:
            with pytest.raises(DataError, match=f"^journal {tmp_path / 'j'}: .*(large|part)"):
                made.add("d", ROWS["a"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "d" not in made.rows
    assert len((tmp_path / "j").read_bytes()) == len(text) + room
    with Journal(tmp_path / "j", work.row) as again:
        assert list(again.rows) == list(ROWS)


# -- digests -----------------------------------------------------------------------------------


class Kind(enum.Enum):
    A = 1


class OtherKind(enum.IntEnum):
    A = 1


@dataclass(frozen=True)
class Point:
    x: float
    y: object = None


@dataclass(frozen=True)
class Other:
    x: float
    y: object = None


DIFFERENT = [
    None, True, 1, 1.0, "1", b"1", 2, -0.0, 0.0, math.nan, math.inf, 1j, "", (), {}, set(), [1],
    [1.0], [[1]], [1, 2], [2, 1], ["12"], ["1", "2"], {1: 2}, {2: 1}, {1}, {1, 2}, {"a": [1]},
    Kind.A, OtherKind.A, Point(1), Point(1.0), Point(1.0, 2), Other(1.0), np.zeros(2),
    np.zeros(2, np.float32), np.zeros((2, 1)), np.zeros((1, 2)), np.ones(2),
    PurePosixPath("1"), Point, work.row, work.noisy, functools.partial(work.row, 1),
    functools.partial(work.row, 2), functools.partial(work.row, x=1), abs,
]  # fmt: skip


def test_different_contents_have_different_digests():
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_equal_contents_have_equal_digests():
    alike = [
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [(1, 2), [1, 2]],
        [{3, 1, 2}, frozenset([2, 3, 1])],
        [np.float64(0.1), 0.1],
        [np.int32(3), 3],
        [np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))],
        [Point(np.float64(2.0)), Point(2.0)],
        [math.nan, float("nan")],
    ]
    for one, other in alike:
        assert digest(one) == digest(other)


KNOWN = {"rate": 2.5, "seeds": [1, 2], "tags": {"b", "a"}, "none": None}


def test_digests_are_the_same_everywhere_and_for_ever():
    """The value is kept, so that journals outlive changes of the code; set order is random."""
    code = f"from perfmodel.plan.journal import digest; print(digest({KNOWN!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert digest(KNOWN) == done.stdout.strip() == "7d28192cbeea731e43ad9d93bf0786d5"


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(trees, trees)
def test_digests_tell_json_trees_apart(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) is same


@pytest.mark.parametrize("value", [object(), [object()], {"a": iter([])}, np.array([object()])])
def test_things_without_contents_are_refused(value):
    with pytest.raises(UsageError, match="cannot tell one"):
        digest(value)


def test_functions_without_a_place_are_refused():
    with pytest.raises(UsageError, match="top level"):
        digest(lambda: 1)
