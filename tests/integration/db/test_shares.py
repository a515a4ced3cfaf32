"""Many tenants in one lane: whose turn it is, who waits, and who never stands in another's way."""

import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from db import claims, jobs, tenants
from db.session import Database
from db.tables import Event, Job, Quota, TenantLoad
from domain.errors import Conflict, OverQuota
from domain.job import Kind, Lane, Stage, State


def tenant(database: Database, name: str, **limits: int) -> None:
    with database.transaction() as session:
        tenants.ensure(session, name)
        if limits:
            session.execute(update(Quota).where(Quota.tenant == name).values(**limits))


def submit(database: Database, tenant: str, count: int = 1, **more: object) -> list[str]:
    new = jobs.Submission(tenant=tenant, spec={}, **more)
    with database.transaction() as session:
        return [jobs.submit(session, new).id for _ in range(count)]


def claim(database: Database, lane: Lane = Lane.CPU) -> Job | None:
    return claims.claim(database, lane, "w", 60.0)


def finish(database: Database, job: Job) -> None:
    with database.transaction() as session:
        jobs.move(session, job.id, "job.succeeded", fence=job.fence, message="done")


def at_once(*acts: Callable[[], object]) -> None:
    barrier = threading.Barrier(len(acts))

    def one(act: Callable[[], object]) -> None:
        barrier.wait()
        act()

    threads = [threading.Thread(target=one, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@settings(
    max_examples=6,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=5), ends=st.integers(0, 20))
def test_busy_tenants_hold_workers_in_the_ratio_of_their_weights(
    database: Database, weights: list[int], ends: int
) -> None:
    shares = {f"t{n}": weight for n, weight in enumerate(weights)}
    workers = 2 * sum(weights)
    for name, weight in shares.items():
        tenant(database, name, weight=weight)
        submit(database, name, 2 * weight + ends)

    running = deque(job for _ in range(workers) if (job := claim(database)) is not None)
    for _ in range(ends):  # the oldest ends, and its worker takes the next
        finish(database, running.popleft())
        job = claim(database)
        assert job is not None
        running.append(job)

    held = Counter(job.tenant for job in running)
    assert all(abs(held[name] - 2 * weight) <= 1 for name, weight in shares.items()), (shares, held)
    with database.transaction() as session:
        for table in (Event, Job, TenantLoad):
            session.execute(delete(table))


def test_weights_of_one_two_and_four_share_the_workers_so(database: Database) -> None:
    for name, weight in (("a", 1), ("b", 2), ("c", 4)):
        tenant(database, name, weight=weight)
        submit(database, name, 20)

    held = Counter(job.tenant for _ in range(14) if (job := claim(database)) is not None)

    assert held == {"a": 2, "b": 4, "c": 8}


def test_a_tenant_with_thousands_of_jobs_does_not_make_one_with_a_single_job_wait(database: Database) -> None:
    tenant(database, "many")
    tenant(database, "few")
    submit(database, "many", 300)
    assert [job.tenant for _ in range(3) if (job := claim(database)) is not None] == ["many"] * 3

    submit(database, "few")

    job = claim(database)
    assert job is not None
    assert job.tenant == "few"


def test_twenty_tenants_at_their_limit_do_not_block_the_next(database: Database) -> None:
    for n in range(20):
        tenant(database, f"full{n:02}", max_running=1)
        submit(database, f"full{n:02}", 2)
    for _ in range(20):
        assert claim(database) is not None
    tenant(database, "last")
    submit(database, "last", 2)

    taken = [claim(database), claim(database), claim(database)]

    assert [job.tenant if job else None for job in taken] == ["last", "last", None]


def test_a_limit_of_running_jobs_holds_when_many_claim_at_once(database: Database) -> None:
    tenant(database, "a", max_running=2)
    submit(database, "a", 8)

    at_once(*[lambda: claim(database)] * 5)

    with database.reading() as session:
        assert len(session.scalars(select(Job.id).where(Job.state == State.RUNNING)).all()) == 2
        assert session.scalars(select(TenantLoad.running)).all() == [2]


def test_a_high_priority_overtakes_its_own_tenants_jobs_and_no_others(database: Database) -> None:
    for name in ("a", "b"):
        tenant(database, name)
        submit(database, name, 2)
    (urgent,) = submit(database, "b", priority=100)

    taken = [job for _ in range(4) if (job := claim(database)) is not None]

    assert [job.tenant for job in taken] == ["a", "b", "a", "b"]
    assert taken[1].id == urgent


def test_an_open_submit_never_makes_a_busy_tenant_look_idle(database: Database) -> None:
    """PostgreSQL: the submit holds locks on its tenant's rows. SQLite has one writer, which a claim waits for."""
    if database.sqlite:
        pytest.skip("a submit that is open keeps every claim waiting")
    for name in ("a", "b"):
        tenant(database, name)
        submit(database, name, 3)
    assert [job.tenant for _ in range(1) if (job := claim(database)) is not None] == ["a"]

    with database.transaction() as session:
        jobs.submit(session, jobs.Submission(tenant="b", spec={}))
        taken = [job.tenant for _ in range(3) if (job := claim(database)) is not None]

    assert taken == ["b", "a", "b"]


def test_the_limit_of_queued_jobs_counts_every_kind(database: Database) -> None:
    tenant(database, "a", max_queued=3)
    for kind in (Kind.FINE_TUNE, Kind.CHECK, Kind.PREDICT):
        submit(database, "a", kind=kind, stage=Stage.RUN, lane=Lane.INFER)

    with pytest.raises(OverQuota, match="3 jobs are queued or paused"):
        submit(database, "a")
    assert claim(database, Lane.INFER) is not None
    submit(database, "a")


def test_submits_at_the_same_moment_never_pass_the_limit_of_queued_jobs(database: Database) -> None:
    tenant(database, "a", max_queued=2)
    refused: list[str] = []

    def one() -> None:
        try:
            submit(database, "a")
        except OverQuota as error:
            refused.append(error.code)

    at_once(*[one] * 5)

    assert len(refused) == 3


def test_of_a_cancel_and_a_finish_at_the_same_moment_one_wins(database: Database) -> None:
    tenant(database, "a")
    for _ in range(8):
        submit(database, "a")
        job = claim(database)
        assert job is not None
        taken: list[str] = []

        def cancel(job: Job = job, taken: list[str] = taken) -> None:
            with suppress(Conflict), database.transaction() as session:
                jobs.cancel(session, "a", job.id)
                taken.append("cancelled")

        def end(job: Job = job, taken: list[str] = taken) -> None:
            with database.transaction() as session:
                wanted = claims.held(session, job.id, job.fence).want
                name = "job.stopped" if wanted == "cancel" else "job.succeeded"
                jobs.move(session, job.id, name, fence=job.fence, message="over")

        at_once(cancel, end)
        with database.reading() as session:
            state = jobs.get(session, "a", job.id).state
        assert state == (State.CANCELLED if taken else State.SUCCEEDED)
