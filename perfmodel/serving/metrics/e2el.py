"""Arrival to last token."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="e2el",
    unit="s",
    meaning="arrival to last token",
    value=lambda a: a.steady.e2el,
    larger_is_better=False,
    suffix="s",
    shown="s",
    aliases=("request_latency",),
)
