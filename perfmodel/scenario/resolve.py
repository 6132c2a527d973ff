"""From names to things: model, hardware, formats and layout of a `Scenario`, overrides applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import hwdb
from hwdb.citation import Numeric, UnknownValue
from hwdb.load import NotFound, modify
from hwdb.records import Gpu
from hwdb.units import UnitError
from perfmodel.core.errors import DataError, MissingDataError, UsageError, near
from perfmodel.core.precision import Precision, scheme
from perfmodel.models import preset
from perfmodel.models.architecture import Architecture
from perfmodel.parallel.layout import Layout
from perfmodel.scenario.scenario import Scenario
from perfmodel.time.machine import Machine, machine


@dataclass(frozen=True, slots=True)
class Price:
    """Rent of one GPU [USD/s] and where it comes from; None if the database has no offer."""

    value: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """Everything a scenario names, looked up."""

    scenario: Scenario
    architecture: Architecture
    precision: Precision
    layout: Layout
    machine: Machine
    price: Price
    model_source: str
    modified: tuple[str, ...]


def resolve(scenario: Scenario) -> Resolved:
    """Look up all names.

    Raises
    ------
    UsageError
        Unknown names (the nearest are listed), unreadable files, bad overrides.
    MissingDataError
        The database lacks a fact about the wires.
    """
    scenario.check()
    architecture, checkpoint, source = load_model(scenario.model, scenario.ignore)
    precision = scheme(scenario.quantization, scenario.dtype, checkpoint)
    precision = precision.with_kv(scenario.kv_cache_dtype)
    hardware = _hardware(scenario)
    return Resolved(
        scenario,
        architecture,
        precision,
        _layout(scenario),
        hardware,
        _price(scenario, hardware.gpu),
        source,
        tuple(scenario.set),
    )


def load_model(name: str, ignore: tuple[str, ...] = ()) -> tuple[Architecture, str, str]:
    """Architecture, checkpoint format and where they were read.

    A name is a preset first, then a file or folder, then a hub id.
    """
    if not name.strip():
        raise DataError("the name of the model is empty (perfmodel model ls)")
    found = preset.find(name)
    if found is not None:
        known = preset.load(found)
        origin = known.facts.origin
        return known.architecture, known.facts.checkpoint, f"{origin.url} ({origin.revision})"
    looks_local = name.endswith(".json") or name.startswith((".", "/", "~")) or Path(name).exists()
    if not looks_local and "/" not in name:
        raise DataError(f"no model named {name!r}{near(name, preset.ids())} (perfmodel model ls)")
    from perfmodel.models import hf

    try:
        architecture, checkpoint = hf.load(name, ignore=ignore)
    except DataError as error:
        if looks_local:
            raise
        raise DataError(f"{error}{near(name, preset.ids())}") from None
    return architecture, checkpoint, name


def _layout(scenario: Scenario) -> Layout:
    return Layout(
        *(
            _floats(value)
            for value in (
                scenario.tensor_parallel_size,
                scenario.pipeline_parallel_size,
                scenario.data_parallel_size,
                scenario.expert_parallel_size,
                scenario.context_parallel_size,
            )
        ),
        sp=scenario.sequence_parallel,
    )


def _floats(value: Numeric) -> Numeric:
    return value * 1.0


def _hardware(scenario: Scenario) -> Machine:
    """GPU in its node with the overrides applied."""
    try:
        gpu = hwdb.gpu(scenario.gpu)
        node = hwdb.node(scenario.node or gpu.node)
        calibration = hwdb.calibration(scenario.calibration)
        parts: dict[str, Any] = {"gpu": gpu, "node": node, "calibration": calibration}
        for path, value in scenario.set.items():
            head, _, rest = path.partition(".")
            if head not in parts or not rest:
                raise UsageError(f"--set {path}: starts with none of gpu., node., calibration.")
            try:
                parts[head] = modify(parts[head], rest, value)
            except UnitError as error:
                raise DataError(f"--set {path}: {error}") from None
        return machine(**parts)
    except UnknownValue as error:
        raise MissingDataError(str(error)) from None
    except (NotFound, hwdb.HwdbError) as error:
        raise DataError(str(error).splitlines()[0]) from None


def _price(scenario: Scenario, gpu: Gpu) -> Price:
    """The user's price, else the median of the dated on-demand offers."""
    if scenario.price is not None:
        return Price(scenario.price / 3600, "given with --price")
    try:
        offers = hwdb.prices(gpu.id).offers
    except NotFound:
        return Price(None, f"no offer for {gpu.id} in the database; give --price USD_PER_HOUR")
    except hwdb.HwdbError as error:
        raise DataError(str(error).splitlines()[0]) from None
    rents = [
        (float(offer.rent.value) / offer.gpus, offer)
        for offer in offers
        if offer.rent is not None and offer.term == "on-demand"
    ]
    if not rents:
        return Price(None, f"no on-demand offer for {gpu.id}; give --price USD_PER_HOUR")
    plural = "s" if len(rents) > 1 else ""
    newest = max(offer.date for _, offer in rents)
    middle = median(rent for rent, _ in rents)
    return Price(middle, f"median of {len(rents)} on-demand offer{plural}, newest {newest}")
