"""A checkpoint on its way from a child to its row: published once, and no bytes go that a row still names."""

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from db import claims, jobs, tenants
from db.session import Database
from db.tables import Checkpoint, Job
from domain.job import Lane
from support.commits import lose_the_answer_to_the_next_commit
from worker.hold import Hold

SPEC = {"model": "late-fusion", "multimodal": {"hyperparameters": {"save_total_limit": 1}}}


@pytest.fixture
def job(database: Database) -> Job:
    with database.transaction() as session:
        tenants.ensure(session, "a")
        jobs.submit(session, jobs.Submission(tenant="a", spec=SPEC))
    taken = claims.claim(database, Lane.CPU, "w", 60)
    assert taken is not None
    return taken


class Held:
    """A hold whose child only hears: what it was told, and which folders were taken away."""

    def __init__(self, database: Database, job: Job, bell: socket.socket) -> None:
        self.told: list[dict[str, Any]] = []
        self.gone: list[str] = []
        self.hold = Hold(
            database=database,
            job=job,
            lease_s=60.0,
            bell=bell,
            child=SimpleNamespace(tell=lambda **words: self.told.append(words)),  # type: ignore[arg-type]
            taken=time.monotonic(),
            draining=threading.Event(),
            discard=self.gone.append,
        )

    def hear_of(self, step: int, **metrics: float) -> None:
        words = {"ref": f"jobs/j/1-x/checkpoints/step-{step}", "step": step, "metrics": metrics}
        self.hold._hear({"say": "checkpoint", **words})


@pytest.fixture
def held(database: Database, job: Job) -> Iterator[Held]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Held(database, job, ours)


def steps(database: Database) -> list[tuple[int, bool]]:
    with database.reading() as session:
        rows = session.scalars(select(Checkpoint).order_by(Checkpoint.step))
        return [(row.step, row.available) for row in rows]


def test_a_checkpoint_whose_commit_was_never_answered_is_published_once_and_keeps_its_bytes(
    held: Held, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_answer_to_the_next_commit(database, monkeypatch)

    held.hear_of(1)
    assert held.told == []
    held.hold._publish()

    assert held.told == [{"published": "jobs/j/1-x/checkpoints/step-1"}]
    assert (steps(database), held.gone) == ([(1, True)], [])


def test_a_checkpoint_whose_metrics_no_database_takes_is_published_without_them(
    held: Held, database: Database
) -> None:
    held.hear_of(1, loss=float("nan"))

    assert held.told == [{"published": "jobs/j/1-x/checkpoints/step-1"}]
    assert steps(database) == [(1, True)]


def test_a_checkpoint_that_is_one_too_many_goes_after_the_newer_one_has_its_row(
    held: Held, database: Database
) -> None:
    held.hear_of(1)
    held.hear_of(2)

    assert steps(database) == [(1, False), (2, True)]
    assert held.gone == ["jobs/j/1-x/checkpoints/step-1"]
