"""The command line: commands by import path (loaded when used), errors to one line and a code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from perfmodel.core.errors import PerfmodelError
from perfmodel.core.version import VERSION

HELP = """How fast, how many GPUs, how much: before you rent one.

Exit codes: 0 answer, 2 usage, 3 infeasible (still an answer), 4 data missing, 5 outside the
validated range under --strict, 6 device failure, 130 interrupted, 1 bug.
"""

app = App(name="perfmodel", help=HELP, version=VERSION, help_format="plaintext")
app.command("perfmodel.cli.estimate:command", name="estimate",
            help="Predict latency, throughput, memory, energy and cost.")  # fmt: skip
app.command("perfmodel.cli.explain:command", name="explain",
            help="Show the formulas, numbers and sources behind a result.")  # fmt: skip
app.command("perfmodel.cli.simulate:command", name="simulate",
            help="Serve requests step by step: percentiles, queues, preemptions.")  # fmt: skip
app.command("perfmodel.cli.hw:app", name="hw", help="Hardware database: ls, show, check.")
app.command("perfmodel.cli.model:app", name="model", help="Model architectures: ls, show.")
app.command("perfmodel.cli.techniques:app", name="techniques", help="What-if levers: ls.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code, with one line on stderr where it failed."""
    try:
        app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()), 2)
    except PerfmodelError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output left; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1
    return 0


def _fail(message: str, code: int) -> int:
    print(f"perfmodel: {message}", file=sys.stderr)
    return code
