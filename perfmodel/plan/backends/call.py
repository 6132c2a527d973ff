"""`Call`: one task on its way to a worker, and what comes back of it.

Answers are pickled here and not by the backend, so that a result or an exception that cannot travel
is the task's failure and not the worker's, and arrives alike from everywhere.
"""

from __future__ import annotations

import importlib
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from perfmodel.core.errors import UsageError

R = TypeVar("R")

# Set in worker processes before NumPy is imported: the processes are the parallelism.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
     "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"), "1",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What became of one task: a value, or the exception that the function raised."""

    value: R | None = None
    error: BaseException | None = None

    def get(self) -> R:
        """Return the value, or raise the function's own exception."""
        if self.error is not None:
            raise self.error
        return cast(R, self.value)


@dataclass(frozen=True, slots=True, eq=False)  # a task need not be hashable, its call is
class Call:
    """One function with one task; called in a worker, it gives what `unpacked` reads."""

    function: Callable[[Any], Any]
    task: Any

    def __call__(self) -> bytes:
        """Run the function; its exception is an answer too."""
        try:
            return pickle.dumps((self.function(self.task), None), pickle.HIGHEST_PROTOCOL)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return _pack(error)


def unpacked(answer: bytes) -> Outcome[Any]:
    """Outcome that a `Call` has packed in a worker."""
    value, recipe = pickle.loads(answer)
    if recipe is None:
        return Outcome(value)
    kind, given, args, state = recipe
    try:
        error = kind(*given)
    except Exception:
        error = kind.__new__(kind, *given)
    error.args = args
    error.__dict__.update(state)
    return Outcome(error=error)


def load(module: str) -> Any:
    """Import an optional library, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise UsageError(
            f"this needs {name}, which is not installed: pip install 'perfmodel[distributed]'"
        ) from None


def cannot_send(error: BaseException) -> UsageError:
    """Say in one line that work does not pickle, or that workers cannot import it."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    # a cause that comes from another process is the text of a traceback: its last line counts
    said = str(error).strip(' \n"').rpartition("\n")[2]
    return UsageError(
        "the work cannot be sent to worker processes; the function and its tasks must pickle and "
        f"come from modules that workers can import: {said[:200]}"
    )


def _pack(error: BaseException) -> bytes:
    """Pickled recipe of an exception; the traceback travels as a note.

    Not pickle's own: it calls the class with ``args``, which need not be what ``__init__`` takes.
    """
    error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    reduced: Any = error.__reduce__()
    recipe = (reduced[0], reduced[1], error.args, error.__dict__)
    try:
        packed = pickle.dumps((None, recipe), pickle.HIGHEST_PROTOCOL)
        unpacked(packed)
    except Exception:  # whatever the methods of a stranger's class may raise
        said = f"{type(error).__name__}: {error}"
        return pickle.dumps((None, (RuntimeError, (said,), (said,), {})))
    return packed
