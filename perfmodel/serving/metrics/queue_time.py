"""Arrival to the first chunk of the prompt."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="queue_time",
    unit="s",
    meaning="arrival to the first chunk of the prompt",
    value=lambda a: a.steady.queue_time,
    larger_is_better=False,
    suffix="ms",
    scale=1000.0,
    shown="ms",
    aliases=("request_queue_time",),
)
