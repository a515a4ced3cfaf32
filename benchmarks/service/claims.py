"""(c) What a claim costs while 1,000 and while 200,000 jobs are queued; the two databases take turns."""

import time
from statistics import median
from typing import Any

from sqlalchemy import insert, text

from benchmarks.service import sides
from db import claims, tenants
from db.tables import Job
from domain.ids import new_id
from domain.job import Lane

FEW, MANY = 1_000, 200_000
_TENANTS = 20
_CHUNK = 5_000


def measure(kind: str, *, rounds: int, few: int = FEW, many: int = MANY) -> list[dict[str, Any]]:
    with sides.ground(kind) as small, sides.ground(kind) as large:
        fill(small, few)
        fill(large, many)
        took: dict[int, list[float]] = {few: [], many: []}
        for _ in range(rounds):
            for ground, size in ((small, few), (large, many)):
                took[size].append(_claim(ground))
    base = median(took[few])
    return [
        {
            "queued": size,
            "claims": rounds,
            "p50_ms": round(median(times) * 1000, 3),
            "p99_ms": round(sorted(times)[int(0.99 * len(times))] * 1000, 3),
            "ratio": round(median(times) / base, 2),
        }
        for size, times in took.items()
    ]


def _claim(on: sides.Ground) -> float:
    began = time.perf_counter()
    if claims.claim(on.database, Lane.CPU, "benchmark", 600.0) is None:
        raise RuntimeError("nothing was claimed")
    return time.perf_counter() - began


def fill(on: sides.Ground, jobs: int) -> None:
    """So many queued jobs of several tenants."""
    owners = [f"tenant-{n}" for n in range(_TENANTS)]
    with on.database.transaction() as session:
        for owner in owners:
            tenants.ensure(session, owner)
    for start in range(0, jobs, _CHUNK):
        rows = [_row(owners[n % _TENANTS]) for n in range(start, min(jobs, start + _CHUNK))]
        with on.database.transaction() as session:
            session.execute(insert(Job), rows)
    with on.database.transaction() as session:
        session.execute(text("ANALYZE"))


def _row(owner: str) -> dict[str, Any]:
    fixed = {"kind": "fine_tune", "stage": "validate", "lane": "cpu", "max_attempts": 3, "max_deaths": 3}
    return {
        "id": new_id("ftjob-"),
        "tenant": owner,
        "spec": {"model": "late-fusion"},
        "event_seq": 0,
        **fixed,
    }
