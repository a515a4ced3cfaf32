"""Lists of jobs stay fast: none of their queries reads a table from end to end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from db import files, job_pages, jobs, queues, tenants
from db.job_pages import Wanted
from db.session import Database
from db.tables import File, Job
from domain.errors import NotFound
from domain.job import Kind
from support.databases import migrated


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(kinds=[Kind.CHECK]),
        Wanted(status="failed"),
        Wanted(labels={"a": "b"}),
        Wanted(kinds=[Kind.FINE_TUNE], status="validating_files", labels={"a": "b", "c": "d"}),
    ],
    ids=["all", "kind", "status", "label", "all three"],
)
def test_a_page_is_read_from_indexes_only(wanted: Wanted, tmp_path: Path) -> None:
    def read(session: Session, job: Job) -> None:
        job_pages.page(session, "a", wanted, after=job.id)
        queues.position(session, job)

    plans = planned(tmp_path, read)

    assert len(plans) >= 4
    assert any("SEARCH jobs" in step for step in plans)
    assert [step for step in plans if step.startswith("SCAN job")] == []


def test_who_reads_a_file_is_one_look_into_an_index(tmp_path: Path) -> None:
    plans = planned(tmp_path, lambda session, _: files.delete(session, "a", "file-1"))

    assert [step for step in plans if "SCAN j" in step or "SCAN f" in step or " jobs " in step] == []
    assert any("SEARCH job_files" in step for step in plans)
    assert any("SEARCH files USING INDEX ix_files_blob" in step for step in plans)


def planned(folder: Path, read: Callable[[Session, Job], object]) -> list[str]:
    """SQLite's plans of all that `read` asks for, step by step."""
    asked: list[tuple[str, Any]] = []
    with migrated(f"sqlite:///{folder / 'plait.db'}") as database:
        with database.transaction() as session:
            tenants.ensure(session, "a")
            job = jobs.submit(session, jobs.Submission(tenant="a", spec={}, labels={"a": "b", "c": "d"}))
            about = {"filename": "f", "purpose": "fine-tune", "bytes": 1, "sha256": "0", "blob": "file-1"}
            session.add(File(id="file-1", tenant="a", **about))
        event.listen(database.engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
        with database.reading() as session:
            read(session, job)
        queries = [(query, values) for query, values in asked if query.lstrip().startswith("SELECT")]
        with database.engine.connect() as connection:
            return [
                str(step[-1])
                for query, values in queries
                for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)
            ]


def test_of_a_prediction_no_list_reads_what_was_sent_or_answered(database: Database) -> None:
    sent = {"model": "ft:m", "inputs": [{"id": "0", "values": {"image": {"inline": "x" * 1000}}}]}
    with database.transaction() as session:
        tenants.ensure(session, "a")
        about = {"tenant": "a", "spec": sent}
        made = [jobs.submit(session, jobs.Submission(kind=kind, **about)).id for kind in Kind]
        session.get_one(Job, made[-1]).result = {"predictions": ["x" * 1000]}

    with database.reading() as session:
        listed, _ = job_pages.page(session, "a", Wanted())
        alone = job_pages.get(session, "a", made[-1])
        # Jobs of one millisecond stand in any order.
        seen = {job.id: (job.spec, job.result) for job in listed}
        seen_alone = (alone.spec, alone.result)
        with pytest.raises(NotFound):
            job_pages.get(session, "b", made[-1])

    light = ({"model": "ft:m"}, None)
    assert list(Kind)[-1] is Kind.PREDICT
    assert seen == {made[0]: (sent, None), made[1]: (sent, None), made[2]: light}
    assert seen_alone == light


def test_whoever_watches_a_job_reads_neither_what_was_sent_nor_answered(database: Database) -> None:
    with database.transaction() as session:
        tenants.ensure(session, "a")
        job_id = jobs.submit(session, jobs.Submission(tenant="a", spec={"inputs": ["x" * 1000]})).id

    with database.reading() as session:
        job = jobs.get(session, "a", job_id, only=(Job.state, Job.stage))

        assert (job.state, job.stage) == ("queued", "validate")
        assert not {"spec", "result", "resolved"} & set(inspect(job).dict)
