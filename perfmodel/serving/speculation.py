"""Speculative decoding: how many tokens a step yields, and how many to propose.

Leviathan et al., Fast inference from transformers via speculative decoding, arXiv 2211.17192,
section 3.1; the length by the batch as in Liu et al., SmartSpec, arXiv 2406.14066.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from perfmodel.serving.requests import Counts, Times
from perfmodel.serving.simulate.surface import Surface


def expected_tokens(acceptance: float, length: Any) -> Any:
    """Tokens that a step yields on average for each sequence: (1 - a^(k + 1)) / (1 - a).

    Parameters
    ----------
    acceptance : float
        Chance that a proposed token is accepted if those before it were [1].
    length : numeric
        Proposed tokens.

    Examples
    --------
    >>> expected_tokens(0.5, 2), expected_tokens(1.0, 3), expected_tokens(0.0, 3)
    (1.75, 4.0, 1.0)
    """
    if acceptance == 1.0:
        return length + 1.0
    return (1.0 - acceptance ** (length + 1.0)) / (1.0 - acceptance)


def best_lengths(
    surface: Surface, draft: Times, acceptance: float, most: int, context: int
) -> Counts:
    """Draft length that yields most tokens per second, by the number of sequences.

    Parameters
    ----------
    surface : Surface
        Step time; reaches ``(most + 1)`` rows and sequences for each sequence of ``draft``.
    draft : array, shape (n,)
        Time to propose one token, by the number of sequences [s].
    acceptance : float
        [1].
    most : int
        Longest draft.
    context : int
        Typical tokens in the cache of a sequence.

    Returns
    -------
    array of int64, shape (n,)
    """
    seqs = np.arange(len(draft))[:, None]
    lengths = np.arange(most + 1)[None, :]
    rows = seqs * (lengths + 1)
    reach = np.minimum(context + lengths, len(surface.decode) - 1)
    spent = (
        surface.overhead
        + surface.decode_launch
        + surface.rows[rows]
        + surface.sequences[rows]
        + seqs * surface.decode[reach]
        + lengths * draft[:, None]
    )
    for compute, memory in surface.planes:
        spent = spent + np.maximum(
            compute[0] + (compute[1] + compute[2]) * rows,
            memory[0] + (memory[1] + memory[2]) * rows,
        )
    return np.argmax(expected_tokens(acceptance, lengths) / spent, axis=1).astype(np.int64)
