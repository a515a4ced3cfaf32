"""A process that freezes in the middle of a transaction holds its locks; on PostgreSQL the server takes them away."""

import pytest
from sqlalchemy.exc import DBAPIError

from db import claims, jobs, loads, tenants
from db.session import Database
from db.tables import Job
from domain.job import Lane, State
from support.databases import migrated, postgres_url
from support.stack import until


def submit(database: Database) -> Job:
    with database.transaction() as session:
        return jobs.submit(session, jobs.Submission(tenant="a", spec={}))


def test_a_keeper_that_freezes_within_its_last_transaction_loses_its_job_and_its_locks() -> None:
    with postgres_url() as url, migrated(url) as database:
        frozen = Database(url, timeout_s=1.0, longest_s=1.0)
        with database.transaction() as session:
            tenants.ensure(session, "a")
        submit(database)
        job = claims.claim(frozen, Lane.CPU, "frozen", ttl=0.1)
        assert job is not None

        with pytest.raises(DBAPIError), frozen.transaction() as session:  # noqa: PT012 - all of it is one transaction
            claims.held(session, job.id, job.fence)
            loads.lower(session, "a", Lane.CPU)
            until(lambda: claims.reap(database, grace=0.0), bool, limit_s=10)
            again = claims.claim(database, Lane.CPU, "another", ttl=60.0)
            jobs.move(session, job.id, "job.failed", fence=job.fence, message="late")

        assert again is not None
        assert (again.id, again.state, again.deaths) == (job.id, State.RUNNING, 1)
        frozen.close()
