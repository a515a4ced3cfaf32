"""Benchmark of the kernels beside eager and compiled PyTorch: `python -m benchmarks.kernels [--ops a,b] [--seconds 480]`.

Needs a GPU. Runs each op's GPU tests first: an op whose tests are red gets no number.
"""

import argparse
import csv
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernels import providers

OUT = Path(__file__).parents[1] / "results" / "kernels"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--ops", default=",".join(providers.OPS))
    asked.add_argument("--seconds", type=float, default=480, help="after which nothing new is begun")
    asked.add_argument("--no-tests", action="store_true", help="they were green a moment ago")
    asked.add_argument("--no-compile", action="store_true", help="the caches on disk hold everything already")
    asked.add_argument("--out", type=Path, default=OUT)
    options = asked.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "NO GPU HERE: nothing was measured. docs/kernels.md has what was measured where there was one."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    run(options.ops.split(","), time.monotonic() + options.seconds, options)


def run(ops: list[str], deadline: float, options: argparse.Namespace) -> None:
    from benchmarks.kernels import ceilings, endtoend, measure
    from benchmarks.kernels.prepare import prepare

    red = prepare(ops, tests=not options.no_tests, compiles=not options.no_compile)
    for op, told in red.items():
        print(f"{op}: TESTS ARE RED, no number\n{told}", flush=True)
    machine, found = described(), ceilings.measure()
    print(machine, {name: round(value, 2) for name, value in found.items()}, flush=True)
    write(options.out / "ceilings.csv", [{**machine, **{k: round(v, 2) for k, v in found.items()}}])
    green = [op for op in ops if op not in red]
    table = Table(options.out / "ops.csv", machine)
    # What matters most comes first, should the time run out.
    table.fill(measure.rows(green, providers.PROVIDERS[:2], found, deadline))
    if not red and time.monotonic() < deadline:
        large = torch.cuda.get_device_properties(0).total_memory > 40 << 30
        Table(options.out / "steps.csv", machine).fill(endtoend.rows(large=large))
    table.fill(measure.rows(green, providers.PROVIDERS[2:], found, deadline))


class Table:
    """A CSV that is whole after each row, and the same rows on the screen."""

    def __init__(self, path: Path, machine: dict[str, str]) -> None:
        self._path, self._machine = path, machine
        self._rows: list[dict[str, Any]] = []

    def fill(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            say(row)
            self._rows.append({**row, **self._machine})
            write(self._path, self._rows)


def described() -> dict[str, str]:
    """What the numbers are of: card, driver, versions, day."""
    import triton

    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "gpu": torch.cuda.get_device_name(0),
        "driver": driver,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "day": time.strftime("%Y-%m-%d"),
    }


def say(row: dict[str, Any]) -> None:
    print(" ".join(f"{name}={value}" for name, value in row.items() if value != ""), flush=True)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
