"""What the twin counts while it runs: the record in plain lists, which are faster one by one."""

from __future__ import annotations

from typing import Any

from perfmodel.serving.simulate.record import Record

_COUNTED = (
    "histogram", "sums", "finished", "good", "several", "busy", "block_time", "running_time",
    "on_time", "steps", "prompt_tokens", "decode_tokens", "preemptions", "peak_blocks",
    "row_steps", "sequence_steps", "attention", "launches", "preempted",
)  # fmt: skip


class Tally:
    """The columns of a `Record` as lists; ``most`` stretches of steps are kept in ``log``."""

    def __init__(self, record: Record) -> None:
        self.histogram: list[list[list[int]]] = record.histogram.tolist()
        self.sums: list[list[float]] = record.sums.tolist()
        self.finished: list[int] = record.finished.tolist()
        self.good: list[int] = record.good.tolist()
        self.several: list[int] = record.several.tolist()
        self.busy: list[float] = record.busy.tolist()
        self.block_time: list[float] = record.block_time.tolist()
        self.running_time: list[float] = record.running_time.tolist()
        self.on_time: list[float] = record.on_time.tolist()
        self.steps: list[int] = record.steps.tolist()
        self.prompt_tokens: list[int] = record.prompt_tokens.tolist()
        self.decode_tokens: list[int] = record.decode_tokens.tolist()
        self.preemptions: list[int] = record.preemptions.tolist()
        self.peak_blocks: list[int] = record.peak_blocks.tolist()
        self.row_steps: list[list[int]] = record.row_steps.tolist()
        self.sequence_steps: list[list[int]] = record.sequence_steps.tolist()
        self.attention: list[list[float]] = record.attention.tolist()
        self.launches: list[list[int]] = record.launches.tolist()
        self.preempted: list[int] = record.preempted.tolist()
        self.counts = record.counts
        self.makespan = 0.0
        self.log: list[tuple[Any, ...]] = []
        self.most = len(record.log)

    def write(self, record: Record) -> None:
        """Fill the record."""
        for name in _COUNTED:
            getattr(record, name)[:] = getattr(self, name)
        record.makespan, record.logged = self.makespan, len(self.log)
        if self.log:
            record.log[: len(self.log)] = self.log
