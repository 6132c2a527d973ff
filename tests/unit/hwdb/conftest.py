"""A user's own hardware folder, and the smallest accelerator file that the schema accepts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hwdb import load

TOY = """
name = "Toy"
architecture = "toy"
released = "2024-01"
node = "toy-node"
aliases = ["toy-alias"]
[sources.ds]
title = "Toy datasheet"
url = "https://example.org/toy"
accessed = "2026-11-23"
[memory]
type = "HBM3"
capacity = { value = "80 GB", source = "ds" }
bandwidth = { value = "3.35 TB/s", source = "ds", note = "read twice" }
[peak]
bf16 = { value = "990 TFLOP/s", source = "ds" }
[power]
tdp = { value = "700 W", source = "ds" }
idle = { unknown = "never published" }
[scale_up]
fabric = "toy-link"
bandwidth = { value = "450 GB/s", source = "ds" }
"""

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Puts a file into the folder that PERFMODEL_HWDB names; ``gpus/acme/toy.toml`` is there."""
    monkeypatch.setenv(load.USER_FOLDER, str(tmp_path))

    def write(name: str, text: str | bytes) -> Path:
        path = tmp_path / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    write("gpus/acme/toy", TOY)
    return write
