"""A new job that goes on from another's checkpoint, over HTTP: what is accepted, what is told, what is refused."""

import pytest

from db import checkpoints, claims, events, reports, starts
from db.tables import Job
from domain.job import Lane
from support.door import Door
from support.predictions import registered

JOBS = "/v1/fine_tuning/jobs"


@pytest.fixture
def source(door: Door) -> Job:
    """A running job that published steps 1, 2 and 3, and keeps two."""
    assert door.submit({"suffix": "tiny"}).status_code == 200
    job = claims.claim(door.database, Lane.CPU, "worker-1", 60.0)
    assert job is not None
    for step in (1, 2, 3):
        with door.database.transaction() as session:
            reports.checkpoint(session, job.id, job.fence, ref=f"jobs/{step}", step=step, metrics={})
            checkpoints.retire(session, job.id, keep=2)
    return job


def test_a_job_tells_first_of_all_where_it_starts_from(door: Door, source: Job) -> None:
    listed = (door.get(f"{JOBS}/{source.id}/checkpoints").json or {})["data"]
    by_step = {entry["step_number"]: entry for entry in listed}
    assert {step: entry["available"] for step, entry in by_step.items()} == {3: True, 2: True, 1: False}

    for name, step in (
        (source.id, 3),
        (by_step[2]["id"], 2),
        (by_step[2]["fine_tuned_model_checkpoint"], 2),
    ):
        answer = door.submit({"resume_from_checkpoint": name})
        assert answer.status_code == 200, answer.text
        new = (answer.json or {})["id"]
        with door.database.reading() as session:
            first = events.since(session, new, 0)[0]
            assert f"step {step} of {source.id}" in first.message
            assert by_step[step]["id"] in first.message
            assert starts.of(session, new) == f"jobs/{step}"


def test_a_submission_that_is_sent_again_is_the_same_job_with_the_same_start(door: Door, source: Job) -> None:
    body = {"training_file": door.file(), "resume_from_checkpoint": source.id}

    one, other = (door.submit(body, headers={"Idempotency-Key": "k"}) for _ in range(2))

    assert one.status_code == other.status_code == 200
    assert (one.json or {})["id"] == (other.json or {})["id"]


def test_a_checkpoint_that_is_not_kept_or_not_there_is_a_400_that_says_what_to_do(
    door: Door, source: Job
) -> None:
    listed = (door.get(f"{JOBS}/{source.id}/checkpoints").json or {})["data"]

    gone = door.submit({"resume_from_checkpoint": listed[-1]["id"]})
    absent = door.submit({"resume_from_checkpoint": "ftckpt_none"})

    for answer in (gone, absent):
        error = (answer.json or {})["error"]
        assert answer.status_code == 400
        assert (error["code"], error["param"]) == ("checkpoint_not_found", "resume_from_checkpoint")
    assert listed[0]["id"] in gone.text
    assert "/checkpoints" in absent.text


def test_another_tenants_checkpoint_looks_absent(door: Door, source: Job) -> None:
    stranger = door.new_key("b")
    listed = (door.get(f"{JOBS}/{source.id}/checkpoints").json or {})["data"]

    for name in (source.id, listed[0]["id"], listed[0]["fine_tuned_model_checkpoint"]):
        foreign = door.submit({"resume_from_checkpoint": name}, key=stranger)
        absent = door.submit({"resume_from_checkpoint": "ftckpt_none"}, key=stranger)
        assert foreign.status_code == absent.status_code == 400
        assert foreign.text.replace(name, "X") == absent.text.replace("ftckpt_none", "X")


@pytest.mark.parametrize("name", ["", "x" * 301, 7, ["ftjob-1"]])
def test_what_is_no_name_is_refused_by_its_field(door: Door, name: object) -> None:
    answer = door.submit({"resume_from_checkpoint": name})

    assert answer.status_code == 400
    assert (answer.json or {})["error"]["param"] == "resume_from_checkpoint"


def test_a_job_goes_on_with_the_model_that_the_other_one_started_from(door: Door, source: Job) -> None:
    model = registered(door.database)

    answer = door.submit({"model": model, "resume_from_checkpoint": source.id})

    assert answer.status_code == 200, answer.text
    new = (answer.json or {})["id"]
    with door.database.reading() as session:
        assert session.get_one(Job, new).spec["model"] == model
        assert starts.of(session, new) == "jobs/3"
