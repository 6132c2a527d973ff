"""Number formats and precision schemes: bits per tensor class, with their overheads.

A `NumericFormat` says how many bytes an element costs including scales, and which datapath reads
it. A `Precision` assigns formats to tensor classes; `SCHEMES` names the usual assignments by vLLM's
``--quantization`` spellings. What a GPU supports is the hardware database's word.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from perfmodel.core.errors import UsageError, near

LINEAR_CLASSES: Final = ("attention", "mixer", "ffn", "experts", "shared_experts")


@dataclass(frozen=True, slots=True)
class NumericFormat:
    """A storage format.

    Parameters
    ----------
    name : str
        Identifier.
    bits : float
        Bits of the element itself.
    math : str
        Datapath (peak of the GPU) that multiplies two operands of this format natively.
    group : float
        Elements that share one set of scales; ``inf`` if the share is negligible.
    overhead_bits : float
        Bits of scale and zero point per group.

    Examples
    --------
    >>> FORMATS["int4_g128"].bytes
    0.51953125
    """

    name: str
    bits: float
    math: str
    group: float = float("inf")
    overhead_bits: float = 0.0

    @property
    def bytes(self) -> float:
        """Bytes per element, scales included."""
        return (self.bits + self.overhead_bits / self.group) / 8


FORMATS: Final[dict[str, NumericFormat]] = {
    row.name: row
    for row in (
        NumericFormat("fp32", 32, "fp32"),
        NumericFormat("tf32", 32, "tf32"),
        NumericFormat("bf16", 16, "bf16"),
        NumericFormat("fp16", 16, "fp16"),
        NumericFormat("fp8", 8, "fp8"),
        # 128 x 128 blocks, fp32 scale (DeepSeek-V3 report, section 3.3.2)
        NumericFormat("fp8_block", 8, "fp8", 128 * 128, 32),
        # OCP Microscaling Formats v1.0: 32 elements share an 8-bit exponent
        NumericFormat("mxfp8", 8, "fp8", 32, 8),
        NumericFormat("mxfp6", 6, "fp6", 32, 8),
        NumericFormat("mxfp4", 4, "fp4", 32, 8),
        # 16 elements share an fp8 scale (NVIDIA NVFP4)
        NumericFormat("nvfp4", 4, "fp4", 16, 8),
        NumericFormat("int8", 8, "int8"),
        NumericFormat("int4", 4, "int4"),
        # AWQ/GPTQ: fp16 scale and 4-bit zero point per 128 weights
        NumericFormat("int4_g128", 4, "int4", 128, 20),
        # Kimi-K2 INT4 experts: symmetric, bf16 scale per 32 weights
        NumericFormat("int4_g32", 4, "int4", 32, 16),
    )
}


@dataclass(frozen=True, slots=True)
class Precision:
    """Formats by tensor class.

    ``weights`` maps tensor classes to formats (missing classes use ``base``); ``activations`` maps
    classes to what the GEMM reads (missing: ``base``); ``kv`` is the cache's format.
    """

    name: str
    base: NumericFormat = FORMATS["bf16"]
    weights: dict[str, NumericFormat] = field(default_factory=lambda: {})
    activations: dict[str, NumericFormat] = field(default_factory=lambda: {})
    kv: NumericFormat = FORMATS["bf16"]

    def weight(self, cls: str) -> NumericFormat:
        """Storage format of a class of weights."""
        return self.weights.get(cls, self.base)

    def activation(self, cls: str) -> NumericFormat:
        """Format in which a class's GEMM reads its activations."""
        return self.activations.get(cls, self.base)

    def math(self, cls: str) -> str:
        """Datapath of a class's GEMM: the wider operand decides, narrow weights are dequantised."""
        weight, activation = self.weight(cls), self.activation(cls)
        return weight.math if weight.bits > activation.bits else activation.math

    def with_kv(self, name: str) -> Precision:
        """The same scheme with another cache format (``auto`` keeps it)."""
        return (
            self if name == "auto" else replace(self, kv=format_named(_KV_ALIASES.get(name, name)))
        )


