"""Sequences decoding at once, all lanes together."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="running",
    unit="1",
    meaning="sequences decoding at once, all lanes together",
    value=lambda a: a.steady.running * a.steady.lanes,
    larger_is_better=True,
    shown="seqs",
)
