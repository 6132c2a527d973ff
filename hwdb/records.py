"""The records of the hardware database: plain frozen dataclasses, one per kind of thing.

Every physical fact in them is a `Cited`: an SI number together with where it was read. The same
classes are the schema of the TOML files (`hwdb.schema` hands them to pydantic), so a field is
declared once. Numbers may be replaced by arrays (`Cited.si` is ``float | ndarray``): one record
then describes a whole family of hypothetical parts. Reading files is `hwdb.load`'s work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from hwdb.citation import Cited, Unit

SourceKind = Literal["datasheet", "docs", "whitepaper", "paper", "table", "press", "code", "note"]
Dtype = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp6", "fp4", "int4"]
Topology = Literal["switch", "mesh", "ring", "torus", "pairs", "pcie-tree"]
Term = Literal["on-demand", "reserved-1y", "reserved-3y", "spot", "purchase", "owned"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where facts were read: a document, not a claim about it."""

    title: str
    url: str
    accessed: str
    kind: SourceKind = "datasheet"
    note: str = ""


Bytes = Annotated[Cited, Unit("bytes")]
BytesPerS = Annotated[Cited, Unit("bytes/s")]
FlopPerS = Annotated[Cited, Unit("FLOP/s")]
Hertz = Annotated[Cited, Unit("Hz")]
Watts = Annotated[Cited, Unit("W")]
Seconds = Annotated[Cited, Unit("s")]
Number = Annotated[Cited, Unit("1")]
Money = Annotated[Cited, Unit("USD")]
MoneyPerS = Annotated[Cited, Unit("USD/s")]
SquareMetres = Annotated[Cited, Unit("m2")]


class Record(Protocol):
    """What all records share: an id (its path), a name and the sources its facts cite."""

    id: str
    name: str
    sources: dict[str, Source]


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Device memory: HBM, GDDR or unified DRAM, and the last-level cache in front of it.

    ``capacity`` is what the vendor prints, ``usable`` what the driver reports as total: a part sold
    as 80 GB holds 80 GiB of DRAM less what ECC and firmware keep.
    """

    type: str
    capacity: Bytes
    bandwidth: BytesPerS
    usable: Bytes | None = None
    l2: Bytes | None = None
    unified: bool = False


@dataclass(frozen=True, slots=True)
class GpuCompute:
    """Execution resources (streaming multiprocessors, compute units, tensor cores of a TPU …)."""

    units: Number | None = None
    boost_clock: Hertz | None = None
    base_clock: Hertz | None = None
    die_area: SquareMetres | None = None


@dataclass(frozen=True, slots=True)
class Power:
    """Board power: the configured limit, and what an idle but powered part draws."""

    tdp: Watts
    idle: Watts | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """One device's share of a fabric: bandwidth per direction, all links of the device together."""

    fabric: str
    bandwidth: BytesPerS
    links: Number | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator: GPU, TPU, NPU or an integrated GPU with unified memory.

    ``peak`` holds dense matrix-unit rates, ``vector`` the rates of the ordinary lanes (CUDA cores);
    a dtype that is absent is not supported by that datapath. ``node`` is the id of the machine the
    part is usually sold in.
    """

    id: str
    name: str
    vendor: str
    architecture: str
    released: str
    memory: GpuMemory
    peak: dict[Dtype, FlopPerS]
    power: Power
    node: str
    sources: dict[str, Source]
    vector: dict[Dtype, FlopPerS] = field(default_factory=lambda: {})
    compute: GpuCompute = GpuCompute()
    scale_up: Port | None = None
    host: Port | None = None
    aliases: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class CpuMemory:
    """Host DRAM of one socket: channels, peak bandwidth and the most it can hold."""

    type: str
    bandwidth: BytesPerS
    channels: Number | None = None
    capacity: Bytes | None = None


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU socket. ``peak`` holds its best dense rates over all cores (AVX-512, AMX, SVE …)."""

    id: str
    name: str
    vendor: str
    architecture: str
    released: str
    cores: Number
    vector_width: Annotated[Cited, Unit("bit")]
    base_clock: Hertz
    memory: CpuMemory
    peak: dict[Dtype, FlopPerS]
    power: Power
    sources: dict[str, Source]
    boost_clock: Hertz | None = None
    all_core_clock: Hertz | None = None
    l3: Bytes | None = None
    host: Port | None = None
    aliases: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fabric:
    """An interconnect standard: one link or port, per direction."""

    id: str
    name: str
    use: Literal["scale-up", "scale-out", "host"]
    bandwidth: BytesPerS
    latency: Seconds
    sources: dict[str, Source]
    in_network_reduction: bool = False
    aliases: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """The fast domain inside a node or rack: how many devices, wired how."""

    fabric: str
    domain: Number
    topology: Topology


@dataclass(frozen=True, slots=True)
class ScaleOut:
    """The network between nodes: which fabric and how many ports a node has."""

    fabric: str
    ports: Number


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Host DRAM of the whole node."""

    capacity: Bytes
    bandwidth: BytesPerS | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine: accelerators, host CPUs and DRAM, the wires between them, storage and power."""

    id: str
    name: str
    gpu: str
    gpus: Number
    sources: dict[str, Source]
    scale_up: ScaleUp | None = None
    scale_out: ScaleOut | None = None
    cpu: str | None = None
    sockets: Number | None = None
    host_memory: HostMemory | None = None
    storage: str | None = None
    power: Power | None = None
    aliases: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage tier: sequential bandwidth, latency and capacity of one drive."""

    id: str
    name: str
    capacity: Bytes
    read_bandwidth: BytesPerS
    write_bandwidth: BytesPerS
    latency: Seconds
    sources: dict[str, Source]
    aliases: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one seller asked on one day: rent per hour, or a purchase price, for ``gpus`` parts.

    The term "owned" is no offer to others: its rent is the all-in cost to the seller itself, as
    the source estimates it.
    """

    seller: str
    term: Term
    gpus: int
    date: str
    rent: MoneyPerS | None = None
    purchase: Money | None = None
    instance: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Prices:
    """Dated offers for one accelerator (the file is named after it)."""

    id: str
    name: str
    offers: tuple[Offer, ...]
    sources: dict[str, Source]
    aliases: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What software achieves of the hardware: shares of peak rates, fixed costs, memory overheads.

    ``compute`` and ``memory`` are shares by kernel family; `calibrations/uncalibrated.toml` holds
    the defaults that a measurement on a real machine replaces.
    """

    id: str
    name: str
    compute: dict[str, Number]
    memory: dict[str, Number]
    link: Number
    kernel_overhead: Seconds
    collective_overhead: Seconds
    step_overhead: Seconds
    expert_imbalance: Number
    runtime_memory: Bytes
    graph_memory: Bytes
    communication_memory: Bytes
    idle_power: Number
    compute_power: Number
    memory_power: Number
    sources: dict[str, Source]
    aliases: tuple[str, ...] = ()
    calibrated: bool = False
    note: str = ""


KINDS: dict[str, type[Any]] = {
    "gpus": Gpu,
    "cpus": Cpu,
    "nodes": Node,
    "fabrics": Fabric,
    "storage": Storage,
    "prices": Prices,
    "calibrations": Calibration,
}
