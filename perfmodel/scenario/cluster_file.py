"""Cluster files: unlike replicas, pools, links, migration, scaling, failures, host stages.

TOML. A ``[[group]]`` names what differs from the question on the command line, in its words (any
field of `Scenario` and `Serving`); times and bandwidths are written with their units.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hwdb.units import UnitError, parse
from perfmodel.core.errors import DataError, PerfmodelError, near
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.serving import Group, Network, Plan, Scaling, Serving, group
from perfmodel.serving.simulate.fleet import Change, HostStage, Migration, Role, State

_LARGEST = 1 << 20


def _quantity(dimension: str) -> BeforeValidator:
    def read(value: object) -> float:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} needs a unit, in quotes, like {_LIKE[dimension]!r}")
        try:
            return parse(value, dimension)
        except UnitError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(read)


_LIKE = {"s": "10 ms", "bytes/s": "50 GB/s"}
Seconds = Annotated[float, _quantity("s"), Field(ge=0)]
Period = Annotated[float, _quantity("s"), Field(gt=0)]
Bandwidth = Annotated[float, _quantity("bytes/s"), Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Group(_Strict):
    pool: str = "llm"
    replicas: int = Field(1, ge=0, le=10_000)
    spare: int = Field(0, ge=0, le=10_000)
    role: Literal["both", "prefill", "decode"] = "both"


class _Link(_Strict):
    fabric: str | None = None
    bandwidth: Bandwidth | None = None
    latency: Seconds | None = None


class _Migration(_Strict):
    interval: Period
    low: float
    high: float


class _Scaler(_Strict):
    interval: Period
    low: float = Field(ge=0)
    high: float = Field(ge=0)
    least: int = Field(1, ge=0)
    initialise: Seconds = 60.0
    weights: str = "resident"


class _Stage(_Strict):
    name: str = ""
    servers: int = Field(ge=1, le=100_000)
    base: Seconds
    per_token: Seconds = 0.0
    after: bool = False


class _Change(_Strict):
    time: Seconds
    replica: int = Field(ge=0)
    state: Literal["ready", "draining", "failed"]


class _Failures(_Strict):
    mtbf: Period
    repair: Period
    until: Period
    seed: int = Field(0, ge=0)


class _File(_Strict):
    routing: str | None = None
    decode_routing: str = "least-outstanding"
    group: list[dict[str, Any]] = Field(min_length=1, max_length=1000)
    link: _Link = _Link()
    migration: _Migration | None = None
    scaler: _Scaler | None = None
    stage: list[_Stage] = []
    change: list[_Change] = []
    failures: _Failures | None = None


_Model = TypeVar("_Model", bound=BaseModel)


def read(path: str, scenario: Scenario, serving: Serving) -> Plan:
    """The plan that a file describes.

    Raises
    ------
    DataError
        No such file, not TOML, keys or values that cannot be; all of them in one line.
    """
    file = _checked(_File, _load(path), path)
    groups = tuple(
        _group(table, scenario, serving, f"{path}: group {place}")
        for place, table in enumerate(file.group)
    )
    if file.migration is not None and file.migration.low > file.migration.high:
        raise DataError(f"{path}: migration.low must not exceed migration.high")
    if file.scaler is not None and file.scaler.low > file.scaler.high:
        raise DataError(f"{path}: scaler.low must not exceed scaler.high")
    known = sum((each.replicas or 1) + each.spare for each in groups)
    return Plan(
        groups,
        file.routing or serving.routing,
        file.decode_routing,
        _network(file.link, path),
        file.migration and Migration(**file.migration.model_dump()),
        file.scaler and Scaling(**file.scaler.model_dump()),
        (*(Change(c.time, c.replica, State[c.state.upper()]) for c in file.change),
         *(_failures(file.failures, known) if file.failures else ())),
        tuple(HostStage(s.servers, s.base, s.per_token, s.after) for s in file.stage),
    )  # fmt: skip


def _load(path: str) -> dict[str, Any]:
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(f"{path}: more than {_LARGEST >> 20} MiB, which is no cluster file")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not TOML: {error}") from None


def _checked(model: type[_Model], data: dict[str, Any], where: str) -> _Model:
    try:
        return model(**data)
    except ValidationError as error:
        known = list(model.model_fields)
        raise DataError(f"{where}: {'; '.join(_said(each, known) for each in error.errors())}") \
            from None  # fmt: skip


def _said(error: Any, known: Sequence[str]) -> str:
    at = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        hint = near(at, known) if len(error["loc"]) == 1 else ""
        return f"unknown key {at!r}{hint}"
    return f"{at}: {str(error['msg']).removeprefix('Value error, ')}"


def _group(table: dict[str, Any], scenario: Scenario, serving: Serving, where: str) -> Group:
    own = {name: value for name, value in table.items() if name in _Group.model_fields}
    asked, habits = dict[str, Any](), dict[str, Any]()
    for name, value in table.items():
        if name in own:
            continue
        if name in Scenario.__dataclass_fields__:
            asked[name] = tuple(value) if name == "ignore" else value
        elif name in Serving.__dataclass_fields__ and name != "cluster":
            habits[name] = value
        else:
            known = (*_Group.model_fields, *Scenario.__dataclass_fields__,
                     *Serving.__dataclass_fields__)  # fmt: skip
            raise DataError(f"{where}: unknown key {name!r}{near(name, known)}")
    checked = _checked(_Group, own, where)
    # another GPU stands in another machine
    if "gpu" in asked:
        asked.setdefault("node", None)
    try:
        made = group(
            dataclasses.replace(scenario, **asked), dataclasses.replace(serving, **habits),
            replicas=checked.replicas, spare=checked.spare, role=Role[checked.role.upper()],
            pool=checked.pool,
        )  # fmt: skip
        made.scenario.check()
        made.serving.check()
    except PerfmodelError as error:
        raise DataError(f"{where}: {error}") from None
    except TypeError as error:
        raise DataError(f"{where}: a value of the wrong kind: {error}") from None
    return made


def _network(link: _Link, path: str) -> Network:
    if link.fabric is None:
        return Network(link.bandwidth, link.latency)
    import hwdb

    try:
        fabric = hwdb.fabric(link.fabric)
    except (hwdb.NotFound, hwdb.HwdbError) as error:
        raise DataError(f"{path}: link.fabric: {str(error).splitlines()[0]}") from None
    return Network(
        link.bandwidth or float(fabric.bandwidth.value),
        float(fabric.latency.value) if link.latency is None else link.latency,
    )


def _failures(rule: _Failures, replicas: int) -> list[Change]:
    """Failures of each replica at exponential intervals, each followed by its repair."""
    found = list[Change]()
    for index in range(replicas):
        rng = np.random.default_rng([rule.seed, index])
        now = float(rng.exponential(rule.mtbf))
        while now < rule.until and len(found) < _MOST_CHANGES:
            found.append(Change(now, index, State.FAILED))
            found.append(Change(now + rule.repair, index, State.READY))
            now += rule.repair + float(rng.exponential(rule.mtbf))
    return sorted(found, key=lambda change: change.time)


_MOST_CHANGES = 1_000_000
