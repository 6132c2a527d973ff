"""Output tokens per second and GPU."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="throughput_per_gpu",
    unit="1/s",
    meaning="output tokens per second and GPU",
    value=lambda a: a.output_throughput / a.gpus,
    larger_is_better=True,
    shown="tok/s/GPU",
    aliases=("tput_per_gpu",),
)
