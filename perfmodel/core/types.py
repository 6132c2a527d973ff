"""Small shared types: reasons for "no", phases, and a group of tokens in one step."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from hwdb.citation import Numeric

Phase = Literal["prefill", "decode"]


class Reason(enum.IntEnum):
    """Why a point has no prediction; the codes of a sweep's ``reason`` column."""

    OK = 0
    MEMORY = 1  # weights and one sequence's cache exceed device memory
    LAYOUT = 2  # the model cannot be divided so
    CONTEXT = 3  # longer than the model supports
    DATAPATH = 4  # the GPU has no unit for this number format
    SATURATED = 5  # requests arrive faster than they can be served
    NODE = 6  # more GPUs than the machine or fabric connects


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """Sequences of equal shape in one step; numbers or arrays.

    Parameters
    ----------
    seqs : numeric
        Sequences [1].
    new : numeric
        New tokens per sequence [1].
    past : numeric
        Tokens already cached per sequence [1].
    phase : {"prefill", "decode"}
        Whether attention runs the prefill or the decode kernel (MLA: expanded or absorbed form).
    memory : numeric
        Encoder tokens that cross attention reads per sequence [1].
    encode : numeric
        Encoder tokens computed in this step per sequence [1].
    """

    seqs: Numeric
    new: Numeric
    past: Numeric
    phase: Phase = "prefill"
    memory: Numeric = 0.0
    encode: Numeric = 0.0

    @property
    def rows(self) -> Numeric:
        """Tokens that pass the linear layers."""
        return self.seqs * self.new
