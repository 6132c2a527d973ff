"""The same examples on every machine, and no clock: a slow runner is not a failure."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "perfmodel",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("perfmodel")
