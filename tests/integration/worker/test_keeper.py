"""A keeper when what it stands on gives way: a disk that takes nothing, a result that no database keeps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db import claims, events, jobs, tenants
from db.session import Database
from db.tables import Job
from domain.job import Kind, Lane, Stage, State, Want
from settings import Settings
from worker.hold import Ending
from worker.keeper import Keeper
from worker.reporter import Reporter


@pytest.fixture
def keeper(database: Database, tmp_path: Path) -> Iterator[Keeper]:
    url = database.engine.url.render_as_string(hide_password=False)
    made = Keeper(Settings(data=tmp_path / "data", database_url=url), Lane.CPU)
    made.settings.data.mkdir()
    yield made
    made.close()
    made.database.close()
    for end in (made._bell, made._rope):
        end.close()


def submitted(database: Database, **spec: object) -> str:
    with database.transaction() as session:
        tenants.ensure(session, "a")
        new = jobs.Submission(tenant="a", spec=spec, kind=Kind.CHECK, stage=Stage.RUN, lane=Lane.CPU)
        return jobs.submit(session, new).id


def row(database: Database, job_id: str) -> Job:
    with database.reading() as session:
        return jobs.get(session, "a", job_id)


def test_a_disk_that_takes_nothing_costs_an_attempt_and_no_worker(keeper: Keeper, database: Database) -> None:
    job_id = submitted(database)
    (keeper.settings.data / "artifacts").write_text("no folder")

    assert keeper.work() == 1

    job = row(database, job_id)
    assert (job.state, job.attempt, job.deaths) == (State.QUEUED, 1, 0)
    assert job.available_at > job.created_at


def test_a_result_that_no_database_keeps_fails_its_job_once(
    keeper: Keeper, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted(database)
    result = {"errors": 0, "warnings": 0, "issues": ["\0"]}
    refused = {"say": "done", "result": result, "files": []}
    monkeypatch.setattr(Keeper, "_run", lambda *_: Ending(refused, writable_until=float("inf")))

    keeper.work()

    job = row(database, job_id)
    if database.sqlite:
        assert job.state == State.SUCCEEDED
    else:
        assert (job.state, job.error["code"]) == (State.FAILED, "result_not_stored")


def test_words_that_no_database_keeps_do_not_stand_in_the_way_of_others(database: Database) -> None:
    job_id = submitted(database)
    job = claims.claim(database, Lane.CPU, "w", 60.0)
    assert job is not None
    reporter = Reporter(database, job.id, job.fence)
    word = {"say": "event", "message": "m", "level": "info", "type": "message", "data": {}}
    reporter.hear({**word, "name": None})

    assert reporter.flush() is Want.RUN
    reporter.hear({**word, "name": "good"})
    reporter.flush()

    with database.reading() as session:
        told = [event.name for event in events.since(session, job_id, 0)]
    assert told == ["job.created", "job.claimed", "good"]
