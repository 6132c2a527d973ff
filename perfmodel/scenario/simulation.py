"""`simulate`: a question of a scenario, its traffic and its serving, answered by the simulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perfmodel.core.errors import UsageError, near
from perfmodel.scenario import traffic as ways_in
from perfmodel.scenario.deploy import Deployment, deploy, plan
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.serving import Serving
from perfmodel.scenario.traffic import Traffic
from perfmodel.serving.simulate import Simulation, Slo, serve
from perfmodel.serving.simulate.power import power_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One run of the simulator, as plain data that any process can carry out.

    Parameters
    ----------
    scenario : Scenario
        Model, hardware, layout, engine limits; ``request_rate`` or ``max_concurrency``.
    traffic : Traffic
    serving : Serving
    slo : dict of str to float
        Limits in seconds by metric (ttft, tpot, e2el, visible), for tenants without their own.
    keep_requests : bool
        Keep the times of every request, or aggregates only.
    log : int
        Most stretches of steps to keep.
    compiled : bool, optional
        The compiled core or the plain twin; default: what is installed.
    """

    scenario: Scenario
    traffic: Traffic = field(default_factory=Traffic)
    serving: Serving = field(default_factory=Serving)
    slo: Mapping[str, float] = field(default_factory=dict[str, float])
    keep_requests: bool = True
    log: int = 0
    compiled: bool | None = None

    def of_seed(self, seed: int) -> Experiment:
        """The same with another seed."""
        return dataclasses.replace(self, traffic=dataclasses.replace(self.traffic, seed=seed))

    def at_rate(self, rate: float) -> Experiment:
        """The same as an open loop of another rate [1/s]."""
        scenario = dataclasses.replace(self.scenario, request_rate=rate, max_concurrency=None)
        return dataclasses.replace(self, scenario=scenario)

    def to_dict(self) -> dict[str, Any]:
        """Inputs for output files: scenario fields, then those of traffic and serving."""
        asked = self.scenario.to_dict()
        for name in ("isl", "osl", "prefix"):  # the traffic's are laws
            asked.pop(name, None)
        more = self.traffic.to_dict() | self.serving.to_dict()
        return asked | more | ({"slo": dict(self.slo)} if self.slo else {})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave: the simulation, and what its cluster stands for."""

    experiment: Experiment
    simulation: Simulation
    deployment: Deployment

    def results(self) -> dict[str, Any]:
        """Aggregates by vLLM's names, utilisation, energy and cost included."""
        made = self.simulation
        return made.results() | power_columns(made, self.deployment.works())


def run(experiment: Experiment) -> Outcome:
    """Carry out one experiment.

    Raises
    ------
    UsageError
        The question cannot be asked so.
    perfmodel.core.errors.InfeasibleError
        It cannot be served: does not fit, a request too long, no replica left.
    """
    scenario = experiment.scenario
    users, rate = scenario.max_concurrency, scenario.request_rate
    if users is None and rate is None and experiment.traffic.trace is None:
        raise UsageError("give --request-rate (open loop) or --max-concurrency (closed loop)")
    if float(scenario.prefix):
        raise UsageError("--prefix is for estimates; simulate takes --shared-prefix or a trace")
    scenario.check()
    made = plan(scenario, experiment.serving)
    several = len(made.pools) > 1
    requests = ways_in.draw(
        experiment.traffic, None if rate is None else float(rate), made.pools if several else ()
    )
    deployment = deploy(made, requests, ways_in.passes(experiment.traffic), experiment.traffic.seed)
    simulation = serve(
        deployment.cluster, requests,
        max_concurrency=None if users is None else int(float(users)),
        slos=slos(experiment), keep_requests=experiment.keep_requests, log=experiment.log,
        compiled=experiment.compiled,
    )  # fmt: skip
    return Outcome(experiment, simulation, deployment)


def results(experiment: Experiment) -> dict[str, Any]:
    """Aggregates of one experiment: what ensembles and sweeps compute in other processes."""
    return run(experiment).results()


def simulate(**question: Any) -> Outcome:
    """Simulate a deployment under a load.

    Parameters
    ----------
    **question
        Fields of `Scenario`, `Traffic`, `Serving` and `Experiment`; ``isl`` and ``osl`` may be
        numbers or length laws.

    Raises
    ------
    UsageError
        An unknown field (the nearest is named); else as `run`.

    Examples
    --------
    >>> outcome = simulate(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", isl=500, osl=20,
    ...                    request_rate=2.0, num_requests=50, compiled=False)
    >>> outcome.results()["requests"]
    50
    """
    kinds = (Scenario, Traffic, Serving, Experiment)
    known = dict.fromkeys(name for kind in kinds for name in kind.__dataclass_fields__)
    for name in ("scenario", "traffic", "serving"):
        del known[name]
    for name in question:
        if name not in known:
            raise UsageError(f"simulate has no {name!r}{near(name, known)}")
    missing = [name for name in ("model", "gpu") if name not in question]
    if missing:
        raise UsageError(f"a simulation needs {' and '.join(missing)}")
    laws: dict[str, Any] = {
        name: str(question[name]) for name in ("isl", "osl") if name in question
    }
    return run(
        Experiment(
            scenario=Scenario(**_fields(Scenario, question, ("isl", "osl"))),
            traffic=Traffic(**_fields(Traffic, question, ("isl", "osl")), **laws),
            serving=Serving(**_fields(Serving, question)),
            **_fields(Experiment, question),
        )
    )


def _fields(
    kind: type[Any], question: dict[str, Any], leave: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {k: v for k, v in question.items() if k in kind.__dataclass_fields__ and k not in leave}


def slos(experiment: Experiment) -> tuple[Slo, ...]:
    """Limits by tenant; one for all where there are none."""
    common = Slo(**experiment.slo)
    own = ways_in.tenants(experiment.traffic)
    if not own:
        return (common,)
    return tuple(
        dataclasses.replace(
            common,
            **{n: v for n in ("ttft", "tpot", "e2el") if (v := getattr(t, n)) is not None},
        )
        for t in own
    )
