"""A file is validated over HTTP: a job of its own kind, answered at once or once it is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from db import claims, jobs
from db.tables import Job
from domain.access import Scope
from domain.job import Kind, Lane, Stage, State
from support.door import Door

GONE = "file-" + "a" * 24


def validate(door: Door, file_id: str, **more: Any) -> Any:
    return door.send("POST", f"/v1/files/{file_id}/validate", **more)


def row(door: Door, job_id: str) -> Job:
    with door.database.reading() as session:
        return jobs.get(session, "a", job_id, kind=Kind.CHECK)


@contextmanager
def done_while_waited_for(door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker that claims the check and ends it as soon as somebody waits for it."""

    def work(self: Any, job_id: str, heard: int, seconds: float) -> int:
        job = claims.claim(door.database, Lane.CPU, "w", 30.0)
        assert job is not None
        with door.database.transaction() as session:
            found = {"errors": 0, "warnings": 0, "issues": []}
            jobs.move(session, job.id, "job.succeeded", fence=job.fence, message="checked", result=found)
        return heard + 1

    monkeypatch.setattr("bus.wakes.Wakes.wait", work)
    yield


def test_a_check_is_a_job_on_the_cpu_lane_that_reads_the_file(door: Door) -> None:
    file_id = door.file()

    answer = validate(door, file_id, json={"multimodal": {"on_bad_row": "skip"}, "role": "validation"})

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert (answer.json["kind"], answer.json["status"], answer.json["file"]) == ("check", "queued", file_id)
    job = row(door, answer.json["id"])
    assert job.id.startswith("check_")
    assert (job.stage, job.lane, job.spec["role"]) == (Stage.RUN, Lane.CPU, "validation")
    assert job.spec["multimodal"]["on_bad_row"] == "skip"
    assert door.bells.rung == [Lane.CPU]


def test_a_check_needs_no_body(door: Door) -> None:
    file_id = door.file()

    answers = [
        validate(door, file_id),
        validate(door, file_id, content_type="application/json"),
        validate(door, file_id, json={}),
    ]

    assert [answer.status_code for answer in answers] == [202] * 3
    assert all(row(door, answer.json["id"]).spec["role"] == "training" for answer in answers)


def test_a_caller_who_waits_is_answered_with_what_was_found(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = door.file()

    with done_while_waited_for(door, monkeypatch):
        answer = validate(door, file_id, headers={"Prefer": "wait=20"})

    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["result"]["errors"]) == ("succeeded", 0)
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert "Location" not in answer.headers


def test_a_file_that_is_gone_or_anothers_is_not_found(door: Door) -> None:
    theirs, deleted = door.file(key=door.new_key("b")), door.file()
    door.send("DELETE", f"/v1/files/{deleted}")

    for file_id in (theirs, deleted, GONE):
        answer = validate(door, file_id)
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "file_not_found")
    assert door.bells.rung == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"role": "exam"}, "role"),
        ({"multimodal": {"on_bad_row": "ignore"}}, "multimodal.on_bad_row"),
        ({"multimodal": {"max_bad_fraction": 1.5}}, "multimodal.max_bad_fraction"),
        ({"rolle": "test"}, "rolle"),
    ],
)
def test_a_wrong_body_is_refused_by_its_path(door: Door, body: dict[str, Any], param: str) -> None:
    answer = validate(door, door.file(), json=body)

    assert (answer.status_code, answer.json["error"]["param"]) == (400, param)


def test_a_file_stays_as_long_as_its_check_is_not_over(door: Door) -> None:
    file_id = door.file()
    job_id = validate(door, file_id).json["id"]

    refused = door.send("DELETE", f"/v1/files/{file_id}")
    with door.database.transaction() as session:
        jobs.cancel(session, "a", job_id, kind=Kind.CHECK)
    allowed = door.send("DELETE", f"/v1/files/{file_id}")

    assert (refused.status_code, refused.json["error"]["code"]) == (409, "file_in_use")  # type: ignore[index]
    assert allowed.status_code == 200
    assert row(door, job_id).state == State.CANCELLED


def test_the_same_key_makes_one_check_and_no_other(door: Door) -> None:
    file_id, key = door.file(), {"Idempotency-Key": "k"}

    first, second = (validate(door, file_id, headers=key) for _ in range(2))
    other = validate(door, door.file(), headers=key)

    assert first.json["id"] == second.json["id"]
    assert other.status_code == 422


def test_a_check_reads_one_file_whatever_else_its_spec_names(door: Door) -> None:
    answer = validate(door, door.file(), json={"multimodal": {"test_file": GONE}})

    assert answer.status_code == 202
    assert row(door, answer.json["id"]).spec["multimodal"]["test_file"] is None


def test_a_check_is_no_fine_tune(door: Door) -> None:
    job_id = validate(door, door.file()).json["id"]

    assert door.get(f"/v1/fine_tuning/jobs/{job_id}").status_code == 404


def test_a_key_that_may_not_submit_jobs_may_not_check(door: Door) -> None:
    reader = door.new_key("a", frozenset({Scope.FILES_READ, Scope.FILES_WRITE}))

    assert validate(door, door.file(), key=reader).status_code == 403


def test_a_check_keeps_the_time_that_it_may_take(door: Door) -> None:
    file = door.file()
    made = door.send("POST", f"/v1/files/{file}/validate", json={"timeout_s": 60})
    wrong = door.send("POST", f"/v1/files/{file}/validate", json={"timeout_s": 0})

    with door.database.reading() as session:
        assert jobs.get(session, "a", (made.json or {})["id"]).spec["timeout_s"] == 60
    assert (wrong.status_code, (wrong.json or {})["error"]["param"]) == (400, "timeout_s")
