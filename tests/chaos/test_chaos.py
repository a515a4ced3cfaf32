"""Whatever dies, freezes or is lost: each job that was accepted ends once. And the audit would see if not."""

from pathlib import Path

import pytest

from chaos.report import Report
from chaos.run import again, run
from chaos.storm import Plan

pytestmark = pytest.mark.timeout(900)

SEED = 20_261


def judged(plan: Plan, folder: Path) -> Report:
    """Runs it; what it was and how to run it again is printed with a failure."""
    found = run(plan, folder)
    print(found.table(), again(plan), *found.violations, found.details, sep="\n")  # noqa: T201 - for whoever reads it
    return found


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_no_job_is_lost_or_doubled_under_a_few_faults(kind: str, tmp_path: Path) -> None:
    found = judged(Plan(kind, SEED, jobs=16, faults=8, workers=3), tmp_path)

    assert found.violations == []
    assert sum(found.struck.values()) >= 6
    assert found.seen_at_work >= 8


def late(fence: str) -> Plan:
    """Keepers that freeze with an outcome in hand, until their jobs are others'."""
    return Plan(
        "sqlite", SEED, jobs=6, faults=2, workers=3, fence=fence, kinds=("keeper frozen at its outcome",)
    )


@pytest.mark.slow
def test_late_outcomes_are_refused_by_the_fence(tmp_path: Path) -> None:
    found = judged(late("fenced"), tmp_path)

    assert found.violations == []
    assert found.late_refused >= 1


@pytest.mark.slow
def test_without_the_fence_the_same_run_fails(tmp_path: Path) -> None:
    found = judged(late("unfenced"), tmp_path)

    assert [what for what in found.violations if "landed after its lease was over" in what]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_job_is_lost_or_doubled_under_many_faults(kind: str, tmp_path: Path) -> None:
    found = judged(Plan(kind, SEED + 1, jobs=80, faults=36, trainings=2), tmp_path)

    assert found.violations == []
    assert sum(found.struck.values()) >= 30
    assert found.late_refused >= 1
