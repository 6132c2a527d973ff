"""Rent per million output tokens."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="cost_per_mtok",
    unit="USD",
    meaning="rent per million output tokens",
    value=lambda a: a.cost_per_token * 1e6,
    larger_is_better=False,
    shown="USD/Mtok",
)
