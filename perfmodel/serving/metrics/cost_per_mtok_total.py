"""Rent per million input and output tokens."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="cost_per_mtok_total",
    unit="USD",
    meaning="rent per million input and output tokens",
    value=lambda a: a.cost_per_token * 1e6 * a.output_throughput / a.total_throughput,
    larger_is_better=False,
    shown="USD/Mtok",
)
