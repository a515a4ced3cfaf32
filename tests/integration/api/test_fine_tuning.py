"""Fine-tuning jobs over HTTP: what is submitted is kept as it was understood, once."""

from typing import Any

import pytest
from sqlalchemy import update

from db import claims
from db.tables import Job, Quota
from domain.job import Lane, State
from support.door import Door

JOBS = "/v1/fine_tuning/jobs"


def created(door: Door, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    answer = door.submit(body, **more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json or {})


def running(door: Door, job_id: str) -> None:
    claimed = claims.claim(door.database, Lane.CPU, "worker-1", 60.0)
    assert claimed is not None
    assert claimed.id == job_id


def finish(door: Door, job_id: str, **values: Any) -> None:
    with door.database.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def test_a_new_job_has_openais_shape_and_ours(door: Door) -> None:
    file_id = door.file()

    job = created(
        door,
        {
            "training_file": file_id,
            "seed": 7,
            "metadata": {"team": "red"},
            "priority": 3,
            "hyperparameters": {"n_epochs": 4},
            "multimodal": {"fusion": {"type": "mean"}},
        },
    )

    assert job["id"].startswith("ftjob-")
    expected = {
        "object": "fine_tuning.job",
        "model": "late-fusion",
        "status": "validating_files",
        "organization_id": "a",
        "training_file": file_id,
        "validation_file": None,
        "fine_tuned_model": None,
        "finished_at": None,
        "trained_tokens": None,
        "estimated_finish": None,
        "integrations": None,
        "error": None,
        "result_files": [],
        "seed": 7,
        "metadata": {"team": "red"},
        "queue": {"lane": "cpu", "position": 0, "priority": 3},
        "attempt": 0,
        "deaths": 0,
        "worker": None,
        "metrics": {},
        "progress": None,
    }
    assert {name: job[name] for name in expected} == expected
    chosen = {"n_epochs": 4, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert job["hyperparameters"] == chosen
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": chosen}}
    assert job["multimodal"]["fusion"]["type"] == "mean"
    assert job["multimodal"]["version"] == 1


def test_a_new_job_rings_its_lane_and_says_when_to_ask_again(door: Door) -> None:
    answer = door.submit()

    assert door.bells.rung == ["cpu"]
    assert answer.headers["Retry-After"] == "1"


def test_a_wrong_spec_is_a_400_with_every_path_and_what_is_allowed(door: Door) -> None:
    wrong = {"multimodal": {"fusion": {"typ": "mean", "dim": 0}}, "sed": 1}

    answer = door.submit(wrong)

    assert answer.status_code == 400
    assert answer.json is not None
    problems = {problem["path"]: problem for problem in answer.json["errors"]}
    assert set(problems) == {"multimodal.fusion.typ", "multimodal.fusion.dim", "sed"}
    assert "type" in problems["multimodal.fusion.typ"]["allowed"]
    assert answer.json["error"]["code"] == "invalid_spec"
    assert door.bells.rung == []


@pytest.mark.parametrize("field", ["training_file", "validation_file", "test_file"])
def test_a_file_that_is_not_there_is_a_400_that_names_the_field(door: Door, field: str) -> None:
    body: dict[str, Any] = {"training_file": door.file()}
    body |= {"multimodal": {"test_file": "file-none"}} if field == "test_file" else {field: "file-none"}

    answer = door.submit(body)

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"]["code"] == "file_not_found"
    assert answer.json["error"]["param"].endswith(field)


def test_another_tenants_file_cannot_be_trained_on(door: Door) -> None:
    theirs = door.file(key=door.new_key("b"))

    assert door.submit({"training_file": theirs}).status_code == 400


def test_the_same_key_and_body_answer_with_the_same_job(door: Door) -> None:
    body = {"training_file": door.file()}

    first = created(door, body, headers={"Idempotency-Key": "k"})
    second = created(door, body, headers={"Idempotency-Key": "k"})

    assert second["id"] == first["id"]


def test_the_same_key_with_another_body_is_a_422(door: Door) -> None:
    body = {"training_file": door.file()}
    created(door, body, headers={"Idempotency-Key": "k"})

    answer = door.submit({**body, "seed": 2}, headers={"Idempotency-Key": "k"})

    assert answer.status_code == 422
    assert answer.json is not None
    assert answer.json["error"]["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("key", ["", "k" * 256, "tab\there", "naïve"])
def test_a_key_that_is_none_is_a_400(door: Door, key: str) -> None:
    answer = door.submit(headers={"Idempotency-Key": key}, body={"training_file": "file-x"})

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"]["param"] == "Idempotency-Key"


def test_a_retry_of_the_stock_client_folds_onto_the_first_job(door: Door) -> None:
    body = {"training_file": door.file()}
    first = created(door, body, headers={"x-stainless-retry-count": "0"})

    retried = created(door, body, headers={"x-stainless-retry-count": "1"})
    anew = created(door, body, headers={"x-stainless-retry-count": "0"})

    assert retried["id"] == first["id"]
    assert anew["id"] != first["id"]


def test_too_many_queued_jobs_are_a_429(door: Door) -> None:
    file_id = door.file()
    with door.database.transaction() as session:
        session.execute(update(Quota).values(max_queued=1))
    created(door, {"training_file": file_id})

    answer = door.submit({"training_file": file_id})

    assert answer.status_code == 429
    assert answer.headers["Retry-After"]
    assert answer.json is not None
    assert answer.json["error"]["type"] == "rate_limit_error"


def test_jobs_are_listed_newest_first_page_by_page(door: Door) -> None:
    file_id = door.file()
    made = [created(door, {"training_file": file_id})["id"] for _ in range(5)]

    first = door.get(JOBS, query_string={"limit": 2}).json or {}
    second = door.get(JOBS, query_string={"limit": 2, "after": first["last_id"]}).json or {}
    third = door.get(JOBS, query_string={"limit": 2, "after": second["last_id"]}).json or {}

    pages = [first, second, third]
    assert [job["id"] for page in pages for job in page["data"]] == made[::-1]
    assert [page["has_more"] for page in pages] == [True, True, False]
    assert first["first_id"] == made[-1]


def test_jobs_can_be_found_by_their_metadata(door: Door) -> None:
    red = created(door, {"metadata": {"team": "red", "run": "1"}})
    created(door, {"metadata": {"team": "blue"}})
    created(door)

    found = door.get(JOBS, query_string={"metadata[team]": "red", "metadata[run]": "1"}).json or {}

    assert [job["id"] for job in found["data"]] == [red["id"]]


@pytest.mark.parametrize("name", ["a'b", "$.a", "a.b", "0", "%", 'a"b', "a\\b", "a]b", "["])
def test_odd_names_of_metadata_are_only_names(door: Door, name: str) -> None:
    job = created(door, {"metadata": {name: "x"}})

    found = door.get(JOBS, query_string={f"metadata[{name}]": "x"}).json or {}

    assert [entry["id"] for entry in found["data"]] == [job["id"]]


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_that_no_job_can_carry_finds_none(door: Door, name: str) -> None:
    created(door, {"metadata": {"a": "x"}})

    assert (door.get(JOBS, query_string={f"metadata[{name}]": "x"}).json or {})["data"] == []


def test_unknown_parameters_of_a_query_are_ignored_as_openai_does(door: Door) -> None:
    assert door.get(JOBS, query_string={"colour": "red"}).status_code == 200


def test_a_waiting_job_is_cancelled_at_once(door: Door) -> None:
    job = created(door)

    # The stock client sends this content type with no body at all.
    answer = door.send("POST", f"{JOBS}/{job['id']}/cancel", content_type="application/json")

    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["status"] == "cancelled"
    assert isinstance(answer.json["finished_at"], int)
    assert "Retry-After" not in answer.headers


def test_cancelling_a_running_job_pokes_its_worker(door: Door) -> None:
    job = created(door)
    running(door, job["id"])

    answer = door.send("POST", f"{JOBS}/{job['id']}/cancel")

    assert answer.json is not None
    assert answer.json["worker"] == "worker-1"
    assert door.bells.poked == ["worker-1"]


def test_a_paused_job_goes_on_when_it_is_resumed(door: Door) -> None:
    job = door.submit().json
    door.bells.rung.clear()

    paused = door.send("POST", f"{JOBS}/{job['id']}/pause", content_type="application/json")
    resumed = door.send("POST", f"{JOBS}/{job['id']}/resume", content_type="application/json")
    again = door.send("POST", f"{JOBS}/{job['id']}/resume")

    assert (paused.json["status"], paused.json["queue"]["position"]) == ("paused", None)
    assert resumed.json["status"] == "validating_files"
    assert door.bells.rung == [Lane.CPU]
    assert (again.status_code, again.json["error"]["code"]) == (409, "job_not_paused")
    assert again.headers["x-should-retry"] == "false"


def test_pausing_a_running_job_pokes_its_worker(door: Door) -> None:
    job = door.submit().json
    claims.claim(door.database, Lane.CPU, "worker-1", 60.0)

    answer = door.send("POST", f"{JOBS}/{job['id']}/pause")

    assert answer.json["status"] == "validating_files"
    assert door.bells.poked == ["worker-1"]


def test_cancelling_a_final_job_is_a_409_that_is_not_worth_a_retry(door: Door) -> None:
    job = created(door)
    door.send("POST", f"{JOBS}/{job['id']}/cancel")

    answer = door.send("POST", f"{JOBS}/{job['id']}/cancel")

    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json is not None
    assert answer.json["error"]["code"] == "job_is_final"


def test_a_succeeded_job_tells_its_model_its_metrics_and_what_was_chosen(door: Door) -> None:
    job = created(door)
    resolved = {**job["multimodal"], "hyperparameters": {"n_epochs": 5, "batch_size": 32}}
    result = {"model": "ft:late-fusion:a::12345678", "metrics": {"test_accuracy": 0.9}}
    finish(door, job["id"], state=State.SUCCEEDED, stage="run", resolved=resolved, result=result)

    answer = door.get(f"{JOBS}/{job['id']}").json or {}

    assert answer["status"] == "succeeded"
    assert answer["fine_tuned_model"] == "ft:late-fusion:a::12345678"
    assert answer["metrics"] == {"test_accuracy": 0.9}
    assert answer["hyperparameters"] == {
        "n_epochs": 5,
        "batch_size": 32,
        "learning_rate_multiplier": "auto",
    }


def test_a_failed_job_tells_why(door: Door) -> None:
    job = created(door)
    error = {"code": "invalid_training_file", "message": "line 17: broken JSON", "param": "training_file"}
    finish(door, job["id"], state=State.FAILED, error=error)

    answer = door.get(f"{JOBS}/{job['id']}").json or {}

    assert answer["status"] == "failed"
    assert answer["error"] == error


def test_a_running_job_tells_when_it_may_be_done(door: Door) -> None:
    job = created(door)
    running(door, job["id"])
    finish(door, job["id"], stage="run", progress={"stage": "training", "eta_s": 60.0})

    answer = door.get(f"{JOBS}/{job['id']}").json or {}

    assert answer["status"] == "running"
    assert answer["estimated_finish"] > answer["created_at"]
    assert answer["progress"]["stage"] == "training"


def test_events_are_listed_newest_first_page_by_page(door: Door) -> None:
    job = created(door)
    door.send("POST", f"{JOBS}/{job['id']}/cancel")

    first = door.get(f"{JOBS}/{job['id']}/events", query_string={"limit": 1}).json or {}
    second = door.get(f"{JOBS}/{job['id']}/events", query_string={"after": first["last_id"]}).json or {}

    assert [event["name"] for event in first["data"] + second["data"]] == ["job.cancelled", "job.created"]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert first["data"][0]["object"] == "fine_tuning.job.event"
    assert first["data"][0]["level"] == "info"
    assert first["data"][0]["type"] == "message"


@pytest.mark.parametrize("cursor", ["ftevent-other-1", "nonsense", "ftevent-x-99999999999999999999"])
def test_a_cursor_of_no_event_is_a_404(door: Door, cursor: str) -> None:
    job = created(door)

    answer = door.get(f"{JOBS}/{job['id']}/events", query_string={"after": cursor})

    assert answer.status_code == 404


def test_another_tenants_job_is_as_absent_as_none(door: Door) -> None:
    job_id, stranger = created(door)["id"], door.new_key("b")

    answers = [
        door.get(f"{JOBS}/{job_id}", key=stranger),
        door.get(f"{JOBS}/{job_id}/events", key=stranger),
        door.send("POST", f"{JOBS}/{job_id}/cancel", key=stranger),
        door.send("POST", f"{JOBS}/{job_id}/pause", key=stranger),
        door.send("POST", f"{JOBS}/{job_id}/resume", key=stranger),
        door.get(JOBS, query_string={"after": job_id}, key=stranger),
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert (door.get(JOBS, key=stranger).json or {})["data"] == []
