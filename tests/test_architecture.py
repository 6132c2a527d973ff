"""The shape of the code base: layers, sizes, docstrings, what an import costs, and the linters."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("perfmodel", "hwdb", "app", "validate")
LONGEST = {"perfmodel": 400, "hwdb": 400, "app": 400, "validate": 400, "tests": 500,
           "benchmarks": 400}  # fmt: skip
FILES = sorted(
    path for folder in LONGEST for path in (ROOT / folder).rglob("*.py") if path.is_file()
)
SOURCES = [path for path in FILES if path.relative_to(ROOT).parts[0] in PACKAGES]


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=[str(p.relative_to(ROOT)) for p in paths])


def python(code: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(module: str, *arguments: str) -> None:
    """Run a linter of the dev extra; without it the skip is seen in the summary."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install -e '.[dev]'")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    if module == "pyright" and "fail" in said and "nodejs" in said.lower():
        pytest.skip("pyright could not fetch its engine: offline")
    assert done.returncode == 0, said


def test_dependencies_run_one_way():
    pytest.importorskip("importlinter")
    code = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    assert "0 broken" in python(code)


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 60
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)


@named(FILES)
def test_files_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST[path.relative_to(ROOT).parts[0]], f"{lines} lines"


@named(SOURCES)
def test_modules_say_what_they_hold(path):
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc, "no docstring"
    assert len(doc.splitlines()[0]) > 15


@named(sorted({path.parent for path in SOURCES}))
def test_folders_with_modules_are_packages(path):
    assert (path / "__init__.py").is_file()


def test_the_model_needs_no_device_and_no_browser():
    """All of perfmodel and hwdb is imported, and used, without torch, triton or streamlit."""
    code = """
import importlib, json, pkgutil, sys
import hwdb, perfmodel
count = 0
for package in (perfmodel, hwdb):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__") and "._app" not in found.name:
            importlib.import_module(found.name)
            count += 1
perfmodel.sweep(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", isl=[1, 2])
perfmodel.explain("tpot", model="meta-llama/Llama-3.1-8B", gpu="h100-sxm")
print(json.dumps([count, sorted(sys.modules)]))
"""
    count, loaded = json.loads(python(code))
    assert count > 50
    assert not {"torch", "triton", "streamlit", "plotly", "matplotlib"} & set(loaded)


def test_importing_perfmodel_loads_nothing_heavy():
    loaded = json.loads(
        python("import json, sys, perfmodel; print(json.dumps(sorted(sys.modules)))")
    )
    assert "perfmodel" in loaded
    assert not {"numpy", "scipy", "sympy", "pandas", "pydantic", "rich", "cyclopts"} & set(loaded)


def test_estimating_loads_no_algebra():
    """SymPy and pandas are for those who ask for LaTeX and frames."""
    code = """
import json, sys, perfmodel
perfmodel.estimate(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm").results()
print(json.dumps(sorted(sys.modules)))
"""
    assert not {"sympy", "pandas", "scipy"} & set(json.loads(python(code)))


def test_ruff_check():
    tool("ruff", "check", "--no-cache", ".")


def test_ruff_format():
    tool("ruff", "format", "--no-cache", "--check", ".")


@pytest.mark.slow
def test_pyright_strict():
    # named, so that no pyrightconfig.json of a folder above is taken instead
    tool("pyright", "--project", str(ROOT / "pyproject.toml"))
