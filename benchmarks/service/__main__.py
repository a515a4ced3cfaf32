"""Runs the benchmark of the service: `python -m benchmarks.service [--quick] [--only submits,claims] [--out folder]`."""

import argparse
import csv
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.service import claims, crowd, sides, starts, statuses, submits

ROOT = Path(__file__).parents[2]
DATABASES = ("sqlite", "postgresql")
PARTS = ("submits", "statuses", "claims", "starts", "crowd")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--quick", action="store_true", help="a second of everything: whether it runs at all")
    asked.add_argument("--only", default=",".join(PARTS))
    asked.add_argument("--databases", default=",".join(DATABASES))
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "service")
    options = asked.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.only.split(","):
        rows = []
        for kind in options.databases.split(","):
            for row in measured(part, kind, quick=options.quick):
                rows.append({"database": kind, **row})
                print(part, *(f"{name}={value}" for name, value in rows[-1].items()), flush=True)
        write(options.out / f"{part}.csv", rows)


def measured(part: str, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """One part on one kind of database."""
    rounds, seconds = (1, 0.2) if quick else (7, 2.0)
    if part == "claims":
        sizes = {"few": 50, "many": 200} if quick else {}
        return claims.measure(kind, rounds=5 if quick else 200, **sizes)
    with sides.ground(kind) as on:
        if part == "starts":
            return starts.measure(on, rounds=1 if quick else 30)
        if part == "crowd":
            few = {"clients": 20, "streams": 4} if quick else {}
            return crowd.measure(on, rounds=1 if quick else 3, seconds=1.0 if quick else 15.0, **few)
        measure = {"submits": submits.measure, "statuses": statuses.measure}[part]
        return measure(on, rounds=rounds, seconds=seconds)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """The rows, each with what they were measured on."""
    packages = ("flask", "gunicorn", "sqlalchemy", "celery", "psycopg")
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    machine |= {name: version(name) for name in packages}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *machine])
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)


if __name__ == "__main__":
    main()
