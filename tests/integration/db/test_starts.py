"""Where a job starts from: what a name means, whose it is, and that its bytes stay while it is needed."""

import threading
from pathlib import Path

import pytest

from db import checkpoints, claims, files, jobs, reports, retention, starts, tenants
from db.session import Database
from db.tables import File, Job
from domain.errors import BadRequest
from domain.ids import checkpoint_id
from domain.job import Lane
from support.databases import database_url, migrated

MODEL = "late-fusion"


@pytest.fixture(autouse=True)
def _two_tenants(database: Database) -> None:
    with database.transaction() as session:
        for tenant in ("a", "b"):
            tenants.ensure(session, tenant)


def running(database: Database, tenant: str = "a", **more: str) -> Job:
    with database.transaction() as session:
        jobs.submit(session, jobs.Submission(tenant=tenant, spec={"model": MODEL, "suffix": "s"}, **more))
    claimed = claims.claim(database, Lane.CPU, "w", 60)
    assert claimed is not None
    return claimed


def publish(database: Database, job: Job, *steps: int, keep: int = 2) -> list[str]:
    """The folders that are no longer kept."""
    retired: list[str] = []
    for step in steps:
        with database.transaction() as session:
            ref = f"jobs/{job.id}/{job.fence}-x/checkpoints/step-{step}"
            reports.checkpoint(session, job.id, job.fence, ref=ref, step=step, metrics={})
            retired += checkpoints.retire(session, job.id, keep=keep)
    return retired


def found(database: Database, name: str, tenant: str = "a", model: str = MODEL) -> tuple[str, int]:
    with database.transaction() as session:
        start = starts.find(session, tenant, name, model=model)
        return start.job.id, start.checkpoint.step


def refused(database: Database, name: str, **more: str) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        found(database, name, **more)
    assert error.value.param == "resume_from_checkpoint"
    return error.value


def test_a_checkpoint_is_found_by_its_id_by_its_name_and_by_its_job(database: Database) -> None:
    job = running(database)
    publish(database, job, 10, 20)
    with database.reading() as session:
        newest, older = checkpoints.page(session, job.id)[0]

    assert found(database, older.id) == (job.id, 10)
    assert found(database, checkpoint_id(MODEL, "a", "s", job.id, 10)) == (job.id, 10)
    assert found(database, newest.id) == found(database, job.id) == (job.id, 20)


def test_what_is_another_tenants_is_as_absent_as_what_never_was(database: Database) -> None:
    job = running(database)
    publish(database, job, 10)
    with database.reading() as session:
        (row,) = checkpoints.page(session, job.id)[0]
    names = (row.id, job.id, checkpoint_id(MODEL, "a", "s", job.id, 10))

    for name in names:
        foreign = refused(database, name, tenant="b")
        assert foreign.code == "checkpoint_not_found"
        assert foreign.message == refused(database, "ftckpt_none").message.replace("ftckpt_none", name)


@pytest.mark.parametrize(
    "name",
    [
        "ftjob-none",
        "ftckpt_none",
        "ft:late-fusion:a:s:aaaaaaaa:ckpt-step-1",
        "ft:late-fusion:a:s:aaaaaaaa:ckpt-step-999999999999999999999",
        "ft:late-fusion:a:s:aaaaaaaa",
        "../../etc",
        "%",
    ],
)
def test_what_names_no_checkpoint_is_told_where_to_look(database: Database, name: str) -> None:
    error = refused(database, name)

    assert error.code == "checkpoint_not_found"
    assert "/checkpoints" in error.message


@pytest.mark.parametrize("change", [("late-fusion", "clip"), (":s:", ":t:"), (":a:", ":b:")])
def test_a_name_that_is_right_in_part_is_no_name(database: Database, change: tuple[str, str]) -> None:
    job = running(database)
    publish(database, job, 10)

    refused(database, checkpoint_id(MODEL, "a", "s", job.id, 10).replace(*change))


def test_a_checkpoint_of_another_family_is_refused(database: Database) -> None:
    job = running(database)
    publish(database, job, 10)

    assert refused(database, job.id, model="other").code == "checkpoint_mismatch"


def test_as_many_checkpoints_are_kept_as_were_asked_for(database: Database) -> None:
    job = running(database)

    retired = publish(database, job, 1, 2, 3, 4, 5, keep=3)

    assert [Path(ref).name for ref in retired] == ["step-1", "step-2"]
    with database.reading() as session:
        rows, _ = checkpoints.page(session, job.id)
        assert [(row.step, row.available) for row in rows if row.available] == [(n, True) for n in (5, 4, 3)]
        assert [Path(ref).name for ref in checkpoints.kept(session, job.id)] == ["step-5", "step-4", "step-3"]
    gone = refused(database, checkpoint_id(MODEL, "a", "s", job.id, 2))
    assert gone.code == "checkpoint_not_found"
    assert "step 5" in gone.message


def test_a_checkpoint_that_is_published_twice_is_one_and_is_not_retired_by_itself(database: Database) -> None:
    job = running(database)

    retired = publish(database, job, 1, 1, keep=1)

    assert retired == []
    with database.reading() as session:
        assert len(checkpoints.page(session, job.id)[0]) == len(checkpoints.kept(session, job.id)) == 1


def test_a_claim_that_began_again_from_a_lower_step_has_the_newest_checkpoint(database: Database) -> None:
    job = running(database)
    publish(database, job, 10, 20)
    with database.transaction() as session:
        claims.lose(session, claims.held(session, job.id, job.fence), "it was killed")
    again = claims.claim(database, Lane.CPU, "w", 60)
    assert again is not None

    retired = publish(database, again, 5)

    assert [Path(ref).name for ref in retired] == ["step-10"]
    assert found(database, job.id) == (job.id, 5)


