"""Upkeep: one leads, another follows, and two at once do no harm; what is over long ago goes."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from sqlalchemy import func, select, update

from db import claims, jobs, loads, reports, tenants
from db.artifacts import Artifacts
from db.blobs import Blobs, open_blobs
from db.logs import Logs
from db.session import Database
from db.tables import Event, Job, Model, TenantLoad
from domain.job import Kind, Lane, Stage, State
from settings import Settings
from support.door import Door
from support.predictions import registered
from support.stack import until
from worker import upkeep
from worker.upkeep import Upkeep, media, orphans, retention
from worker.upkeep import blobs as unnamed_blobs


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", database_url=database.url, lease_s=1.0, grace_s=0.1)


@pytest.fixture
def door(database: Database, settings: Settings) -> Door:
    return Door(database, settings)


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return open_blobs(settings)


@pytest.fixture
def artifacts(settings: Settings) -> Artifacts:
    return Artifacts(settings.data / "artifacts")


@pytest.fixture
def logs(settings: Settings) -> Logs:
    return Logs(settings.data)


@contextmanager
def running(settings: Settings) -> Iterator[threading.Event]:
    """Upkeep in a thread; it ends when its event is set."""
    over = threading.Event()
    thread = threading.Thread(target=upkeep.run, args=(settings, over))
    thread.start()
    try:
        yield over
    finally:
        over.set()
        thread.join(20)
        assert not thread.is_alive()


def check_job(database: Database, tenant: str = "a") -> str:
    """A job that is ready on the cpu lane."""
    new = jobs.Submission(tenant=tenant, spec={"file": "file-x"}, kind=Kind.CHECK, stage=Stage.RUN)
    with database.transaction() as session:
        tenants.ensure(session, tenant)
        return jobs.submit(session, new).id


def lost(database: Database) -> str:
    """A job whose worker has been silent for long."""
    job_id = check_job(database)
    taken = claims.claim(database, Lane.CPU, "gone", ttl=-60)
    assert taken is not None
    assert taken.id == job_id
    return job_id


def ended(database: Database, *, days_ago: float) -> str:
    job_id = check_job(database)
    with database.transaction() as session:
        jobs.cancel(session, "a", job_id)
        then = Job.finished_at - days_ago * 86_400
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=then))
    return job_id


def read(database: Database, job_id: str) -> Job | None:
    with database.reading() as session:
        return session.get(Job, job_id)


def test_two_upkeeps_at_once_count_one_death(database: Database, settings: Settings) -> None:
    ids = [lost(database) for _ in range(5)]

    with running(settings), running(settings):
        until(lambda: [read(database, i).state for i in ids], lambda s: set(s) == {State.QUEUED}, limit_s=20)

    assert {(read(database, i).deaths, read(database, i).event_seq) for i in ids} == {(1, 3)}


def test_reapers_that_all_believe_to_lead_count_one_death(database: Database, settings: Settings) -> None:
    ids, together = [lost(database) for _ in range(5)], threading.Barrier(4)
    several = [Upkeep(settings) for _ in range(4)]

    def tend(one: Upkeep) -> None:
        together.wait()
        one.tend()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tend, several))

    assert {(read(database, i).deaths, read(database, i).event_seq) for i in ids} == {(1, 3)}
    for one in several:
        one.close()


def test_where_the_leader_falls_silent_another_follows(database: Database, settings: Settings) -> None:
    dead = Upkeep(settings)
    assert dead._leads("rounds", 1.0)
    job_id = lost(database)

    with running(settings):
        until(lambda: read(database, job_id).state, lambda s: s == State.QUEUED, limit_s=20)

    dead.database.close()


def test_a_counter_that_is_wrong_is_put_right_and_a_right_one_is_left(database: Database) -> None:
    for tenant in ("a", "b"):
        check_job(database, tenant)
        assert claims.claim(database, Lane.CPU, "w", ttl=60) is not None
    with database.transaction() as session:
        session.execute(update(TenantLoad).where(TenantLoad.tenant == "a").values(running=7))
        session.add(TenantLoad(tenant="a", lane=Lane.TRAIN, running=3))

    assert loads.recount(database) == 2

    with database.reading() as session:
        counted = {(r.tenant, r.lane): r.running for r in session.scalars(select(TenantLoad))}
    assert counted == {("a", "cpu"): 1, ("b", "cpu"): 1, ("a", "train"): 0}
    assert loads.recount(database) == 0


def test_jobs_that_were_over_long_ago_go_with_all_that_hangs_on_them(
    door: Door, blobs: Blobs, artifacts: Artifacts, logs: Logs
) -> None:
    database = door.database
    old, young, waiting = ended(database, days_ago=40), ended(database, days_ago=20), check_job(database)
    for job_id in (old, young):
        artifacts.create(job_id, 1)
        logs.path(job_id, 1).parent.mkdir(parents=True)
        logs.path(job_id, 1).write_text("words")

    gone = retention.sweep(database, blobs, artifacts, logs, days=30)

    assert gone == 1
    assert [read(database, i) is None for i in (old, young, waiting)] == [True, False, False]
    with database.reading() as session:
        assert session.scalar(select(func.count()).where(Event.job == old)) == 0
    assert set(artifacts.owners()) == set(logs.owners()) == {young}


def test_a_job_is_kept_with_its_model_and_goes_after_it(
    door: Door, blobs: Blobs, artifacts: Artifacts, logs: Logs
) -> None:
    name, database = registered(door.database), door.database
    with database.transaction() as session:
        session.execute(update(Job).values(state=State.SUCCEEDED, finished_at=0.0))

    assert retention.sweep(database, blobs, artifacts, logs, days=30) == 0
    assert door.send("DELETE", f"/v1/models/{name}").status_code == 200
    assert retention.sweep(database, blobs, artifacts, logs, days=30) == 0
    with database.transaction() as session:
        session.execute(update(Model).values(deleted_at=Model.deleted_at - 90_000))
    assert retention.sweep(database, blobs, artifacts, logs, days=30) == 1

    with database.reading() as session:
        assert session.get(Model, name) is None


def test_with_zero_days_nothing_goes(door: Door, blobs: Blobs, artifacts: Artifacts, logs: Logs) -> None:
    job_id = ended(door.database, days_ago=4000)

    assert retention.sweep(door.database, blobs, artifacts, logs, days=0) == 0
    assert read(door.database, job_id) is not None


def test_folders_of_lost_claims_go_and_those_that_a_row_names_or_a_worker_writes_stay(
    database: Database, artifacts: Artifacts, logs: Logs
) -> None:
    job_id = check_job(database)
    claim = claims.claim(database, Lane.CPU, "w", ttl=60)
    assert claim is not None
    with database.transaction() as session:
        session.execute(update(Job).values(fence=5))
        ref = f"jobs/{job_id}/3-b/checkpoints/step-1"
        reports.checkpoint(session, job_id, 5, ref=ref, step=1, metrics={})
    for name in ("1-a", "3-b", "4-c", "5-d", "6-e"):
        (artifacts.root / "jobs" / job_id / name).mkdir(parents=True)

    assert orphans.sweep(database, artifacts, logs) == 2

    assert {p.name for p in (artifacts.root / "jobs" / job_id).iterdir()} == {"3-b", "5-d", "6-e"}


def test_folders_and_logs_of_jobs_without_a_row_go_after_a_day(
    database: Database, artifacts: Artifacts, logs: Logs
) -> None:
    for job_id in ("ftjob-old", "ftjob-young"):
        artifacts.create(job_id, 1)
        logs.path(job_id, 1).parent.mkdir(parents=True)
        logs.path(job_id, 1).write_text("words")
    then = time.time() - 90_000
    for folder in (artifacts.root / "jobs" / "ftjob-old", logs.path("ftjob-old", 1).parent):
        os.utime(folder, (then, then))

    orphans.sweep(database, artifacts, logs)

    assert set(artifacts.owners()) == set(logs.owners()) == {"ftjob-young"}


def test_what_is_no_job_s_is_left_where_it_lies_and_stops_no_sweep(
    settings: Settings, database: Database, blobs: Blobs, artifacts: Artifacts, logs: Logs
) -> None:
    job_id, data, then = check_job(database), settings.data, time.time() - 200_000
    for name in ("1-a", "lost+found"):
        (artifacts.root / "jobs" / job_id / name).mkdir(parents=True)
    (artifacts.root / "jobs" / "README.txt").write_text("ours")
    (logs.root / "lost+found").mkdir(parents=True)
    for name in ("no key.txt", "no key-of-pred_x"):
        (data / "blobs" / "xy").mkdir(parents=True, exist_ok=True)
        (data / "blobs" / "xy" / name).write_text("ours")
    for path in data.rglob("*"):
        os.utime(path, (then, then))
    with database.transaction() as session:
        session.execute(update(Job).values(fence=2))

    assert orphans.sweep(database, artifacts, logs) == 1
    assert unnamed_blobs.sweep(database, blobs) == 0
    assert media.sweep(database, blobs) == 0

    left = {path.name for path in data.rglob("*")}
    assert {"lost+found", "README.txt", "no key.txt", "no key-of-pred_x"} <= left
    assert "1-a" not in left


def test_a_sweep_that_fails_as_nobody_foresaw_stops_no_other_and_is_tried_again(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    check_job(database)
    assert claims.claim(database, Lane.CPU, "w", ttl=60) is not None
    monkeypatch.setattr("worker.upkeep.SWEEP_S", 0.2)
    fails = Mock(side_effect=ZeroDivisionError)
    monkeypatch.setattr("db.loads.recount", fails)
    swept = threading.Semaphore(0)
    monkeypatch.setattr("worker.upkeep.orphans.sweep", lambda *_: swept.release())

    with running(settings):
        assert swept.acquire(timeout=20)
        assert swept.acquire(timeout=20)

    assert fails.call_count >= 2
    assert "a sweep failed" in caplog.text