def _scheme(
    name: str, weight: str, activation: str | None = None,
    classes: tuple[str, ...] = LINEAR_CLASSES, base: str = "bf16",
) -> Precision:  # fmt: skip
    weights = dict.fromkeys(classes, FORMATS[weight])
    activations = dict.fromkeys(classes, FORMATS[activation]) if activation else {}
    return Precision(name, FORMATS[base], weights, activations, FORMATS[base])


def _mixed(name: str, weight: str, activation: str, expert: str, entering: str) -> Precision:
    """One format for the experts, another for the other linear maps (DeepSeek-V4)."""
    rest = _scheme(name, weight, activation)
    return replace(
        rest,
        weights=rest.weights | {"experts": FORMATS[expert]},
        activations=rest.activations | {"experts": FORMATS[entering]},
    )


SCHEMES: Final[dict[str, Precision]] = {
    row.name: row
    for row in (
        Precision("bf16"),
        Precision("fp16", base=FORMATS["fp16"], kv=FORMATS["fp16"]),
        Precision("fp32", base=FORMATS["fp32"], kv=FORMATS["fp32"]),
        _scheme("fp8", "fp8", "fp8"),
        _scheme("fp8_block", "fp8_block", "fp8"),
        _scheme("fp8_wo", "fp8"),
        _scheme("mxfp8", "mxfp8", "mxfp8"),
        _scheme("int8", "int8", "int8"),
        _scheme("int8_wo", "int8"),
        _scheme("int4", "int4", "int4"),
        _scheme("awq", "int4_g128", base="fp16"),
        _scheme("gptq", "int4_g128", base="fp16"),
        _scheme("w4a8", "int4_g128", "int8", base="fp16"),
        _scheme("nvfp4", "nvfp4", "nvfp4"),
        _scheme("mxfp4", "mxfp4", classes=("experts",)),
        _scheme("w4a8_mxfp4_mxfp8", "mxfp4", "mxfp8", classes=("experts",)),
        _mixed("fp8_mxfp4_experts", "fp8_block", "fp8", "mxfp4", "mxfp8"),
        _scheme("int4_experts", "int4_g32", classes=("experts",)),
        _scheme("nvfp4_experts", "nvfp4", "nvfp4", classes=("experts", "shared_experts", "ffn")),
    )
}
_DTYPES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
}
_KV_ALIASES = {"fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "bfloat16": "bf16", "float16": "fp16"}


def scheme(quantization: str | None, dtype: str, checkpoint: str) -> Precision:
    """Precision from vLLM's flags.

    Parameters
    ----------
    quantization : str or None
        Name of a scheme; None takes the checkpoint's own.
    dtype : str
        ``auto`` or an unquantised base type; with ``quantization`` unset it replaces the scheme.
    checkpoint : str
        Scheme the weights are published in.

    Raises
    ------
    UsageError
        Unknown name; the nearest are listed.

    Examples
    --------
    >>> scheme("fp8", "auto", "bf16").math("ffn")
    'fp8'
    >>> scheme("awq", "auto", "bf16").math("ffn")
    'fp16'
    """
    plain = _DTYPES.get(dtype, dtype)
    if plain not in ("auto", "bf16", "fp16", "fp32"):
        known = ("auto", "bfloat16", "float16", "float32")
        raise UsageError(f"--dtype {dtype!r} is not one of {', '.join(known)}{near(dtype, known)}")
    name = quantization or (checkpoint if plain == "auto" else plain)
    if name not in SCHEMES:
        raise UsageError(f"no precision scheme named {name!r}{near(name, SCHEMES)}; "
                         f"schemes: {', '.join(SCHEMES)}")  # fmt: skip
    found = SCHEMES[name]
    if quantization and plain != "auto":
        found = replace(found, base=FORMATS[plain], kv=FORMATS[plain])
    return found


def format_named(name: str) -> NumericFormat:
    """Number format by name; raises `UsageError` naming the nearest."""
    if name not in FORMATS:
        raise UsageError(f"no number format named {name!r}{near(name, FORMATS)}; "
                         f"formats: {', '.join(FORMATS)}")  # fmt: skip
    return FORMATS[name]
