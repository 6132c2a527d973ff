"""Measured tables: what is read, what is set aside, and one line for what is wrong."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibrate.table import counts, read_table, usable
from perfmodel.core.errors import DataError

TEXT = "system,m,latency_us,eager,suspect\na,1,2.5,0,0\nb,2,3.5,1,0\na,4,4.5,1,1\na,8,5.5,0,1\n"


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_columns_are_numbers_or_text(tmp_path: Path, name: str) -> None:
    table = read_table(written(tmp_path, TEXT, name), ("system", "m"))
    assert len(table) == 4
    assert table.text("system").tolist() == ["a", "b", "a", "a"]
    assert table.numbers("latency_us").tolist() == [2.5, 3.5, 4.5, 5.5]
    assert table.lines.tolist() == [2, 3, 4, 5]


def test_marked_rows_are_set_aside_once(tmp_path: Path) -> None:
    kept, apart = usable(read_table(written(tmp_path, TEXT)))
    assert kept.numbers("m").tolist() == [1]
    assert {mark: rows.numbers("m").tolist() for mark, rows in apart.items()} == {
        "suspect": [4, 8],
        "eager": [2],
    }
    assert counts(apart) == "2 suspect, 1 eager"


def test_groups_partition_the_rows(tmp_path: Path) -> None:
    groups = read_table(written(tmp_path, TEXT)).groups(("system", "eager"))
    assert {key: part.numbers("m").tolist() for key, part in groups.items()} == {
        ("a", "0.0"): [1, 8],
        ("a", "1.0"): [4],
        ("b", "1.0"): [2],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty, wants a line of column names"),
        ("m,latency_us\n", "no rows below"),
        ("m,m,latency_us\n1,2,3\n", "two columns are called 'm'"),
        ("m,latency_us\n1,2\n1\n", "table.csv:3: 1 fields, wants 2"),
        ("m,latency\n1,2\n", "no column 'latency_us'; nearest: latency"),
        ("m,latency_us\n1,2\n1,fast\n", "table.csv:3: latency_us is 'fast', not a number"),
        ("m,latency_us\n1,nan\n", "table.csv:2: latency_us is 'nan', not a number"),
        ("m,latency_us\n1,2\n\n1,0\n", "table.csv:4: latency_us is 0.0, must be above 0"),
    ],
)
def test_bad_tables_get_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(written(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_table(tmp_path / "missing.csv")
    (tmp_path / "plain.csv.gz").write_text(TEXT)
    with pytest.raises(DataError, match="not a gzip file"):
        read_table(tmp_path / "plain.csv.gz")
    whole = gzip.compress(TEXT.encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match="not a gzip file"):
        read_table(tmp_path / "cut.csv.gz")
    (tmp_path / "latin.csv").write_bytes(b"m,latency_us\n\xe9,2\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_table(tmp_path / "latin.csv")


def test_rows_are_kept_by_mask_or_index(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, TEXT))
    by_mask = table.where(np.array([True, False, False, True]))
    by_index = table.where(np.array([0, 3]))
    assert by_mask.lines.tolist() == by_index.lines.tolist() == [2, 5]
