"""Parallel layouts: sizes, how many GPUs they need, and which of them a model can take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwdb.citation import Numeric
from perfmodel.core.types import Reason
from perfmodel.models.architecture import Architecture, moe_layers
from perfmodel.models.blocks import MoeFfn
from perfmodel.models.mixers import GatedDelta, Mamba
from perfmodel.parallel.shard import expert_tensor_parallel, layout_gpus


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of the parallel dimensions; each may be a number or an array.

    ``tp`` splits heads and FFN columns, ``pp`` layers, ``dp`` requests (in MoE models of attention
    only: experts are shared by all ranks), ``ep`` experts over the tp x dp x cp ranks, ``cp`` the
    tokens of each sequence. ``sp`` also divides the tokens of the norms over the ``tp`` ranks.
    """

    tp: Numeric = 1.0
    pp: Numeric = 1.0
    dp: Numeric = 1.0
    ep: Numeric = 1.0
    cp: Numeric = 1.0
    sp: bool = False

    @property
    def gpus(self) -> Numeric:
        """GPUs the layout occupies."""
        return layout_gpus(self.tp, self.pp, self.dp, self.cp)

    @property
    def moe_tp(self) -> Numeric:
        """Ways each expert is cut."""
        return expert_tensor_parallel(self.tp, self.dp * self.cp, self.ep)


def illegal(architecture: Architecture, layout: Layout) -> list[tuple[Any, str, str]]:
    """Rules a layout breaks.

    Returns
    -------
    list of (mask, message, nearest)
        ``mask`` is True where the rule is broken (bool or array); ``message`` says which and
        ``nearest`` which sizes would do.
    """
    broken: list[tuple[Any, str, str]] = []
    for name, units, what in _granules(architecture):
        size = getattr(layout, name)
        mask = np.mod(float(units), size) != 0
        broken.append((mask, f"{name}={_shown(size)} does not divide {units} {what}",
                       f"{name} of {', '.join(map(str, _divisors(units)))}"))  # fmt: skip
    deep = layout.pp > max(architecture.layers, 1)
    broken.append((deep, f"pp={_shown(layout.pp)} exceeds {architecture.layers} layers",
                   f"pp up to {architecture.layers}"))  # fmt: skip
    if moe_layers(architecture):
        ranks = layout.tp * layout.dp * layout.cp
        broken.append((np.mod(ranks, layout.ep) != 0,
                       f"ep={_shown(layout.ep)} does not divide tp x dp x cp = {_shown(ranks)}",
                       "ep that divides tp x dp x cp"))  # fmt: skip
    else:
        broken.append(
            (layout.ep > 1, f"ep={_shown(layout.ep)} but the model has no experts", "ep=1")
        )
    return broken


def legal(architecture: Architecture, layout: Layout) -> Any:
    """Reason code per layout: `Reason.OK` or `Reason.LAYOUT`."""
    code: Any = int(Reason.OK)
    for mask, _, _ in illegal(architecture, layout):
        code = np.where(mask, int(Reason.LAYOUT), code)
    return code


def legal_sizes(architecture: Architecture, name: str, most: int) -> list[int]:
    """Sizes of one dimension (others 1, ``ep`` with enough ``dp``) that the model can take."""
    sizes: list[int] = []
    for size in range(1, most + 1):
        sizes_of = {name: float(size)} if name != "ep" else {"ep": float(size), "dp": float(size)}
        layout = replace(Layout(), **sizes_of)
        if int(legal(architecture, layout)) == Reason.OK:
            sizes.append(size)
    return sizes


def _granules(architecture: Architecture) -> list[tuple[str, int, str]]:
    """(dimension, units it must divide, what they are), duplicates removed."""
    found: dict[tuple[str, int, str], None] = {}
    for layer, _ in architecture.distinct():
        for mixer in (layer.mixer, layer.cross):
            if isinstance(mixer, GatedDelta):
                found["tp", mixer.value_heads, "value heads"] = None
            elif isinstance(mixer, Mamba):
                found["tp", mixer.heads or mixer.inner, "mixer heads"] = None
            elif mixer is not None:
                found["tp", mixer.heads, "attention heads"] = None
        if isinstance(layer.ffn, MoeFfn):
            found["ep", layer.ffn.experts, "experts"] = None
    return list(found)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, min(number, 1024) + 1) if number % size == 0]


def _shown(value: Numeric) -> str:
    return f"{value:g}" if np.ndim(value) == 0 else "array"
