"""Contenders in turn, round after round: what else the machine does meanwhile hits all of them alike."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.service import load


@dataclass(frozen=True)
class Contender:
    name: str
    port: int
    request: str
    expect: int = 200
    #: What goes on meanwhile.
    beside: Callable[[], AbstractContextManager[object]] = nullcontext


def in_turn(
    contenders: list[Contender],
    *,
    clients: int,
    rounds: int,
    seconds: float,
    against: str,
    between: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """One row a contender: its medians, and the median, least and greatest ratio to `against` of the same round."""
    told: dict[str, list[load.Told]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for one in contenders:
            plan = load.Plan(
                one.port,
                [one.request],
                clients,
                seconds,
                expect=one.expect,
                seed=f"{one.name}-{clients}-{number}-",
            )
            with one.beside():
                told[one.name].append(load.run(plan))
        between()
    return [_row(name, clients, runs, told[against]) for name, runs in told.items()]


def _row(name: str, clients: int, runs: list[load.Told], others: list[load.Told]) -> dict[str, Any]:
    ratios = [one.per_second / other.per_second for one, other in zip(runs, others, strict=True)]
    return {
        "contender": name,
        "clients": clients,
        "per_second": round(median(run.per_second for run in runs)),
        "p50_ms": round(median(run.quantile(0.5) for run in runs) * 1000, 2),
        "p99_ms": round(median(run.quantile(0.99) for run in runs) * 1000, 2),
        "errors": sum(run.errors for run in runs),
        "ratio": round(median(ratios), 2),
        "ratio_least": round(min(ratios), 2),
        "ratio_most": round(max(ratios), 2),
    }
