"""Rows of unlike length as two arrays: row i is ``values[start[i]:start[i + 1]]``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from perfmodel.serving.requests import Counts

Ragged = tuple[Counts, Counts]


def starts(sizes: Counts) -> Counts:
    """Where rows of these sizes start, and the end.

    Examples
    --------
    >>> starts(np.array([2, 0, 1])).tolist()
    [0, 2, 2, 3]
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def from_pairs(row: Counts, value: Counts, count: int) -> Ragged:
    """``count`` rows of (row, value) pairs, each value once and in rising order.

    Parameters
    ----------
    row : array of int64
        From 0 to ``count - 1``.
    value : array of int64
        From 0 to ``count - 1``.
    count : int

    Examples
    --------
    >>> [x.tolist() for x in from_pairs(np.array([2, 1, 2, 2]), np.array([1, 0, 0, 1]), 3)]
    [[0, 0, 1, 3], [0, 0, 1]]
    """
    # Sorting is faster than numpy's `unique`, which hashes.
    pairs = np.sort(row * count + value)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return starts(np.bincount(pairs // count, minlength=count)), pairs % count


def reordered(sizes: Counts, values: Counts, order: Counts) -> Ragged:
    """Rows of these sizes, one after the other in ``values``, put in another order.

    Examples
    --------
    >>> [x.tolist() for x in reordered(np.array([2, 1]), np.array([7, 8, 9]), np.array([1, 0]))]
    [[0, 1, 3], [9, 7, 8]]
    """
    start = starts(sizes[order])
    first = np.cumsum(sizes) - sizes
    moved = np.repeat(first[order] - start[:-1], sizes[order]) + np.arange(len(values))
    return start, values[moved]


def rows(ragged: Ragged) -> Iterable[list[int]]:
    """The rows as lists.

    Examples
    --------
    >>> list(rows((np.array([0, 2, 2]), np.array([5, 6]))))
    [[5, 6], []]
    """
    start, values = ragged[0].tolist(), ragged[1].tolist()
    return (values[low:high] for low, high in pairwise(start))


def find(among: Counts, wanted: Counts) -> Counts:
    """Where each of ``wanted`` stands in the increasing ``among``; -1 where it does not.

    Examples
    --------
    >>> find(np.array([2, 5, 9]), np.array([5, 6, 9])).tolist()
    [1, -1, 2]
    """
    if len(among) == 0:
        return np.full(len(wanted), -1)
    if among[0] == 0 and among[-1] == len(among) - 1:  # 0, 1, 2, …: each stands at its own place
        return np.where(wanted < len(among), wanted, -1)
    at = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return np.where(among[at] == wanted, at, -1)
