"""Mean power of the GPUs of the deployment."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="power",
    unit="W",
    meaning="mean power of the GPUs of the deployment",
    value=lambda a: a.power * a.gpus,
    larger_is_better=False,
    suffix="w",
    shown="W",
)
