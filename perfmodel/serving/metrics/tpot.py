"""Time per output token after the first, other users' prefills included."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="tpot",
    unit="s",
    meaning="time per output token after the first, other users' prefills included",
    value=lambda a: a.tpot,
    larger_is_better=False,
    suffix="ms",
    scale=1000.0,
    shown="ms",
    aliases=(
        "inter_token_latency",
        "mean_itl",
    ),
)
