"""GPUs of the deployment."""

from perfmodel.serving.metric import Metric

METRIC = Metric(
    name="gpus",
    unit="1",
    meaning="GPUs of the deployment",
    value=lambda a: a.gpus,
    larger_is_better=False,
)
