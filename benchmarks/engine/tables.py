"""How fast a table is checked, and in how much memory: `python -m benchmarks.engine.tables [--rows 100000,1000000]`.

Each check is a process of its own, so that its peak of memory is its own. The rows have an id, a text, a number, a
label and a split. Formats take turns; the median of the rounds is written.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FORMATS = ("jsonl", "csv", "parquet")
_SPLITS = ("train", "train", "train", "validation", "test")


def rows(count: int) -> Iterator[dict[str, Any]]:
    for n in range(count):
        text = f"row {n} says {n * 7919 % 10007} and goes on for some words more, as captions do"
        split = _SPLITS[n % 5]
        yield {"id": f"r{n}", "text": text, "price": n / 7, "label": f"c{n // 5 % 10}", "split": split}


def write(path: Path, count: int) -> None:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows(count))), path)
        return
    with path.open("w", newline="") as out:
        if path.suffix == ".jsonl":
            out.writelines(json.dumps(row) + "\n" for row in rows(count))
        else:
            writer = csv.DictWriter(out, next(rows(1)))
            writer.writeheader()
            writer.writerows(rows(count))


def check_one(path: Path) -> None:
    """In the process of its own: checks and prints seconds and peak megabytes."""
    from domain.specs import Multimodal
    from engine.data.check import check
    from engine.data.manifest import open_dataset

    began = time.perf_counter()
    with open_dataset(path) as dataset:
        report = check(dataset, Multimodal())
    assert not report.issues, report.issues[:3]
    seconds = time.perf_counter() - began
    # Not ru_maxrss, which a process inherits from the one that started it.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak, "the peak of memory is read on Linux only"
    print(report.rows, seconds, int(peak[1]) / 1024)


def measured(path: Path) -> tuple[float, float]:
    asked = [sys.executable, "-m", "benchmarks.engine.tables", "--check", str(path)]
    answer = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    _, seconds, peak = answer.stdout.split()
    return float(seconds), float(peak)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", default="100000,1000000")
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine")
    asked.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.check:
        check_one(options.check)
        return
    found = [row for count in map(int, options.rows.split(",")) for row in compared(count, options.rounds)]
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "tables.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, found[0])
        writer.writeheader()
        writer.writerows(found)


def compared(count: int, rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"rows.{kind}" for kind in FORMATS]
        for path in paths:
            write(path, count)
        runs = [[measured(path) for path in paths] for _ in range(rounds)]
        return [_row(path, count, [run[n] for run in runs]) for n, path in enumerate(paths)]


def _row(path: Path, count: int, runs: list[tuple[float, float]]) -> dict[str, Any]:
    seconds = statistics.median(taken for taken, _ in runs)
    row = {
        "format": path.suffix[1:],
        "rows": count,
        "megabytes": round(path.stat().st_size / 2**20, 1),
        "seconds": round(seconds, 2),
        "rows_per_second": round(count / seconds),
        "peak_mb": round(max(peak for _, peak in runs)),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "pyarrow": version("pyarrow"),
    }
    print(*(f"{name}={value}" for name, value in row.items()), flush=True)
    return row


if __name__ == "__main__":
    main()
