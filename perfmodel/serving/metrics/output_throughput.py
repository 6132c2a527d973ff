"""Output tokens per second of the deployment."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="output_throughput",
    unit="1/s",
    meaning="output tokens per second of the deployment",
    value=lambda a: a.output_throughput,
    larger_is_better=True,
    shown="tok/s",
    aliases=("output_token_throughput",),
)
