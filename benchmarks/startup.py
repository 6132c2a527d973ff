"""What a command costs before it answers: medians of whole processes, next to an empty Python.

python benchmarks/startup.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

QUESTION = ["--model", "meta-llama/Llama-3.1-70B", "--gpu", "h100-sxm", "-tp", "4"]
COMMANDS: dict[str, list[str]] = {
    "python -c pass": ["-c", "pass"],
    "import perfmodel": ["-c", "import perfmodel"],
    "perfmodel --help": ["-m", "perfmodel", "--help"],
    "perfmodel estimate ...": ["-m", "perfmodel", "estimate", *QUESTION],
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def seconds(arguments: list[str]) -> float:
    """Wall time of one process from start to exit."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | ONE_THREAD, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return time.perf_counter() - start


def main() -> None:
    """Run every command in turn, several rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 11")
    rounds = 3 if parser.parse_args().quick else 11
    for arguments in COMMANDS.values():  # compile and fill the file cache
        seconds(arguments)
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):  # interleaved: a busy moment hits all alike
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    empty = statistics.median(taken["python -c pass"])
    print(f"{'command':<24} {'median ms':>9}  ratio")
    for name, values in taken.items():
        middle = statistics.median(values)
        print(f"{name:<24} {middle * 1e3:>9.0f} {middle / empty:>6.1f}")


if __name__ == "__main__":
    main()
