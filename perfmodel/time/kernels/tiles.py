"""Tile menus: the output tiles a kernel library may cut a GEMM into, as its source code says.

A library that searches (cuBLAS, an autotuned CUTLASS) is taken to find the fastest of its menu; a
hand-written dispatch allows one tile per range of rows. Tiles are what one SM computes: an MMA that
two SMs share counts as half. Swapped operands appear as tiles with few rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.core.errors import UsageError, near

UNLIMITED: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Tile:
    """Output elements one SM works on, for GEMMs with ``above`` < rows <= ``upto``."""

    rows: int
    cols: int
    above: float = 0.0
    upto: float = UNLIMITED


@dataclass(frozen=True, slots=True)
class Menu:
    """Tiles and split-K factors a library has; ``source`` says where that was read."""

    name: str
    tiles: tuple[Tile, ...]
    splits: tuple[int, ...]
    source: str


@functools.lru_cache
def candidates(menu: Menu) -> NDArray[np.float64]:
    """Every combination of a menu: rows, cols, split, above and upto, each [candidates]."""
    rows = [
        (tile.rows, tile.cols, split, tile.above, tile.upto)
        for tile in menu.tiles
        for split in menu.splits
    ]
    table = np.array(rows, dtype=float).T
    table.setflags(write=False)
    return table


def _tiles(*sides: tuple[int, int]) -> tuple[Tile, ...]:
    return tuple(Tile(rows, cols) for rows, cols in sides)


_MENUS: Final = (
    Menu(
        "library",
        _tiles((256, 256), (256, 128), (128, 256), (128, 128), (64, 256), (256, 64), (64, 128),
               (128, 64), (64, 64), (32, 128), (128, 32), (16, 128), (128, 16), (32, 64), (64, 32),
               (16, 64), (64, 16)),
        (1, 2, 4, 8, 16, 32),
        "cuBLAS kernel names: tiles of 16 to 256, split-K; the heuristic is taken to be perfect",
    ),
    Menu(
        "persistent",
        _tiles((64, 16), (64, 32), (64, 64), (64, 96), (64, 128), (128, 64), (128, 96), (128, 128),
               (128, 160), (256, 128)),
        (1,),
        "DeepGEMM, jit_kernels/heuristics: block m 64 to 256, block n in steps of 16, no split-K",
    ),
    Menu(
        "cutlass-sm90",
        (Tile(16, 64, 0, 64), Tile(64, 64, 16, 64), Tile(64, 128, 64, 128), Tile(128, 128, 128)),
        (1,),
        "vLLM, csrc/quantization/w8a8/cutlass/c3x/scaled_mm_sm90_fp8_dispatch.cuh",
    ),
    Menu(
        "cutlass-sm100",
        (Tile(32, 64, 0, 16), Tile(64, 128, 16, 64), Tile(64, 64, 63, 64), Tile(64, 128, 64, 256),
         Tile(128, 128, 256)),
        (1,),
        "vLLM, csrc/quantization/w8a8/cutlass/c3x/scaled_mm_sm100_fp8_dispatch.cuh",
    ),
    Menu(
        "cutlass-sm120",
        (Tile(16, 64, 0, 16), Tile(32, 64, 16, 32), Tile(64, 64, 32, 256), Tile(128, 128, 256)),
        (1,),
        "vLLM, csrc/quantization/w8a8/cutlass/c3x/scaled_mm_sm120_fp8_dispatch.cuh",
    ),
)  # fmt: skip

MENUS: Final[dict[str, Menu]] = {menu.name: menu for menu in _MENUS}


def menu(name: str) -> Menu:
    """A menu by name.

    Raises
    ------
    perfmodel.core.errors.UsageError
        There is none of that name.
    """
    if name not in MENUS:
        raise UsageError(f"no tile menu {name!r}{near(name, MENUS)}")
    return MENUS[name]
