"""The core's arrays by their addresses, which worlds, replicas and surfaces carry.

Functions of the core take records alone: numba passes an array as seven numbers, and a dozen arrays
through a dozen calls would cost more than what the functions do. `setup` keeps the arrays alive.
"""

# pyright: basic

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype, types
from numba.core.extending import intrinsic
from numba.np.arrayobj import populate_array

from perfmodel.serving.simulate.core.state import CALL, EVENT, REPLICA, SURFACE

_ENDLESS = 1 << 48  # the arrays' lengths are not needed: nothing is counted from their ends


def _viewer(dtype: Any) -> Any:
    """A function for compiled code that sees an array of ``dtype`` at an address."""
    array = types.Array(from_dtype(np.dtype(dtype)), 1, "C")
    width = np.dtype(dtype).itemsize

    def view(_typing, address):
        def make(context, builder, _signature, arguments):
            made = context.make_array(array)(context, builder)
            step = context.get_constant(types.intp, width)
            populate_array(
                made, data=builder.inttoptr(arguments[0], made.data.type),
                shape=[context.get_constant(types.intp, _ENDLESS)], strides=[step],
                itemsize=step, meminfo=None,
            )  # fmt: skip
            return made._getvalue()

        return array(address), make

    return intrinsic(view)


# Arrays at addresses; slots, places and ids count from their beginnings.
ints, reals = _viewer(np.int64), _viewer(np.float64)
int32s, int8s = _viewer(np.int32), _viewer(np.int8)
calls_at, replicas_at = _viewer(CALL), _viewer(REPLICA)
surfaces_at, events_at = _viewer(SURFACE), _viewer(EVENT)
