"""What the documents say is so: commands run, output is current, nothing registered is left out."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hwdb.records import KINDS
from perfmodel.cli.main import app, run
from perfmodel.serving.metric import METRICS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE)
IGNORED = {".venv", ".git", "node_modules", ".pytest_cache"}
FOLDERS = sorted(
    path for path in ROOT.rglob("README.md") if path.parent != ROOT and not IGNORED & {*path.parts}
)


def fences(*languages: str) -> list[str]:
    return [found["body"] for found in FENCE.finditer(README) if found["language"] in languages]


def commands() -> list[str]:
    """Lines of console and bash fences that call perfmodel; set-up and output lines are not."""
    found: dict[str, None] = {}
    for body in fences("console", "bash"):
        for line in body.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").strip()
            if re.match(r"perfmodel(\s|$)", command):
                found[command] = None
    return list(found)


def subcommands(command=app, words=()) -> list[str]:
    """``hw ls`` and the like, from the parser itself."""
    names = [name for name in command if not name.startswith("-")]
    inner = [words] if words and not names else []
    return [" ".join(x) for x in inner] + [
        line for name in names for line in subcommands(command[name], (*words, name))
    ]


def test_the_parser_lists_its_commands():
    assert {"estimate", "explain", "hw ls", "hw show", "model ls", "techniques ls"} <= {
        *subcommands()
    }
    assert len(commands()) >= 4


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_readme_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERFMODEL_HWDB", raising=False)
    if re.search(r"[|;&<>$`]", command):  # needs a shell
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], env=os.environ | {"PATH": path},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return
    assert run(shlex.split(command)[1:]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("code", [body for body in fences("python") if "import perfmodel" in body])
def test_python_of_the_readme_runs(code, tmp_path):
    if "to_frame" in code:
        pytest.importorskip("pandas")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_cluster_file_of_the_readme_is_one(tmp_path):
    (text,) = fences("toml")
    path = tmp_path / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    asked = "--model meta-llama/Llama-3.1-8B --gpu h100-sxm --request-rate 5 --num-requests 200"
    assert run(["simulate", *asked.split(), "--cluster", str(path)]) == 0


def test_the_example_shows_what_the_program_prints(monkeypatch):
    monkeypatch.delenv("PERFMODEL_HWDB", raising=False)
    spec = importlib.util.spec_from_file_location("readme", ROOT / ".ci" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.current() == README, "run python .ci/readme.py"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_mentioned(name):
    assert re.search(rf"\b{name}(_{METRICS[name].suffix})?\b", README, re.IGNORECASE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_hardware_is_mentioned(kind):
    assert re.search(rf"\b{kind}\b", README, re.IGNORECASE)


@pytest.mark.parametrize("command", subcommands())
def test_every_command_is_mentioned(command):
    assert re.search(rf"\b{command}\b", README)


@pytest.mark.parametrize("path", FOLDERS, ids=[str(path.relative_to(ROOT)) for path in FOLDERS])
def test_readmes_of_folders_are_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert 3 <= len(lines) <= 30, f"{len(lines)} lines"
    assert lines[0].startswith("# ")


def test_links_into_the_repository_lead_somewhere():
    for path in (ROOT / "README.md", *FOLDERS):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (path.parent / target).exists(), f"{path}: {target}"


def test_ci_runs_the_test_command_of_the_readme():
    """``.ci/run`` extracts it with sed; here the Markdown is read, and both must agree."""
    marked = re.search(r"<!-- test -->\n```\w*\n(.*?)\n```", README, re.DOTALL)
    assert marked is not None
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extract = re.search(r"^command=\$\(.*\)$", script, re.MULTILINE)
    assert extract is not None
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'{extract[0]}\nprintf %s "$command"'],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == marked[1]
    assert "pytest" in done.stdout
    assert "'.[dev]'" in done.stdout
