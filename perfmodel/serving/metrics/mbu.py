"""Share of the memory bandwidth used."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="mbu",
    unit="1",
    meaning="share of the memory bandwidth used",
    value=lambda a: a.mbu,
    larger_is_better=True,
)
