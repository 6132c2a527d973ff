"""The simulator in plain Python, one step and one request at a time: the oracle of the core.

Written to be read; what it does is what the core must do. `cluster` is the loop over events,
`replica` an engine and its steps, `cache` its blocks and adapters, `moves` migration, scaling and
failures, `routes` the choice of a replica, `clock` the step time.

Times of unlike replicas are compared in whole nanoseconds, so that rounding cannot change the
order of what happens at once: at each instant steps end (in the replicas' order), then arrivals and
events are handled (each in the order they were made), then replicas without a step begin one.
"""

from perfmodel.serving.simulate.twin.cluster import run

__all__ = ["run"]
