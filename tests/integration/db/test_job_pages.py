"""Lists of jobs stay fast: none of their queries reads a table from end to end."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from db import job_pages, jobs, tenants
from db.job_pages import Wanted
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
    asked: list[tuple[str, Any]] = []
    with migrated(f"sqlite:///{tmp_path / 'plait.db'}") as database:
        with database.transaction() as session:
            tenants.ensure(session, "a")
            job = jobs.submit(session, jobs.Submission(tenant="a", spec={}, labels={"a": "b", "c": "d"}))
        event.listen(database.engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
        with database.reading() as session:
            job_pages.page(session, "a", wanted, after=job.id)
            jobs.position(session, job)
        queries = [(query, values) for query, values in asked if query.lstrip().startswith("SELECT")]
        with database.engine.connect() as connection:
            plans = [
                str(step[-1])
                for query, values in queries
                for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)
            ]

    assert len(queries) >= 4
    assert any("SEARCH jobs" in step for step in plans)
    assert [step for step in plans if step.startswith("SCAN job")] == []
