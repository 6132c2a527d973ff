"""GPU energy of one output token."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="energy_per_token",
    unit="J",
    meaning="GPU energy of one output token",
    value=lambda a: a.energy_per_token,
    larger_is_better=False,
    suffix="j",
    shown="J/tok",
    aliases=("jTotal",),
)
