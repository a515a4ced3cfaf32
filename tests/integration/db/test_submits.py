"""Submits of one tenant that meet: they do not wait for each other, and still no rule is broken between them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from db import at_once, audit, files, jobs, queues, quotas, retention, submissions, submit_statements, tenants
from db.session import Database
from db.tables import Audit, Event, File, Job, JobFile, JobLabel
from domain.errors import Conflict, OverQuota
from domain.ids import new_id
from support.databases import database_url, migrated
from support.together import together


@pytest.fixture
def database(database: Database) -> Database:
    with database.transaction() as session:
        tenants.ensure(session, "a")
    return database


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[Database]:
    """SQLite has one writer at a time: there nothing can meet."""
    with database_url("postgresql", tmp_path) as url, migrated(url) as database:
        with database.transaction() as session:
            tenants.ensure(session, "a")
        yield database


def file(database: Database) -> File:
    row = File(
        id=new_id("file-"), tenant="a", filename="f", purpose="vision", bytes=1, sha256="0" * 64, blob="b"
    )
    with database.transaction() as session:
        return files.add(session, row)


AUDIT = {"tenant": "a", "key": "key_1", "action": "jobs.create", "request_id": "req_1", "address": "10.0.0.9"}


def quickly(database: Database, new: jobs.Submission) -> at_once.Made | None:
    return at_once.submit(database, new, AUDIT, at_once.Rooms())


def submit(database: Database, **more: Any) -> Any:
    """As the door does it: at once, or, where that may break a rule, step by step."""
    new = jobs.Submission(tenant="a", spec={}, **more)
    made = quickly(database, new)
    return made.job if made is not None else step_by_step(database, new)


def step_by_step(database: Database, new: jobs.Submission) -> Job:
    with database.transaction() as session:
        job = jobs.submit(session, new)
        audit.write(session, object_id=job.id, **AUDIT)
        return job


def on_its_way(database: Database, first: Callable[[Any], object], call: Callable[[], Any]) -> Any:
    """What `call` comes to, which waits for the open transaction of `first`."""
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            first(session)
            met = pool.submit(call)
            with pytest.raises(TimeoutError):
                met.result(timeout=0.3)
        return met.exception(timeout=10) or met.result()


def delete(session: Any, one: File) -> None:
    files.delete(session, "a", one.id)


def test_a_file_cannot_be_deleted_while_a_submit_that_reads_it_is_on_its_way(postgresql: Database) -> None:
    one = file(postgresql)

    def remove() -> None:
        with postgresql.transaction() as session:
            delete(session, one)

    # What the one statement locks, and no more: step by step the tenant's quota would be locked as well.
    reads = select(File.id).where(File.id == one.id).with_for_update(read=True, key_share=True)
    refused = on_its_way(
        postgresql,
        lambda session: (session.execute(reads), session.add(JobFile(job=other(postgresql), file=one.id))),
        remove,
    )

    assert isinstance(refused, Conflict)


def other(database: Database) -> str:
    return submit(database).id


def test_a_submit_does_not_find_a_file_whose_deletion_is_on_its_way(postgresql: Database) -> None:
    one = file(postgresql)

    refused = on_its_way(
        postgresql,
        lambda session: delete(session, one),
        lambda: quickly(postgresql, jobs.Submission(tenant="a", spec={}, files={one.id: "training_file"})),
    )

    assert refused is None
    with postgresql.reading() as session:
        assert session.scalars(select(Job)).all() == []


@contextmanager
def quick_submit_on_its_way(database: Database, new: jobs.Submission) -> Iterator[None]:
    """The one statement has run, and its commit takes a while."""
    values = at_once.values_of(new, AUDIT, room_is_known=False)
    with database.transaction() as session:
        submit_statements.SUBMIT.drive(session, **values, files=[], many=0)
        yield


def test_a_submit_does_not_wait_for_the_disk_of_another_of_its_tenant(postgresql: Database) -> None:
    new = jobs.Submission(tenant="a", spec={})
    with quick_submit_on_its_way(postgresql, new):
        assert quickly(postgresql, new) is not None


@pytest.mark.parametrize("again", [{"key": "k"}, {"is_retry": True}])
def test_who_sends_again_gets_the_job_that_is_still_on_its_way(postgresql: Database, again: Any) -> None:
    first = jobs.Submission(tenant="a", spec={}, key=again.get("key"), body_hash="h")
    second = jobs.Submission(tenant="a", spec={}, body_hash="h", **again)

    with ThreadPoolExecutor(1) as pool:
        with quick_submit_on_its_way(postgresql, first):
            met = pool.submit(step_by_step, postgresql, second)
            with pytest.raises(TimeoutError):
                met.result(timeout=0.3)
        met.result(timeout=10)

    with postgresql.reading() as session:
        assert len(session.scalars(select(Job)).all()) == 1


def test_a_check_that_is_being_noted_keeps_no_submit_waiting(postgresql: Database) -> None:
    one = file(postgresql)

    with postgresql.transaction() as session:
        files.note_check(session, one.id, rows=3)

        assert quickly(postgresql, jobs.Submission(tenant="a", spec={}, files={one.id: "training_file"}))


def test_a_key_whose_old_job_goes_at_this_instant_makes_a_new_one(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, look = submit(postgresql, key="k"), submissions._BY_KEY

    class ThenItGoes:
        def drive(self, session: Any, **values: Any) -> Any:
            found = look.drive(session, **values)
            with postgresql.transaction() as other:
                retention.forget(other, [old.id])
            return found

    monkeypatch.setattr(submissions, "_BY_KEY", ThenItGoes())

    new = step_by_step(postgresql, jobs.Submission(tenant="a", spec={}, key="k"))

    assert new.id != old.id
    with postgresql.reading() as session:
        assert session.scalars(select(Job.id)).all() == [new.id]


def test_two_submits_with_one_key_at_once_make_one_job(database: Database) -> None:
    made = together(*[lambda: submit(database, key="k", body_hash="h")] * 6)

    assert len({job.id for job in made}) == 1
    with database.reading() as session:
        assert len(session.scalars(select(Event)).all()) == 1


def test_no_more_submits_at_once_pass_than_the_limit_allows(database: Database) -> None:
    with database.transaction() as session:
        quotas.set_limits(session, "a", {"max_queued": 3})

    made = together(*[lambda: submit(database)] * 8)

    assert sum(not isinstance(job, OverQuota) for job in made) == 3


def test_a_job_is_the_same_whether_its_tenants_queue_is_nearly_full_or_not(database: Database) -> None:
    given: dict[str, Any] = {
        "files": dict.fromkeys([file(database).id, file(database).id], "training_file"),
        "labels": {"team": "red", "run": "7"},
        "priority": 3,
        "body_hash": "h",
    }
    roomy = submit(database, key="1", **given)
    with database.transaction() as session:
        quotas.set_limits(session, "a", {"max_queued": 2})

    full = submit(database, key="2", **given)

    assert told(roomy) == told(full)
    with database.reading() as session:
        for job in (roomy, full):
            session.expunge_all()
            assert told(session.get_one(Job, job.id)) == told(job)
        assert belongings(session, roomy) == belongings(session, full)


def test_a_submit_tells_how_many_stand_before_it(database: Database) -> None:
    for priority in (0, 5, 0, 3):
        made = quickly(database, jobs.Submission(tenant="a", spec={}, priority=priority))
        assert made is not None

        with database.reading() as session:
            assert made.position == queues.position(session, session.get_one(Job, made.job.id))


def test_nothing_of_a_submit_that_breaks_a_rule_is_written(database: Database) -> None:
    submit(database, key="k", body_hash="h")
    with database.transaction() as session:
        quotas.set_limits(session, "a", {"max_queued": at_once.SPARE + 2})

    for wrong in ({"key": "k"}, {"files": {"file-gone": "training_file"}}, {"is_retry": True}):
        assert quickly(database, jobs.Submission(tenant="a", spec={}, **wrong)) is None  # type: ignore[arg-type]
    assert quickly(database, jobs.Submission(tenant="a", spec={})) is not None
    assert quickly(database, jobs.Submission(tenant="a", spec={})) is None

    with database.reading() as session:
        assert [len(session.scalars(select(table)).all()) for table in (Job, Event, Audit)] == [2, 2, 2]


def test_room_that_was_counted_a_moment_ago_is_not_counted_again(database: Database) -> None:
    rooms, new = at_once.Rooms(), jobs.Submission(tenant="a", spec={})
    share = (at_once.Rooms.LEAST - at_once.SPARE) // at_once.Rooms.SHARE
    with database.transaction() as session:
        quotas.set_limits(session, "a", {"max_queued": at_once.Rooms.LEAST})
    assert at_once.submit(database, new, AUDIT, rooms) is not None
    with database.transaction() as session:
        quotas.set_limits(session, "a", {"max_queued": 0})

    made = [at_once.submit(database, new, AUDIT, rooms) for _ in range(share + 1)]

    assert [one is not None for one in made] == [True] * share + [False]


def told(job: Job) -> dict[str, Any]:
    """All that is not a job's own."""
    own = {"id", "idempotency_key", "created_at", "available_at"}
    return {c.key: getattr(job, c.key) for c in Job.__mapper__.column_attrs if c.key not in own}


def belongings(session: Any, job: Job) -> list[Any]:
    """Rows of other tables, without what is the job's own."""
    found: list[Any] = []
    for table, column in (
        (Event, Event.job),
        (JobFile, JobFile.job),
        (JobLabel, JobLabel.job),
        (Audit, Audit.object_id),
    ):
        rows = session.scalars(select(table).where(column == job.id)).all()
        own = {"id", "object_id", "job", "created_at"}
        values = [
            {c.key: getattr(r, c.key) for c in table.__mapper__.column_attrs if c.key not in own}
            for r in rows
        ]
        found += sorted(values, key=repr)
    return found
