"""Input and output tokens per second of the deployment."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="total_throughput",
    unit="1/s",
    meaning="input and output tokens per second of the deployment",
    value=lambda a: a.total_throughput,
    larger_is_better=True,
    shown="tok/s",
    aliases=("total_token_throughput",),
)
