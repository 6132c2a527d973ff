"""First chunk of the prompt to first token."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="prefill_time",
    unit="s",
    meaning="first chunk of the prompt to first token",
    value=lambda a: a.steady.prefill_time,
    larger_is_better=False,
    suffix="ms",
    scale=1000.0,
    shown="ms",
    aliases=("request_prefill_time",),
)
