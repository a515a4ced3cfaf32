"""Pause and resume: what is asked, by whom, in which order; on SQLite and on PostgreSQL."""

import pytest
from sqlalchemy import select, update

from db import claims, events, jobs, tenants
from db.session import Database, now
from db.tables import Job, Quota, TenantLoad
from domain.errors import Conflict, NotFound, OverQuota
from domain.job import Lane, State, Want


@pytest.fixture(autouse=True)
def _tenant(database: Database) -> None:
    with database.transaction() as session:
        tenants.ensure(session, "a")


def submit(database: Database) -> Job:
    with database.transaction() as session:
        return jobs.submit(session, jobs.Submission(tenant="a", spec={}))


def claim(database: Database) -> Job:
    job = claims.claim(database, Lane.CPU, "w", 60.0)
    assert job is not None
    return job


def ask(database: Database, word: str, job: Job, tenant: str = "a") -> Job:
    """`pause`, `resume` or `cancel`, as a request of its own."""
    with database.transaction() as session:
        asked: Job = getattr(jobs, word)(session, tenant, job.id)
        return asked


def put_down(database: Database, job: Job) -> Job:
    """What a keeper does when its child has stopped for a pause."""
    with database.transaction() as session:
        return jobs.move(
            session, job.id, "job.paused", fence=job.fence, message="paused", attempt=job.attempt - 1
        )


def reap(database: Database, job: Job) -> Job:
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(lease_until=now() - 3600))
    claims.reap(database, grace=5)
    return read(database, job)


def read(database: Database, job: Job) -> Job:
    with database.reading() as session:
        return jobs.get(session, "a", job.id)


def names(database: Database, job: Job) -> list[str]:
    with database.reading() as session:
        return [event.name for event in events.since(session, job.id, 0)]


def test_a_queued_job_is_paused_at_once_and_no_worker_gets_it(database: Database) -> None:
    job = submit(database)

    paused = ask(database, "pause", job)

    assert paused.state == State.PAUSED
    assert claims.claim(database, Lane.CPU, "w", 60.0) is None
    assert names(database, job) == ["job.created", "job.paused"]


def test_a_resumed_job_is_ready_even_if_it_had_to_wait_before_its_pause(database: Database) -> None:
    job = submit(database)
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(available_at=now() + 3600))
    ask(database, "pause", job)

    resumed = ask(database, "resume", job)

    assert (resumed.state, resumed.want) == (State.QUEUED, Want.RUN)
    assert claim(database).id == job.id


def test_a_running_job_is_asked_to_pause_once(database: Database) -> None:
    submit(database)
    job = claim(database)

    asked = [ask(database, "pause", job) for _ in range(2)][-1]

    assert (asked.state, asked.want) == (State.RUNNING, Want.PAUSE)
    assert names(database, job).count("job.pause_requested") == 1
    with database.transaction() as session:
        assert claims.renew(session, job.id, job.fence, 60.0) is Want.PAUSE


def test_pause_and_resume_keep_the_attempt_and_free_the_tenants_share_meanwhile(database: Database) -> None:
    submit(database)
    job = claim(database)
    ask(database, "pause", job)

    paused = put_down(database, job)

    assert (paused.state, paused.lease_owner, paused.deaths) == (State.PAUSED, None, 0)
    with database.reading() as session:
        assert session.scalars(select(TenantLoad.running)).one() == 0
    ask(database, "resume", job)
    again = claim(database)
    assert (again.attempt, again.want) == (job.attempt, Want.RUN)
    assert again.fence > job.fence


def test_a_pause_that_was_only_asked_for_is_taken_back(database: Database) -> None:
    submit(database)
    job = claim(database)
    ask(database, "pause", job)

    resumed = ask(database, "resume", job)

    assert (resumed.state, resumed.want) == (State.RUNNING, Want.RUN)
    with database.transaction() as session:
        assert claims.renew(session, job.id, job.fence, 60.0) is Want.RUN


def test_a_cancel_overtakes_a_pause_and_no_pause_overtakes_a_cancel(database: Database) -> None:
    submit(database)
    job = claim(database)
    ask(database, "pause", job)

    assert ask(database, "cancel", job).want == Want.CANCEL
    for word in ("pause", "resume"):
        with pytest.raises(Conflict, match="being cancelled") as refused:
            ask(database, word, job)
        assert refused.value.code == "job_is_cancelled"


def test_a_paused_job_is_cancelled_at_once(database: Database) -> None:
    job = submit(database)
    ask(database, "pause", job)

    assert ask(database, "cancel", job).state == State.CANCELLED


@pytest.mark.parametrize(("word", "code"), [("pause", "job_is_paused"), ("resume", "job_not_paused")])
def test_what_stands_so_already_is_refused_with_its_own_code(
    database: Database, word: str, code: str
) -> None:
    job = submit(database)
    if word == "pause":
        ask(database, "pause", job)

    with pytest.raises(Conflict) as refused:
        ask(database, word, job)

    assert refused.value.code == code


@pytest.mark.parametrize("word", ["pause", "resume"])
def test_a_final_job_is_neither_paused_nor_resumed(database: Database, word: str) -> None:
    job = submit(database)
    ask(database, "cancel", job)

    with pytest.raises(Conflict) as refused:
        ask(database, word, job)

    assert refused.value.code == "job_is_final"


@pytest.mark.parametrize("word", ["pause", "resume", "cancel"])
def test_another_tenants_job_is_not_found(database: Database, word: str) -> None:
    job = submit(database)

    with pytest.raises(NotFound):
        ask(database, word, job, tenant="b")

    assert names(database, job) == ["job.created"]


def test_a_silent_worker_of_a_job_that_is_to_pause_leaves_it_paused_and_counts_a_death(
    database: Database,
) -> None:
    submit(database)
    job = claim(database)
    ask(database, "pause", job)

    lost = reap(database, job)

    assert (lost.state, lost.deaths, lost.attempt, lost.fence) == (State.PAUSED, 1, 0, job.fence + 1)


def test_a_job_that_kills_its_workers_ends_though_a_pause_is_asked_for(database: Database) -> None:
    submit(database)
    for _ in range(2):
        reap(database, claim(database))
    job = claim(database)
    ask(database, "pause", job)

    lost = reap(database, job)

    assert lost.state == State.FAILED
    assert lost.error["code"] == "worker_died"


def test_a_paused_job_counts_against_the_limit_of_queued_jobs(database: Database) -> None:
    with database.transaction() as session:
        session.execute(update(Quota).where(Quota.tenant == "a").values(max_queued=1))
    ask(database, "pause", submit(database))

    with pytest.raises(OverQuota, match="paused"):
        submit(database)
