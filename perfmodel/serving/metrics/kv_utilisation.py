"""Share of the KV-cache pool in use."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="kv_utilisation",
    unit="1",
    meaning="share of the KV-cache pool in use",
    value=lambda a: a.kv_utilisation,
    larger_is_better=True,
    aliases=("kv_cache_usage_perc",),
)
