"""The audit of a chaos run sees each fault that it is there for, planted one at a time into a run that was sound."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.default import DefaultDialect

from chaos.audit import RULES
from chaos.evidence import Evidence
from chaos.submitters import Answer
from chaos.unfenced import without_guard
from chaos.witness import Child, Said
from chaos.work import Task
from db.artifacts import Artifacts
from db.tables import Event, File, Job, Model, TenantLoad
from domain.job import Kind, Lane, Stage, State


def event(seq: int, name: str, fence: int, state: State, message: str = "") -> Event:
    return Event(job="check_1", seq=seq, name=name, fence=fence, message=message, data={"state": state})


HISTORY = (
    event(1, "job.created", 0, State.QUEUED),
    event(2, "job.claimed", 1, State.RUNNING),
    event(3, "job.reaped", 2, State.QUEUED, "Requeued: its worker went silent."),
    event(4, "job.claimed", 3, State.RUNNING),
    event(5, "job.succeeded", 3, State.SUCCEEDED),
)
RESULT = File(id="file-1", filename="issues.jsonl", sha256="0")


def job(**other: object) -> Job:
    values = {
        "id": "check_1",
        "tenant": "ada",
        "kind": Kind.CHECK,
        "stage": Stage.RUN,
        "lane": Lane.CPU,
        "state": State.SUCCEEDED,
        "fence": 3,
        "deaths": 1,
        "max_deaths": 3,
        "event_seq": 5,
        "idempotency_key": "check-1",
    }
    return Job(**values | other)


@pytest.fixture
def sound(tmp_path: Path) -> Evidence:
    """A job that lost its first worker, whose late outcome was refused, and that its second worker did."""
    return Evidence(
        tasks=[Task("check-1", "ada", "/v1/files/file-0/validate", {}, "succeeded", 1)],
        answers=[Answer("check-1", 202, "check_1", None), Answer("check-1", 202, "check_1", None)],
        cancelled=frozenset(),
        said=[
            Said("claimed", "check_1", 1, 10.0, keeper=100),
            Said("claimed", "check_1", 3, 13.0, keeper=200),
            Said("settled", "check_1", 3, 14.0, keeper=200),
            Said("refused", "check_1", 1, 15.0, keeper=100),
        ],
        children=[Child(101, 100, 10.1, {1, 2}), Child(201, 200, 13.1, {8, 9})],
        jobs={"check_1": job()},
        events={"check_1": HISTORY},
        results={"check_1": [RESULT]},
        models=[],
        checkpoints=[],
        loads=[TenantLoad(tenant="ada", lane="cpu", running=0)],
        artifacts=Artifacts(tmp_path),
    )


def test_a_sound_run_breaks_no_rule(sound: Evidence) -> None:
    assert [what for rule in RULES.values() for what in rule(sound)] == []


Plant = Callable[[Evidence], Evidence]
PLANTED: dict[str, tuple[str, Plant]] = {
    "a job that is not there": ("lost", lambda e: replace(e, jobs={})),
    "a job that never ended": ("lost", lambda e: replace(e, jobs={"check_1": job(state=State.QUEUED)})),
    "a client that was never answered": ("lost", lambda e: replace(e, answers=[])),
    "two jobs of one key": (
        "doubled",
        lambda e: replace(e, jobs={**e.jobs, "check_2": job(id="check_2")}),
    ),
    "two ids told for one key": (
        "doubled",
        lambda e: replace(e, answers=[*e.answers, Answer("check-1", 202, "check_2", None)]),
    ),
    "two ends": (
        "doubled",
        lambda e: replace(e, events={"check_1": [*HISTORY, event(6, "job.succeeded", 3, State.SUCCEEDED)]}),
    ),
    "results published twice": ("doubled", lambda e: replace(e, results={"check_1": [RESULT, RESULT]})),
    "two models of one job": (
        "doubled",
        lambda e: replace(e, models=[Model(id="a", job="check_1"), Model(id="b", job="check_1")]),
    ),
    "two children at once": (
        "doubled",
        lambda e: replace(e, children=[Child(101, 100, 10.1, {1, 8}), Child(201, 200, 13.1, {8, 9})]),
    ),
    "an end that the task does not have": (
        "unexpected ends",
        lambda e: replace(e, jobs={"check_1": job(state=State.FAILED)}),
    ),
    "a cancel that nobody asked for": (
        "unexpected ends",
        lambda e: replace(e, jobs={"check_1": job(state=State.CANCELLED)}),
    ),
    "no result": ("unexpected ends", lambda e: replace(e, results={})),
    "a job that still runs": (
        "not at rest",
        lambda e: replace(e, jobs={"check_1": job(state=State.RUNNING)}),
    ),
    "a lease of a final job": (
        "not at rest",
        lambda e: replace(e, jobs={"check_1": job(lease_owner="w", lease_until=1.0)}),
    ),
    "a tenant that is still charged": (
        "not at rest",
        lambda e: replace(e, loads=[TenantLoad(tenant="ada", lane="cpu", running=1)]),
    ),
    "a gap in the events": (
        "gaps in event numbers",
        lambda e: replace(e, events={"check_1": [*HISTORY[:2], *HISTORY[3:]]}),
    ),
    "a last event that is missing": (
        "gaps in event numbers",
        lambda e: replace(e, events={"check_1": HISTORY[:4]}),
    ),
    "an outcome of a claim that was reaped": (
        "late writes that landed",
        lambda e: replace(e, said=[*e.said, Said("settled", "check_1", 1, 15.0, keeper=100)]),
    ),
    "words of a claim that was reaped": (
        "late writes that landed",
        lambda e: replace(
            e,
            events={"check_1": [*HISTORY[:4], event(5, "validation", 1, State.RUNNING)]},
        ),
    ),
    "a model of another claim": (
        "late writes that landed",
        lambda e: replace(e, jobs={"check_1": job(result_ref="jobs/check_1/1-ab/model")}),
    ),
    "a checkpoint that was not published": (
        "late writes that landed",
        lambda e: replace(e, jobs={"check_1": job(checkpoint_ref="jobs/check_1/1-ab/checkpoints/5")}),
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_the_audit_sees(planted: str, sound: Evidence) -> None:
    rule, plant = PLANTED[planted]

    assert RULES[rule](plant(sound)) != []


def test_the_audit_sees_a_folder_that_is_nobodys(sound: Evidence) -> None:
    (sound.artifacts.root / "jobs" / "check_1" / "4-ab").mkdir(parents=True)

    assert RULES["folders of nobody"](sound) == ["check_1/4-ab is nobody's"]


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.psycopg.dialect()])
def test_the_switch_finds_the_fence_in_what_the_product_sends(dialect: DefaultDialect) -> None:
    statement = update(Job).where(Job.id == "j", Job.state == State.RUNNING, Job.fence == 3)
    sent = str(statement.values(fence=Job.fence + 1).compile(dialect=dialect))

    open_ = without_guard(sent)

    assert "jobs.fence =" in sent
    assert "jobs.fence =" not in open_
    assert "IS NOT NULL" in open_
    assert "fence=(jobs.fence +" in open_
