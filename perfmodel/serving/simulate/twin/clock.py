"""Step time from a surface, by look-ups in plain lists."""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.serving.simulate.surface import Surface

Chunk = tuple[int, int]  # new tokens, tokens of the same prompt that are in the cache


class Clock:
    """The additive parts of a step, see `perfmodel.serving.simulate.surface.Surface`."""

    def __init__(self, surface: Surface) -> None:
        self.overhead = surface.overhead
        self.rows: list[float] = surface.rows.tolist()
        self.sequences: list[float] = surface.sequences.tolist()
        self.decode: list[float] = surface.decode.tolist()
        self.linear = surface.linear
        self.decode_launch = surface.decode_launch
        self.prefill_launch = surface.prefill_launch
        self.kernels: list[tuple[list[float], list[float], float]] = list(
            zip(surface.work.tolist(), surface.reads.tolist(), surface.writes.tolist(), strict=True)
        )
        self.planes: list[tuple[list[float], list[float]]] = surface.planes.tolist()

    def decoding(self, count: int, total: int, contexts: Sequence[int]) -> float:
        """Decode attention of ``count`` sequences of ``total`` tokens together [s].

        ``contexts`` are needed only where the time is not linear in them.
        """
        if not self.linear:
            return sum([self.decode[context] for context in contexts])
        mean = total / count
        low = int(mean)
        share = mean - low
        return count * ((1 - share) * self.decode[low] + share * self.decode[low + 1])

    def prefilling(self, chunks: Sequence[Chunk]) -> float:
        """Prefill attention [s]."""
        spent = 0.0
        for new, past in chunks:
            for work, reads, write in self.kernels:
                spent += max(work[past + new] - work[past], reads[past] + write * new)
        return spent

    def rest(self, rows: int, sequences: int, past: int, decodes: bool, prompts: bool) -> float:
        """Everything but attention itself [s]."""
        spent = self.overhead + self.rows[rows] + self.sequences[sequences]
        if decodes:
            spent += self.decode_launch
        if prompts:
            spent += self.prefill_launch
        for a, b in self.planes:
            spent += max(
                a[0] + a[1] * rows + a[2] * sequences + a[3] * past,
                b[0] + b[1] * rows + b[2] * sequences + b[3] * past,
            )
        return spent
