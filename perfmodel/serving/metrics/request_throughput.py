"""Requests per second of the deployment."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="request_throughput",
    unit="1/s",
    meaning="requests per second of the deployment",
    value=lambda a: a.steady.request_rate,
    larger_is_better=True,
    shown="req/s",
)
