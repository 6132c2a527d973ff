"""One exception tree; each class carries the exit code the command line answers with.

Exit codes: 0 answer, 1 bug, 2 usage, 3 infeasible (still an answer), 4 data missing, 5 outside the
validated range under ``--strict``, 6 device failure, 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PerfmodelError(Exception):
    """Anything a user can put right; the message is one line saying what, where and how."""

    exit_code = 1


class UsageError(PerfmodelError, ValueError):
    """A question that cannot be asked so: bad flag, value out of range, unknown name."""

    exit_code = 2


class DataError(UsageError):
    """A file or name given as input that cannot be read or found."""


class InfeasibleError(PerfmodelError):
    """The answer is "it cannot work": does not fit, no such datapath, no legal layout.

    ``reason`` is a code of `perfmodel.core.types.Reason`; ``nearest`` the nearest feasible change.
    """

    exit_code = 3

    def __init__(self, message: str, reason: str, nearest: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.nearest = nearest


class MissingDataError(PerfmodelError, LookupError):
    """A fact is needed that the database does not have; the message says how to supply it."""

    exit_code = 4


class ValidityError(PerfmodelError):
    """``--strict`` was asked for and the point lies outside what was validated."""

    exit_code = 5


class DeviceError(PerfmodelError):
    """Machinery failed: a measurement device, or the workers that runs are spread over."""

    exit_code = 6


def near(name: str, known: Iterable[str]) -> str:
    """``"; nearest: a, b"`` or nothing, to append to a message about an unknown name.

    >>> near("lama", ["llama", "qwen"])
    '; nearest: llama'
    """
    options = {option.lower(): option for option in known}
    close = difflib.get_close_matches(name.lower(), options, n=3, cutoff=0.4)
    return f"; nearest: {', '.join(options[c] for c in close)}" if close else ""
