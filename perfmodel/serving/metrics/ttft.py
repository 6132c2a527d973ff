"""Arrival to first token, queueing included."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="ttft",
    unit="s",
    meaning="arrival to first token, queueing included",
    value=lambda a: a.steady.ttft,
    larger_is_better=False,
    suffix="ms",
    scale=1000.0,
    shown="ms",
    aliases=("time_to_first_token",),
)
