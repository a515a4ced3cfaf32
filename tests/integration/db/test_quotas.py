"""Limits of tenants hold at the limit itself, also when two arrive at once; and they say what is used."""

from typing import Any

import pytest

from db import claims, files, jobs, quotas, tenants
from db.session import Database
from db.tables import File, Job
from domain.errors import Conflict, NotFound, OverQuota
from domain.ids import new_id
from domain.job import Kind, Lane, Stage
from support.together import together


@pytest.fixture(autouse=True)
def _tenants(database: Database) -> None:
    with database.transaction() as session:
        tenants.ensure(session, "a")
        tenants.ensure(session, "b")


def limit(database: Database, tenant: str = "a", **limits: int) -> None:
    with database.transaction() as session:
        quotas.set_limits(session, tenant, limits)


def submit(database: Database, tenant: str = "a", **more: Any) -> Job:
    with database.transaction() as session:
        return jobs.submit(session, jobs.Submission(tenant=tenant, spec={}, **more))


def upload(database: Database, size: int, tenant: str = "a") -> File:
    file_id = new_id("file-")
    row = File(
        id=file_id,
        tenant=tenant,
        filename="f",
        purpose="vision",
        bytes=size,
        sha256="0" * 64,
        blob=file_id,
    )
    with database.transaction() as session:
        return files.add(session, row)


def refused(results: list[Any]) -> list[bool]:
    assert all(isinstance(result, (Job, File, OverQuota, type(None))) for result in results), results
    return sorted(isinstance(result, OverQuota) for result in results)


def test_of_two_submits_at_once_at_the_limit_one_passes(database: Database) -> None:
    submit(database)
    limit(database, max_queued=2)

    results = together(lambda: submit(database), lambda: submit(database))

    assert refused(results) == [False, True]
    with database.reading() as session:
        assert quotas.used(session, "a").queued == 2


def test_of_two_uploads_at_once_at_the_limit_one_passes(database: Database) -> None:
    limit(database, max_bytes=150)

    results = together(lambda: upload(database, 100), lambda: upload(database, 100))

    assert refused(results) == [False, True]
    with database.reading() as session:
        assert quotas.used(session, "a").bytes == 100


def test_of_two_claims_at_once_at_the_limit_one_gets_a_job(database: Database) -> None:
    limit(database, max_running=1)
    submit(database)
    submit(database)

    results = together(*(lambda n=n: claims.claim(database, Lane.CPU, f"w{n}", 60.0) for n in range(2)))

    assert sorted(isinstance(result, Job) for result in results) == [False, True], results
    with database.reading() as session:
        assert quotas.used(session, "a").running == 1


def test_jobs_of_every_kind_count_and_every_kind_is_refused(database: Database) -> None:
    kinds = list(Kind)
    limit(database, max_queued=len(kinds))
    for kind in kinds:
        submit(database, kind=kind, stage=Stage.RUN)

    for kind in kinds:
        with pytest.raises(OverQuota, match=f"{len(kinds)} jobs .* limit is {len(kinds)}"):
            submit(database, kind=kind, stage=Stage.RUN)


def test_a_request_that_is_sent_again_passes_at_the_limit(database: Database) -> None:
    first = submit(database, key="k", body_hash="h")
    limit(database, max_queued=1)

    assert submit(database, key="k", body_hash="h").id == first.id


def test_one_tenants_limit_is_not_anothers(database: Database) -> None:
    limit(database, max_queued=0, max_bytes=0, max_running=0)

    submit(database, tenant="b")
    upload(database, 100, tenant="b")

    job = claims.claim(database, Lane.CPU, "w", 60.0)
    assert job is not None
    assert job.tenant == "b"


def test_waiting_does_not_help_who_has_no_room_for_bytes(database: Database) -> None:
    limit(database, max_bytes=150)
    upload(database, 100)

    with pytest.raises(OverQuota, match="hold 100 bytes and may hold 150; this one has 51") as caught:
        upload(database, 51)

    assert not caught.value.passes


def test_a_deleted_file_gives_its_bytes_back(database: Database) -> None:
    limit(database, max_bytes=100)
    file = upload(database, 100)

    with database.transaction() as session:
        files.delete(session, "a", file.id)

    upload(database, 100)


def test_limits_are_set_one_by_one_and_the_others_stay(database: Database) -> None:
    limit(database, max_queued=7)
    limit(database, weight=3, requests_per_minute=60)

    with database.reading() as session:
        row = quotas.get(session, "a")
    assert (row.weight, row.max_queued, row.max_running, row.requests_per_minute) == (3, 7, 1_000, 60)


def test_a_tenant_is_made_once_and_one_that_is_not_there_is_told(database: Database) -> None:
    with database.transaction() as session:
        quotas.create(session, "new")

    with database.transaction() as session:
        with pytest.raises(Conflict, match="already"):
            quotas.create(session, "new")
        with pytest.raises(NotFound, match="tenants list"):
            quotas.set_limits(session, "none", {"weight": 2})
        assert [row.tenant for row in quotas.all_of(session)] == ["a", "b", "new"]
