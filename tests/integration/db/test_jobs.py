"""The job protocol's guards, on SQLite and on PostgreSQL."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import select, update

from db import claims, events, job_pages, jobs, loads, reports, tenants
from db.job_pages import Wanted
from db.session import Database, now
from db.tables import Event, Job, Quota, TenantLoad
from domain.errors import Conflict, NotFound, OverQuota, Unprocessable
from domain.job import Lane, Stage, State, Want
from support.databases import database_url, migrated

SPEC = {"model": "late-fusion", "training_file": "file-1"}


@pytest.fixture(autouse=True)
def _tenants(database: Database) -> None:
    with database.transaction() as session:
        tenants.ensure(session, "a")
        tenants.ensure(session, "b")


def submit(database: Database, tenant: str = "a", **more: object) -> Job:
    with database.transaction() as session:
        return jobs.submit(session, jobs.Submission(tenant=tenant, spec=SPEC, **more))


def claim(database: Database, owner: str = "w1", ttl: float = 60.0, lane: Lane = Lane.CPU) -> Job:
    job = claims.claim(database, lane, owner, ttl)
    assert job is not None
    return job


def expire(database: Database, job: Job) -> None:
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(lease_until=now() - 3600))


def read(database: Database, job: Job) -> Job:
    with database.reading() as session:
        return jobs.get(session, job.tenant, job.id)


def history(database: Database, job: Job) -> list[tuple[int, str]]:
    with database.reading() as session:
        return [(e.seq, e.name) for e in events.since(session, job.id, 0)]


def test_the_same_key_and_body_make_one_job(database: Database) -> None:
    first = submit(database, key="k", body_hash="h")

    second = submit(database, key="k", body_hash="h")

    assert second.id == first.id


def test_the_same_key_with_another_body_is_refused(database: Database) -> None:
    submit(database, key="k", body_hash="h")

    with pytest.raises(Unprocessable, match="another body"):
        submit(database, key="k", body_hash="other")


def test_two_tenants_may_use_the_same_key(database: Database) -> None:
    first = submit(database, "a", key="k", body_hash="h")

    second = submit(database, "b", key="k", body_hash="h")

    assert first.id != second.id


def test_a_retry_without_a_key_folds_onto_the_first_job(database: Database) -> None:
    first = submit(database, body_hash="h")

    retried = submit(database, body_hash="h", is_retry=True)
    asked_again = submit(database, body_hash="h")

    assert retried.id == first.id
    assert asked_again.id != first.id


def test_submits_at_the_same_moment_with_one_key_make_one_job(database: Database) -> None:
    barrier, made = threading.Barrier(6), []

    def one() -> None:
        barrier.wait()
        made.append(submit(database, key="k", body_hash="h").id)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 6
    assert len(set(made)) == 1


def test_a_job_whose_rows_are_locked_keeps_no_other_from_being_reaped(tmp_path: Path) -> None:
    with database_url("postgresql", tmp_path) as url, migrated(url) as database:
        upkeep = Database(url, longest_s=0.5)
        for tenant in ("a", "b"):
            with database.transaction() as session:
                tenants.ensure(session, tenant)
            submit(database, tenant)
            expire(database, claim(database, tenant))
        with database.transaction() as session:
            session.scalars(select(TenantLoad).where(TenantLoad.tenant == "a").with_for_update()).all()

            assert claims.reap(upkeep, grace=0) == [Lane.CPU]
        assert claims.reap(upkeep, grace=0) == [Lane.CPU]
        upkeep.close()


def test_a_tenant_cannot_queue_more_than_its_quota(database: Database) -> None:
    with database.transaction() as session:
        session.execute(update(Quota).where(Quota.tenant == "a").values(max_queued=1))
    submit(database)

    with pytest.raises(OverQuota, match="limit"):
        submit(database)


def test_another_tenants_job_is_not_found(database: Database) -> None:
    job = submit(database, "a")

    with database.reading() as session, pytest.raises(NotFound):
        jobs.get(session, "b", job.id)


def test_a_claim_takes_the_job_with_a_lease_a_fence_and_an_attempt(database: Database) -> None:
    submit(database)

    job = claim(database, "w1")

    assert (job.state, job.fence, job.attempt, job.lease_owner) == (State.RUNNING, 1, 1, "w1")
    assert job.lease_until is not None


def test_the_second_worker_to_claim_a_job_gets_nothing(database: Database) -> None:
    submit(database)
    claim(database, "w1")

    assert claims.claim(database, Lane.CPU, "w2", 60) is None


def test_workers_that_claim_at_the_same_moment_never_share_a_job(database: Database) -> None:
    for _ in range(6):
        submit(database)
    barrier, taken = threading.Barrier(4), []

    def work(name: str) -> None:
        barrier.wait()
        while (job := claims.claim(database, Lane.CPU, name, 60)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (left := claims.claim(database, Lane.CPU, "last", 60)) is not None:
        taken.append(left.id)

    assert len(taken) == 6
    assert len(set(taken)) == 6


def test_the_tenant_with_the_fewest_running_jobs_is_served_first(database: Database) -> None:
    for _ in range(3):
        submit(database, "a")
    submit(database, "b")

    served = [claim(database).tenant for _ in range(3)]

    assert served == ["a", "b", "a"]


def test_a_tenant_at_its_limit_of_running_jobs_waits(database: Database) -> None:
    with database.transaction() as session:
        session.execute(update(Quota).where(Quota.tenant == "a").values(max_running=1))
    submit(database, "a")
    submit(database, "a")
    claim(database)

    assert claims.claim(database, Lane.CPU, "w2", 60) is None


def test_a_higher_priority_is_claimed_first(database: Database) -> None:
    submit(database, priority=0)
    urgent = submit(database, priority=5)

    assert claim(database).id == urgent.id


def test_of_equal_jobs_the_one_that_waits_longest_is_claimed_first(database: Database) -> None:
    several = [submit(database).id for _ in range(3)]
    with database.transaction() as session:
        for place, job_id in enumerate((several[2], several[0], several[1])):
            session.execute(update(Job).where(Job.id == job_id).values(available_at=1.0 + place))

    assert [claim(database).id for _ in range(2)] == [several[2], several[0]]


def test_a_job_that_is_not_yet_available_is_not_claimed(database: Database) -> None:
    job = submit(database)
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(available_at=now() + 3600))

    assert claims.claim(database, Lane.CPU, "w1", 60) is None


def test_renewing_prolongs_the_lease_and_tells_what_the_user_wants(database: Database) -> None:
    submit(database)
    job = claim(database, ttl=1)
    with database.transaction() as session:
        jobs.cancel(session, "a", job.id)

    with database.transaction() as session:
        want = claims.renew(session, job.id, job.fence, 60)

    assert want is Want.CANCEL
    assert (read(database, job).lease_until or 0) > (job.lease_until or 0)


def test_a_fenced_worker_can_write_nothing(database: Database) -> None:
    submit(database)
    old = claim(database, "w1")
    expire(database, old)
    claims.reap(database, grace=5)
    claim(database, "w2")

    with database.transaction() as session:
        assert claims.renew(session, old.id, old.fence, 60) is None
        words = reports.Words(metrics=[("train_loss", 1, 0.5)], progress={"step": 1})
        assert reports.report(session, old.id, old.fence, words) is None
        assert reports.checkpoint(session, old.id, old.fence, ref="r", step=1, metrics={}) is None
    with pytest.raises(Conflict), database.transaction() as session:
        jobs.move(session, old.id, "job.succeeded", fence=old.fence, message="late")

    assert read(database, old).lease_owner == "w2"
    with database.reading() as session:
        assert events.series(session, old.id, "train_loss") == []


def test_what_a_run_decided_is_seen_while_it_runs(database: Database) -> None:
    job = submit(database)
    claimed = claim(database)
    decided = {"hyperparameters": {"n_epochs": 7}}

    with database.transaction() as session:
        reports.report(session, job.id, claimed.fence, reports.Words(resolved=decided))
        reports.report(session, job.id, claimed.fence, reports.Words(progress={"step": 1}))

    assert read(database, job).resolved == decided


def test_a_workers_move_needs_its_fence(database: Database) -> None:
    submit(database)
    job = claim(database)

    with pytest.raises(ValueError, match="fence"), database.transaction() as session:
        jobs.move(session, job.id, "job.succeeded", message="no fence")


def test_a_finished_job_is_final_and_frees_its_tenants_share(database: Database) -> None:
    submit(database)
    job = claim(database)

    with database.transaction() as session:
        jobs.move(session, job.id, "job.succeeded", fence=job.fence, message="done")

    done = read(database, job)
    assert (done.state, done.lease_owner) == (State.SUCCEEDED, None)
    assert done.finished_at is not None
    with database.reading() as session:
        assert session.scalars(select(TenantLoad.running)).all() == [0]


def test_a_job_cannot_finish_twice(database: Database) -> None:
    submit(database)
    job = claim(database)
    with database.transaction() as session:
        jobs.move(session, job.id, "job.succeeded", fence=job.fence, message="done")

    with pytest.raises(Conflict), database.transaction() as session:
        jobs.move(session, job.id, "job.failed", fence=job.fence, message="again")

    assert read(database, job).state == State.SUCCEEDED


def test_a_checked_job_moves_to_its_training_lane(database: Database) -> None:
    submit(database)
    job = claim(database)

    with database.transaction() as session:
        jobs.move(
            session,
            job.id,
            "job.validated",
            fence=job.fence,
            message="checked",
            left_lane=Lane.CPU,
            stage=Stage.RUN,
            lane=Lane.TRAIN,
        )

    assert claims.claim(database, Lane.CPU, "w", 60) is None
    assert claim(database, lane=Lane.TRAIN).id == job.id
    with database.reading() as session:
        load = {r.lane: r.running for r in session.scalars(select(TenantLoad))}
    assert load == {"cpu": 0, "train": 1}


def test_a_waiting_job_is_cancelled_at_once(database: Database) -> None:
    job = submit(database)

    with database.transaction() as session:
        jobs.cancel(session, "a", job.id)

    assert read(database, job).state == State.CANCELLED
    assert claims.claim(database, Lane.CPU, "w", 60) is None


def test_a_running_job_is_asked_to_stop_once(database: Database) -> None:
    submit(database)
    job = claim(database)

    for _ in range(2):
        with database.transaction() as session:
            jobs.cancel(session, "a", job.id)

    assert read(database, job).state == State.RUNNING
    assert [n for _, n in history(database, job)].count("job.cancel_requested") == 1


def test_a_final_job_cannot_be_cancelled(database: Database) -> None:
    job = submit(database)
    with database.transaction() as session:
        jobs.cancel(session, "a", job.id)

    with pytest.raises(Conflict, match="already been cancelled"), database.transaction() as session:
        jobs.cancel(session, "a", job.id)


def test_a_job_whose_worker_went_silent_is_requeued_with_a_new_fence(database: Database) -> None:
    submit(database)
    job = claim(database)
    expire(database, job)

    lanes = claims.reap(database, grace=5)

    lost = read(database, job)
    assert lanes == [Lane.CPU]
    assert (lost.state, lost.fence, lost.deaths, lost.attempt) == (State.QUEUED, job.fence + 1, 1, 0)


def test_a_live_lease_is_not_reaped(database: Database) -> None:
    submit(database)
    job = claim(database)

    claims.reap(database, grace=5)

    assert read(database, job).state == State.RUNNING


def test_two_reapers_reap_a_job_once(database: Database) -> None:
    submit(database)
    job = claim(database)
    expire(database, job)
    barrier = threading.Barrier(2)

    def reap() -> None:
        barrier.wait()
        claims.reap(database, grace=5)

    threads = [threading.Thread(target=reap) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert read(database, job).deaths == 1


def test_a_reaped_job_that_was_to_be_cancelled_is_cancelled(database: Database) -> None:
    submit(database)
    job = claim(database)
    with database.transaction() as session:
        jobs.cancel(session, "a", job.id)
    expire(database, job)

    claims.reap(database, grace=5)

    assert read(database, job).state == State.CANCELLED


def test_a_job_that_kills_its_worker_three_times_is_given_up(database: Database) -> None:
    submit(database)
    for _ in range(3):
        job = claim(database)
        expire(database, job)
        claims.reap(database, grace=5)

    end = read(database, job)
    assert end.state == State.FAILED
    assert end.error["code"] == "worker_died"


def test_event_numbers_have_no_gap_while_many_write_at_once(database: Database) -> None:
    submit(database)
    job = claim(database)
    barrier = threading.Barrier(4)

    def tell(n: int) -> None:
        barrier.wait()
        for i in range(5):
            event = {"name": "note", "message": f"{n}.{i}", "data": {}}
            with database.transaction() as session:
                reports.report(session, job.id, job.fence, reports.Words(events=[event, event]))

    threads = [threading.Thread(target=tell, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [seq for seq, _ in history(database, job)] == list(range(1, 2 + 40 + 1))


def test_a_step_told_again_after_a_crash_overwrites_its_own_metric(database: Database) -> None:
    submit(database)
    job = claim(database)

    for value in (0.9, 0.5):
        with database.transaction() as session:
            words = reports.Words(metrics=[("train_loss", 1, 7.0), ("train_loss", 1, value)])
            reports.report(session, job.id, job.fence, words)

    with database.reading() as session:
        assert events.series(session, job.id, "train_loss") == [(1, 0.5)]


def test_thousands_of_metrics_fit_into_one_report(database: Database) -> None:
    submit(database)
    job = claim(database)

    with database.transaction() as session:
        words = reports.Words(metrics=[("train_loss", i, float(i)) for i in range(5000)])
        reports.report(session, job.id, job.fence, words)

    with database.reading() as session:
        assert len(events.series(session, job.id, "train_loss")) == 5000


def test_jobs_are_listed_newest_first_page_by_page(database: Database) -> None:
    made = [submit(database, labels={"n": str(i % 2)}).id for i in range(5)]

    with database.reading() as session:
        first, more = job_pages.page(session, "a", Wanted(), limit=3)
        rest, no_more = job_pages.page(session, "a", Wanted(), after=first[-1].id, limit=3)
        odd, _ = job_pages.page(session, "a", Wanted(labels={"n": "1"}))

    assert more
    assert not no_more
    assert sorted(j.id for j in (*first, *rest)) == sorted(made)
    assert {j.id for j in odd} == {made[1], made[3]}


def test_events_are_listed_newest_first_page_by_page(database: Database) -> None:
    job = submit(database)
    claim(database)

    with database.reading() as session:
        newest, more = events.page(session, job.id, limit=1)
        cursor = events.event_id(job.id, newest[0].seq)
        older, no_more = events.page(session, job.id, after=cursor)

    assert [e.name for e in newest] == ["job.claimed"]
    assert [e.name for e in older] == ["job.created"]
    assert (more, no_more) == (True, False)


def test_a_load_counter_never_falls_below_zero(database: Database) -> None:
    with database.transaction() as session:
        loads.raise_(session, "a", Lane.CPU)
        loads.lower(session, "a", Lane.CPU)
        loads.lower(session, "a", Lane.CPU)

    with database.reading() as session:
        assert session.scalars(select(TenantLoad.running)).all() == [0]


def test_an_event_of_another_job_is_no_cursor(database: Database) -> None:
    job, other = submit(database), submit(database)

    with database.reading() as session, pytest.raises(NotFound):
        events.page(session, job.id, after=events.event_id(other.id, 1))
    with database.reading() as session:
        assert session.scalars(select(Event).where(Event.job == job.id)).one().seq == 1