def test_what_an_unfinished_job_starts_from_is_kept_until_it_is_over(database: Database) -> None:
    source = running(database)
    publish(database, source, 1)
    with database.transaction() as session:
        start = starts.find(session, "a", source.id, model=MODEL)
        new = jobs.submit(
            session, jobs.Submission(tenant="a", spec={"model": MODEL}, start=start.checkpoint.id)
        )

    assert publish(database, source, 2, 3, 4, keep=1) == [
        f"jobs/{source.id}/{source.fence}-x/checkpoints/step-{n}" for n in (2, 3)
    ]
    with database.reading() as session:
        assert Path(starts.of(session, new.id) or "").name == "step-1"
        assert len(checkpoints.kept(session, source.id)) == 2
    with database.transaction() as session:
        jobs.cancel(session, "a", new.id)
    assert [Path(ref).name for ref in publish(database, source, 5, keep=1)] == ["step-4", "step-1"]


def test_retention_leaves_a_job_from_whose_checkpoint_another_is_to_start(database: Database) -> None:
    source = running(database)
    publish(database, source, 1)
    with database.transaction() as session:
        start = starts.find(session, "a", source.id, model=MODEL)
        again = jobs.Submission(tenant="a", spec={"model": MODEL}, start=start.checkpoint.id)
        new = jobs.submit(session, again)
        jobs.move(session, source.id, "job.failed", fence=source.fence, message="over")

    def expired() -> list[str]:
        with database.reading() as session:
            return list(retention.expired(session, older_than_s=-1))

    assert expired() == []
    with database.transaction() as session:
        jobs.cancel(session, "a", new.id)
    assert set(expired()) == {source.id, new.id}


def test_a_submit_and_a_retirement_at_one_instant_never_leave_a_job_without_its_start(tmp_path: Path) -> None:
    with database_url("postgresql", tmp_path) as url, migrated(url) as database:
        with database.transaction() as session:
            tenants.ensure(session, "a")
        source = running(database)
        publish(database, source, 1)
        retired: list[str] = []
        with database.transaction() as session:
            start = starts.find(session, "a", source.id, model=MODEL)
            worker = threading.Thread(
                target=lambda: retired.extend(publish(database, source, 2, 3, keep=1)), daemon=True
            )
            worker.start()
            worker.join(0.5)  # it waits for the row that is about to be needed
            again = jobs.Submission(tenant="a", spec={"model": MODEL}, start=start.checkpoint.id)
            new = jobs.submit(session, again)
        worker.join(20)

        assert [Path(ref).name for ref in retired] == ["step-2"]
        with database.reading() as session:
            assert starts.of(session, new.id) in checkpoints.kept(session, source.id)


def forgotten(database: Database) -> list[str]:
    """What one round of retention takes away."""
    with database.transaction() as session:
        gone = list(retention.expired(session, older_than_s=-1))
        retention.forget(session, gone)
        return gone


def test_a_submit_and_a_retention_at_one_instant_never_leave_a_job_without_its_start(tmp_path: Path) -> None:
    with database_url("postgresql", tmp_path) as url, migrated(url) as database:
        with database.transaction() as session:
            tenants.ensure(session, "a")
        source = running(database)
        publish(database, source, 1)
        with database.transaction() as session:
            jobs.move(session, source.id, "job.failed", fence=source.fence, message="over")
        gone: list[str] = []
        with database.transaction() as session:
            start = starts.find(session, "a", source.id, model=MODEL)
            upkeep = threading.Thread(target=lambda: gone.extend(forgotten(database)), daemon=True)
            upkeep.start()
            upkeep.join(0.5)  # it waits for the row that is about to be needed
            again = jobs.Submission(tenant="a", spec={"model": MODEL}, start=start.checkpoint.id)
            new = jobs.submit(session, again)
        upkeep.join(20)

        assert gone == []
        with database.reading() as session:
            assert starts.of(session, new.id) == start.checkpoint.ref


def result_of(database: Database, job: Job) -> File:
    """The job is over and left a file."""
    file = File(id="file-r", tenant="a", filename="rows.csv", purpose=files.RESULTS)
    file.bytes, file.sha256, file.blob = 1, "0" * 64, "file-r"
    with database.transaction() as session:
        files.add_result(session, job.id, file, 0)
        jobs.move(session, job.id, "job.failed", fence=job.fence, message="over")
    return file


def test_retention_leaves_a_job_whose_result_another_is_to_read(database: Database) -> None:
    source = running(database)
    file = result_of(database, source)
    with database.transaction() as session:
        reads = {file.id: "training_file"}
        spec = {"model": MODEL, "training_file": file.id}
        new = jobs.submit(session, jobs.Submission(tenant="a", spec=spec, files=reads))

    assert forgotten(database) == []
    with database.transaction() as session:
        jobs.cancel(session, "a", new.id)
    assert set(forgotten(database)) == {source.id, new.id}


def test_a_submit_and_a_retention_at_one_instant_never_leave_a_job_without_its_file(tmp_path: Path) -> None:
    with database_url("postgresql", tmp_path) as url, migrated(url) as database:
        with database.transaction() as session:
            tenants.ensure(session, "a")
        file = result_of(database, running(database))
        gone: list[str] = []
        with database.transaction() as session:
            reads = {file.id: "training_file"}
            spec = {"model": MODEL, "training_file": file.id}
            jobs.submit(session, jobs.Submission(tenant="a", spec=spec, files=reads))
            upkeep = threading.Thread(target=lambda: gone.extend(forgotten(database)), daemon=True)
            upkeep.start()
            upkeep.join(0.5)  # it waits for the tenant's quota
        upkeep.join(20)

        assert gone == []
