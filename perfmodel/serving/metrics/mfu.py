"""Share of the dense peak spent on model FLOPs."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="mfu",
    unit="1",
    meaning="share of the dense peak spent on model FLOPs",
    value=lambda a: a.mfu,
    larger_is_better=True,
)
