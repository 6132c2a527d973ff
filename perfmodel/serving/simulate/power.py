"""How hard a run's GPUs worked and what they drew: MFU, MBU, power, energy.

Shares are of the time the replicas were switched on; an idle replica draws idle power until it is
switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perfmodel.core.errors import UsageError
from perfmodel.serving.requests import Counts
from perfmodel.serving.simulate.policy import Engine
from perfmodel.serving.simulate.surface import Table
from perfmodel.serving.simulate.work import Asked, Work
from perfmodel.time.energy import busy_share, gpu_power

if TYPE_CHECKING:
    from perfmodel.serving.simulate.result import Simulation


@dataclass(frozen=True, slots=True)
class Usage:
    """Use of the replicas that share a surface.

    Attributes
    ----------
    work : Work
    on_time : float
        Time they were switched on, summed [s].
    amounts : array, shape (4,)
        `perfmodel.serving.simulate.work.QUANTITIES` of one GPU of each, summed.
    """

    work: Work
    on_time: float
    amounts: Table

    @property
    def flops(self) -> float:
        """Executed matrix FLOPs of all GPUs [FLOP]."""
        return self.work.gpus.count * self.amounts.item(0)

    @property
    def traffic(self) -> float:
        """Memory traffic of all GPUs [B]."""
        return self.work.gpus.count * self.amounts.item(1)

    @property
    def gpu_time(self) -> float:
        """Time the GPUs were on, summed [s]."""
        return self.work.gpus.count * self.on_time

    @property
    def power(self) -> float:
        """Mean power of one GPU while it is on [W]."""
        gpu = self.work.gpus
        return float(gpu_power(
            gpu.idle_power, gpu.tdp,
            busy_share(self.amounts.item(2), self.on_time),
            busy_share(self.amounts.item(3), self.on_time),
            gpu.compute_power, gpu.memory_power,
        ))  # fmt: skip

    @property
    def energy(self) -> float:
        """Energy of all GPUs [J]."""
        return self.power * self.gpu_time if self.on_time else 0.0


def usages(simulation: Simulation, works: Sequence[Work]) -> tuple[Usage, ...]:
    """Use of the GPUs, by surface.

    Parameters
    ----------
    simulation : Simulation
    works : sequence of Work
        One for each of the cluster's surfaces.

    Raises
    ------
    UsageError
        Not as many as there are surfaces.
    """
    cluster, record = simulation.cluster, simulation.record
    if len(works) != len(cluster.surfaces):
        raise UsageError(f"{len(works)} works for {len(cluster.surfaces)} surfaces")
    own = np.array([replica.surface for replica in cluster.replicas])
    made: list[Usage] = []
    for index, (work, surface) in enumerate(zip(works, cluster.surfaces, strict=True)):
        amounts = work.total(
            surface, record.row_steps[index], record.sequence_steps[index],
            record.attention[index], _asked(simulation, index),
        )  # fmt: skip
        made.append(Usage(work, float(record.on_time[own == index].sum()), amounts))
    return tuple(made)


def power_columns(simulation: Simulation, works: Sequence[Work]) -> dict[str, float]:
    """``mfu``, ``mbu``, ``power_w`` of a GPU while it is on, ``energy_per_token_j``.

    The token is an output token, its energy that of all GPUs.
    """
    found = usages(simulation, works)
    energy = sum(each.energy for each in found)
    return {
        "mfu": sum(each.flops for each in found)
        / sum(each.work.gpus.peak * each.gpu_time for each in found),
        "mbu": sum(each.traffic for each in found)
        / sum(each.work.gpus.bandwidth * each.gpu_time for each in found),
        "power_w": energy / sum(each.gpu_time for each in found),
        "energy_per_token_j": energy / int(simulation.requests.output.sum()),
    }


def _asked(simulation: Simulation, surface: int) -> Asked:
    """Attention of the requests that replicas with this surface may serve."""
    requests, replicas = simulation.requests, simulation.cluster.replicas
    sharing = [replica for replica in replicas if replica.surface == surface]
    hits: Counts | None = simulation.record.hits
    if not len(hits) or not any(replica.engine.prefix_cache for replica in sharing):
        hits = None
    prompt, output = requests.prompt, requests.output
    if requests.pool is not None:
        mine = np.isin(requests.pool, [replica.pool for replica in sharing])
        prompt, output = prompt[mine], output[mine]
        hits = None if hits is None else hits[mine]
    return Asked.of(prompt, output, hits, _chunk(sharing[0].engine) if sharing else 1)


def _chunk(engine: Engine) -> int:
    """Most prompt tokens whose attention is computed at once."""
    cut = engine.policy.chunked and not engine.policy.layered
    return engine.budget if cut else np.iinfo(np.int64).max
