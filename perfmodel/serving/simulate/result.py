"""What a simulation found: per-request times, their statistics, and what the engines did.

Statistics of requests are exact where the requests are kept, else read from a histogram with bins
0.5 % wide; those of ITL always come from such a histogram, each token counting once. `power` adds
MFU and energy, `series` looks over time, `export` and `trace` write files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import UsageError, near
from perfmodel.serving.requests import Requests, Times
from perfmodel.serving.simulate.fleet import Cluster, Role, State
from perfmodel.serving.simulate.record import ITL, METRICS, Record, Slo
from perfmodel.serving.simulate.statistics import interval, of_bins, of_values

TASK: Final = "task_e2el"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Simulation:
    """Result of `perfmodel.serving.simulate.serve`.

    ``slos`` are limits by tenant; ``kept`` says whether per-request arrays are there (else they are
    empty); ``compiled`` which implementation ran.
    """

    cluster: Cluster
    requests: Requests
    slos: tuple[Slo, ...]
    record: Record
    kept: bool
    compiled: bool

    # --- of each request, shape (n,) --------------------------------------------------------------

    @property
    def ttft(self) -> Times:
        """Time to first token, queueing included [s]."""
        return self.record.first - self.record.arrival

    @property
    def tpot(self) -> Times:
        """Time per output token after the first [s]; nan where there is none."""
        spent = self.record.last - self.record.first
        output = self.requests.output[: len(spent)]
        made = np.full(len(spent), np.nan)
        return np.divide(spent, output - 1, out=made, where=output > 1)

    @property
    def e2el(self) -> Times:
        """End-to-end latency, the host's work after the last token included [s]."""
        return self.record.finish - self.record.arrival

    @property
    def queue_time(self) -> Times:
        """Wait before the first step [s]."""
        return self.record.start - self.record.arrival

    @property
    def visible(self) -> Times:
        """Time to the first token the user sees [s]."""
        return self.record.visible - self.record.arrival

    @property
    def good(self) -> NDArray[np.bool_]:
        """Whether it met all limits of its tenant."""
        tenant = self.requests.tenant
        made = np.ones(len(self.record.arrival), np.bool_)
        for name in Slo.__dataclass_fields__:
            limits = np.array([getattr(slo, name) for slo in self.slos])
            if np.isfinite(limits).any():
                own = limits[0] if tenant is None else limits[tenant[: len(made)]]
                made &= ~(getattr(self, name) > own)  # no TPOT is within any limit
        return made

    def tasks(self) -> dict[str, NDArray[Any]]:
        """Columns ``task``, ``requests``, ``arrival_s`` and ``e2el_ms``, one entry per task.

        A task lasts from its first request's arrival to its last one's finish.

        Raises
        ------
        UsageError
            The requests are not kept, or are not parts of tasks.
        """
        if self.requests.task is None:
            raise UsageError("these requests are not parts of tasks")
        if not self.kept:
            raise UsageError("tasks need the times of every request: keep_requests=True")
        names, place, parts = np.unique(
            self.requests.task, return_inverse=True, return_counts=True
        )  # fmt: skip
        arrival, finish = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        np.minimum.at(arrival, place, self.record.arrival)
        np.maximum.at(finish, place, self.record.finish)
        spent = (finish - arrival) * 1e3
        return {"task": names, "requests": parts, "arrival_s": arrival, "e2el_ms": spent}

    # --- of the run -------------------------------------------------------------------------------

    @property
    def blocks(self) -> int:
        """Cache blocks of all replicas."""
        return sum(replica.engine.blocks for replica in self.cluster.replicas)

    @property
    def kv_utilisation(self) -> float:
        """Blocks in use over blocks of replicas that are on, averaged over time [1]."""
        blocks = [replica.engine.blocks for replica in self.cluster.replicas]
        return float(self.record.block_time.sum() / (self.record.on_time @ blocks))

    @property
    def running(self) -> float:
        """Running requests, averaged over time [1]."""
        return float(self.record.running_time.sum()) / self.record.makespan

    @property
    def cost(self) -> float:
        """Rent of all replicas while they are on [USD]."""
        return float(self.record.on_time @ [replica.price for replica in self.cluster.replicas])

    @property
    def limited(self) -> bool:
        """Whether any tenant has limits."""
        return any(slo != Slo() for slo in self.slos)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names that `statistics` knows and that apply."""
        hidden = self.requests.hidden is not None
        task = (TASK,) if self.kept and self.requests.task is not None else ()
        return (*(name for name in METRICS if name != "visible" or hidden), "itl", *task)

    def statistics(self, name: str, tenant: int | None = None) -> dict[str, float]:
        """Mean, median and percentiles of a latency.

        Parameters
        ----------
        name : str
            ``ttft``, ``tpot``, ``e2el``, ``queue_time``, ``visible``, ``itl`` or ``task_e2el``.
        tenant : int, optional
            Only of its requests; default: of all.

        Returns
        -------
        dict
            ``mean``, ``median``, ``p90``, ``p95``, ``p99`` [s]; nan where nothing was observed.

        Raises
        ------
        UsageError
            No such latency or tenant, or one of tasks where there are none.
        """
        if tenant is not None and not 0 <= tenant < len(self.slos):
            raise UsageError(f"tenant {tenant} is not one of 0 to {len(self.slos) - 1}")
        if name == TASK:
            if tenant is not None:
                raise UsageError("a task may have requests of several tenants")
            return of_values(self.tasks()["e2el_ms"] / 1e3)
        if name not in (*METRICS, "itl"):
            known = (*METRICS, "itl", TASK)
            raise UsageError(f"no latency {name!r}{near(name, known)} ({', '.join(known)})")
        record, rows = self.record, slice(None) if tenant is None else slice(tenant, tenant + 1)
        if name == "itl":
            return of_bins(record.histogram[rows, ITL].sum(axis=0))
        if self.kept:
            return of_values(self._observed(name, tenant))
        at = METRICS.index(name)
        counts = record.histogram[rows, at].sum(axis=0)
        return of_bins(counts, float(record.sums[rows, at].sum()))

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of a mean latency in the long run [s], from this run alone.

        Requests in order of arrival, see `perfmodel.serving.simulate.statistics.interval`; nan
        where the run is too short or its requests are not kept.
        """
        return interval(self._observed(name, None), level)

    def _observed(self, name: str, tenant: int | None) -> Times:
        values: Times = getattr(self, name)
        if tenant is not None and self.requests.tenant is not None:
            values = values[self.requests.tenant[: len(values)] == tenant]
        return values[~np.isnan(values)] if np.isnan(values).any() else values

    # --- tables -----------------------------------------------------------------------------------

    def results(self) -> Row:
        """Aggregates by vLLM's names, times in milliseconds; columns of what is off are left out.

        `perfmodel.serving.simulate.power.power_columns` adds MFU, MBU, power and energy.
        """
        record, span, requests = self.record, self.record.makespan, len(self.requests)
        prompts, outputs = int(self.requests.prompt.sum()), int(self.requests.output.sum())
        columns: Row = {
            "requests": requests,
            "duration_s": span,
            "request_throughput": requests / span,
            "output_throughput": outputs / span,
            "total_throughput": (prompts + outputs) / span,
            "goodput": int(record.good.sum()) / span,
        }
        if self.limited:
            columns["attainment"] = int(record.good.sum()) / requests
        for name in self.metrics:
            columns |= _milliseconds(name, self.statistics(name))
        columns |= {
            "running": self.running,
            "busy": float(record.busy.sum() / record.on_time.sum()),
            "kv_utilisation": self.kv_utilisation,
            "peak_kv_utilisation": int(record.peak_blocks.sum()) / self.blocks,
            "preemptions": int(record.preemptions.sum()),
            "steps": int(record.steps.sum()),
        }
        columns |= self._features()
        if self.cost:
            columns["cost_usd"] = self.cost
            columns["cost_per_mtok"] = self.cost / outputs * 1e6
        return columns

    def intervals(self, level: float = 0.95) -> dict[str, float]:
        """``mean_ttft_ms_low`` and ``_high`` and so on: `interval` of every latency of requests."""
        made: dict[str, float] = {}
        for name in self.metrics:
            if name in METRICS:
                low, high = self.interval(name, level)
                made |= {f"mean_{name}_ms_low": low * 1e3, f"mean_{name}_ms_high": high * 1e3}
        return made

    def _features(self) -> Row:
        """Columns of what is on."""
        record, cluster, counts = self.record, self.cluster, self.record.counts
        engines = [replica.engine for replica in cluster.replicas]
        columns: Row = {}

        def count(*names: str) -> None:
            columns.update({name: counts[name] for name in names})

        if any(engine.prefix_cache for engine in engines):
            found, computed = counts["hit_tokens"], int(record.prompt_tokens.sum())
            columns["prefix_cache_hit_rate"] = found / (found + computed)
            count("evicted_blocks")
        if any(engine.swap_time is not None for engine in engines):
            count("swapped_blocks")
        if any(engine.adapters for engine in engines):
            count("adapter_loads")
        if any(engine.speculation is not None for engine in engines):
            tokens = int(record.decode_tokens.sum())
            columns["acceptance_rate"] = _share(counts["accepted"], counts["proposed"])
            # tokens a sequence gains in a step, as vLLM counts them: the accepted and one more
            columns["acceptance_length"] = _share(tokens, tokens - counts["accepted"])
        if any(engine.finetune for engine in engines):
            columns["finetune_throughput"] = counts["finetune_tokens"] / record.makespan
        if any(replica.role == Role.PREFILL for replica in cluster.replicas):
            count("transfers")
        if cluster.migration is not None:
            count("migrations")
        if any(change.state == State.FAILED for change in cluster.changes):
            count("retries")
        if cluster.scaler is not None:
            count("scaled_up", "scaled_down")
        if len(engines) > 1:
            busy = [row["busy"] for row in self.by_replica() if row["on_s"]]
            columns["replica_seconds"] = float(record.on_time.sum())
            columns["replica_imbalance"] = max(busy) / (sum(busy) / len(busy))
        return columns

    def by_tenant(self) -> list[Row]:
        """One row per tenant: throughput, requests within limits, statistics of latencies."""
        record, span = self.record, self.record.makespan
        output = self.requests.output.astype(np.float64)
        tenant = np.zeros(len(output), np.int64) if self.requests.tenant is None else \
            self.requests.tenant  # fmt: skip
        tokens = np.bincount(tenant, output, minlength=len(self.slos))
        rows: list[Row] = []
        for index in range(len(self.slos)):
            finished, good = int(record.finished[index]), int(record.good[index])
            row: Row = {
                "tenant": index,
                "requests": finished,
                "request_throughput": finished / span,
                "output_throughput": tokens.item(index) / span,
            }
            if self.limited:
                row |= {"goodput": good / span, "attainment": _share(good, finished)}
            for name in self.metrics:
                if name != TASK:
                    row |= _milliseconds(name, self.statistics(name, index))
            rows.append(row)
        return rows

    def by_replica(self) -> list[Row]:
        """One row per replica: shares of the time it was on, steps, tokens, preemptions, rent."""
        record, rows = self.record, list[Row]()
        served = np.bincount(record.replica, minlength=len(self.cluster.replicas))
        for index, replica in enumerate(self.cluster.replicas):
            on = record.on_time.item(index)
            row: Row = {
                "replica": index,
                "pool": replica.pool,
                "role": replica.role.name.lower(),
                "on_s": on,
                "busy": record.busy.item(index) / on if on else 0.0,
                "running": record.running_time.item(index) / on if on else 0.0,
                "kv_utilisation": record.block_time.item(index) / replica.engine.blocks / on
                if on else 0.0,
                "peak_kv_utilisation": record.peak_blocks.item(index) / replica.engine.blocks,
                "steps": record.steps.item(index),
                "prompt_tokens": record.prompt_tokens.item(index),
                "decode_tokens": record.decode_tokens.item(index),
                "preemptions": record.preemptions.item(index),
            }  # fmt: skip
            if self.kept:
                row["finished"] = int(served[index])
            if replica.price:
                row["cost_usd"] = replica.price * on
            rows.append(row)
        return rows

    def by_task(self) -> list[Row]:
        """One row per task, see `tasks`."""
        columns = self.tasks()
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in values]


def shown(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results for JSON: nan becomes None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in results.items()
    }


def _milliseconds(name: str, statistics: Mapping[str, float]) -> dict[str, float]:
    return {f"{statistic}_{name}_ms": value * 1e3 for statistic, value in statistics.items()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
