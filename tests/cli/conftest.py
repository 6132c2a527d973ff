"""One command line, run in this process."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from perfmodel.cli.main import run


@dataclass(frozen=True)
class Said:
    """What a command line answered: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Stdout as strict JSON: no NaN, no Infinity, nothing around it."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


Perfmodel = Callable[[str], Said]


@pytest.fixture
def perfmodel(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Perfmodel:
    """Runs the words of one command line; the database is the shipped one unless a test says so."""
    monkeypatch.delenv("PERFMODEL_HWDB", raising=False)

    def answer(line: str) -> Said:
        capsys.readouterr()
        code = run(shlex.split(line))
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return answer
