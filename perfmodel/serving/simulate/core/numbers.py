"""Small pieces of arithmetic: ticks, bins, draws, blocks, tables."""

# pyright: basic

from __future__ import annotations

import math

import numpy as np

from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.memory import reals
from perfmodel.serving.simulate.record import BINS, LOWEST, WIDTH

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = (np.uint64(shift) for shift in (30, 27, 31, 11))


@jit
def tick(time):
    """Time in whole nanoseconds."""
    return int(time * 1e9 + 0.5)


@jit
def bin_at(time):
    """Bin of a time, as `perfmodel.serving.simulate.record.bin_of`."""
    if time <= LOWEST:
        return 0
    return min(int(math.log(time / LOWEST) / WIDTH), BINS - 1)


@jit
def mix(number):
    """One round of splitmix64."""
    z = number + _GAMMA
    z = (z ^ (z >> _S30)) * _FIRST
    z = (z ^ (z >> _S27)) * _SECOND
    return z ^ (z >> _S31)


@jit
def draw(seed, stream, place):
    """Uniform number, as `perfmodel.serving.simulate.draws.draw`."""
    mixed = mix(mix(mix(np.uint64(seed)) + np.uint64(stream)) + np.uint64(place))
    return np.float64(mixed >> _S11) * 2.0**-53


@jit
def blocks_of(tokens, size):
    """Blocks that hold so many tokens."""
    return (tokens + size - 1) // size


@jit
def attention(surface, new, past):
    """Prefill attention of one chunk [s]."""
    x = reals(surface.p_x)
    spent, width = 0.0, surface.longest + 1
    work, reads = surface.at_work + past, surface.at_reads + past
    for j in range(surface.kernels):
        compute = x[work + j * width + new] - x[work + j * width]
        spent += max(compute, x[reads + j * width] + x[surface.at_writes + j] * new)
    return spent


@jit
def rest(surface, rows, sequences, past, decodes, prompts):
    """Everything but attention itself [s]."""
    x = reals(surface.p_x)
    spent = surface.overhead + x[surface.at_rows + rows] + x[surface.at_sequences + sequences]
    if decodes:
        spent += surface.decode_launch
    if prompts:
        spent += surface.prefill_launch
    for j in range(surface.planes):
        a = surface.at_planes + 8 * j
        spent += max(
            x[a] + x[a + 1] * rows + x[a + 2] * sequences + x[a + 3] * past,
            x[a + 4] + x[a + 5] * rows + x[a + 6] * sequences + x[a + 7] * past,
        )
    return spent
