"""Put the current output of the README's first example into the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
EXAMPLE = re.compile(r"(```console\n\$ perfmodel )(.*?)\n(.*?)```", re.DOTALL)


def current() -> str:
    """The README with the first console block's output as the program prints it today."""
    text = README.read_text(encoding="utf-8")
    block = EXAMPLE.search(text)
    assert block is not None
    arguments = block.group(2).replace("\\\n", " ").split()
    run = [sys.executable, "-m", "perfmodel", *arguments]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    return text[: block.start(3)] + output + text[block.end(3) :]


if __name__ == "__main__":
    README.write_text(current(), encoding="utf-8")
