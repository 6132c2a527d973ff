"""numba's decorator, with a disk cache that follows all that is compiled.

numba renews a cached function when its own file changes, not when a function or a constant of
another file does. So the cache's folder is named after a digest of all of them.
"""

# pyright: basic

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numba
from numba.core import config as _config

from perfmodel.serving.simulate import fleet, policy, record

CONFIG: Any = _config  # its attributes are made when it is imported
_STALE = 30 * 86400.0  # folders of other versions go after so long without use [s]


def digest(paths: Iterable[Path]) -> str:
    """Digest of numba's version and of files."""
    found = hashlib.sha256(numba.__version__.encode())
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _compiled() -> list[Path]:
    """The core's files and those whose constants it uses."""
    modules = [Path(str(module.__file__)) for module in (fleet, policy, record)]
    return [*sorted(Path(__file__).parent.glob("*.py")), *modules]


def _folder() -> str:
    """Folder of this version's compiled functions; empty where none can be written."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = Path(CONFIG.CACHE_DIR or base).expanduser() / "perfmodel-simulate"
    mine = root / digest(_compiled())
    try:
        mine.mkdir(parents=True, exist_ok=True)
        os.utime(mine)
        for other in root.iterdir():
            if time.time() - other.stat().st_mtime > _STALE:
                shutil.rmtree(other, ignore_errors=True)
    except OSError:
        return ""
    return str(mine) if os.access(mine, os.W_OK) else ""


FOLDER = _folder()


def jit(function: Any) -> Any:
    """Compile when first called, without counting references: the core allocates nothing."""
    options = {"error_model": "numpy", "_nrt": False, "cache": bool(FOLDER)}
    before = CONFIG.CACHE_DIR
    CONFIG.CACHE_DIR = FOLDER
    try:
        made: Any = numba.njit(**options)(function)
    finally:
        CONFIG.CACHE_DIR = before
    found: Any = made.get_call_template

    def template(arguments: Any, keywords: Any) -> Any:
        """One version for all numbers, where numba would make one for each constant."""
        return found(tuple(map(numba.types.unliteral, arguments)), keywords)

    made.get_call_template = template
    return made
