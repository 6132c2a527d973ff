"""The bar appears on a terminal's stderr, after a while, and nowhere else."""

import contextlib
import io
import re

import pytest

from perfmodel.plan.progress import Bar

COLOR = r"\x1b\[([0-9]+;)*[349][0-9]"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def xterm(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def seen(*, delay=0.001, wait=True):
    """What a terminal is sent while two of eight tasks end."""
    with contextlib.redirect_stderr(Terminal()) as terminal:
        with Bar("simulating", delay=delay) as bar:
            bar(3, 8)
            if wait:
                bar._timer.join()  # until the delay is over and the bar is there
            bar(5, 8)
            timer = bar._timer
        timer.join()
    return terminal.getvalue()


def test_a_terminal_sees_label_and_counts(capsys):
    said = seen()
    assert re.search("simulating.*5/8", said)
    assert said.endswith("\x1b[2K")  # erased at the end
    assert re.search(COLOR, said)
    assert capsys.readouterr() == ("", "")


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    said = seen()
    assert "simulating" in said
    assert not re.search(COLOR, said)


def test_a_dumb_terminal_sees_nothing(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert seen() == ""


def test_short_work_shows_nothing():
    assert seen(delay=600, wait=False) == ""


def test_no_terminal_sees_nothing(capsys):
    with Bar("simulating", delay=0) as bar:
        bar(1, 2)
        assert bar._timer is None
    assert capsys.readouterr() == ("", "")


def test_an_error_restores_the_terminal():
    terminal = Terminal()
    with contextlib.redirect_stderr(terminal):
        bar = Bar("simulating", delay=0.001)
        with contextlib.suppress(ValueError), bar:
            bar._timer.join()
            raise ValueError
    said = terminal.getvalue()
    assert said.count("\x1b[?25h") == said.count("\x1b[?25l") == 1  # the cursor is back
