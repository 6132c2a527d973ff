"""Tokens per second one user sees."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="interactivity",
    unit="1/s",
    meaning="tokens per second one user sees",
    value=lambda a: 1 / a.tpot,
    larger_is_better=True,
    shown="tok/s/user",
    aliases=("median_intvty",),
)
