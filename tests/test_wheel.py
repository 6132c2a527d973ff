"""The wheel is complete: data, presets and all, and works with nothing of the checkout in reach."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASK = ["-m", "perfmodel", "estimate", "--model", "meta-llama/Llama-3.1-8B", "--gpu", "h100-sxm"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the checkout by its own backend, without a network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("perfmodel-*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel):
    folder = wheel.parent / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def installed(unpacked, tmp_path, *arguments):
    """Run Python far from the checkout with the unpacked wheel first on the path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PERFMODEL"))}
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(unpacked)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder: Path, *patterns: str) -> set[str]:
    found = (path for pattern in patterns for path in (ROOT / folder).rglob(pattern))
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_code_and_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert files(Path("perfmodel"), "*.py", "*.toml") <= names
    assert files(Path("hwdb"), "*.py", "*.toml", "*.json") <= names
    for folder, inside in (("app", "perfmodel/_app"), ("validate", "perfmodel_validate")):
        assert {name.replace(folder, inside, 1) for name in files(Path(folder), "*.py")} <= names
    assert "hwdb/gpus/nvidia/h100-sxm.toml" in names
    assert "hwdb/schema/gpus.json" in names
    assert "perfmodel/models/presets/meta-llama--Llama-3.1-8B.toml" in names


def test_the_wheel_holds_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    (about,) = {top for top in tops if top.endswith(".dist-info")}
    assert tops == {"perfmodel", "hwdb", "perfmodel_validate", about}
    assert not [name for name in names if "test" in name or "__pycache__" in name]
    assert len(set(names)) == len(names)
    assert {f"{about}/licenses/LICENSE", f"{about}/entry_points.txt"} <= set(names)


def test_the_library_works_from_the_wheel(unpacked, tmp_path):
    code = """
import json, hwdb, perfmodel, perfmodel_validate, perfmodel._app
from perfmodel.models import preset
answer = perfmodel.estimate(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm")
print(json.dumps({"files": [perfmodel.__file__, hwdb.__file__, perfmodel_validate.__file__],
                  "tpot": answer.results()["tpot_ms"], "presets": len(preset.ids()),
                  "records": {kind: len(hwdb.ls(kind)) for kind in hwdb.records.KINDS}}))
"""
    import hwdb
    import perfmodel
    from perfmodel.models import preset

    told = json.loads(installed(unpacked, tmp_path, "-c", code))
    for path in told["files"]:
        assert Path(path).is_relative_to(unpacked)
    here = perfmodel.estimate(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm")
    assert told["tpot"] == here.results()["tpot_ms"]
    assert told["presets"] == len(preset.ids())
    assert set(told["records"]) == set(hwdb.records.KINDS)
    assert min(told["records"].values()) > 0


def test_the_command_line_works_from_the_wheel(unpacked, tmp_path):
    answer = json.loads(installed(unpacked, tmp_path, *ASK, "--json"))
    assert answer["results"]["feasible"] is True
    assert "TPOT" in installed(unpacked, tmp_path, *ASK)
    assert "h100-sxm" in installed(unpacked, tmp_path, "-m", "perfmodel", "hw", "ls")
    assert "0 errors" in installed(unpacked, tmp_path, "-m", "perfmodel", "hw", "check")
    assert list(tmp_path.iterdir()) == []
