"""Predictions over HTTP, from the request to the answer; a worker's part is played by the test."""

import threading
from typing import Any

import pytest
from sqlalchemy import update

from db import claims, jobs
from db.tables import ApiKey, Quota
from domain.access import Scope
from domain.job import Lane, State
from support.door import Door
from support.predictions import (
    LARGE,
    PREDICTIONS,
    answered,
    claimed,
    data_url,
    predict,
    registered,
    spec_of,
    submitted,
)
from support.stack import until

ITEM: dict[str, Any] = {
    "label": "seven",
    "score": 0.9,
    "top": [{"label": "seven", "score": 0.9}, {"label": "one", "score": 0.1}],
    "probabilities": {"seven": 0.9, "one": 0.1},
    "modalities": {"used": ["text"], "missing": ["image"], "failed": [], "weights": {"text": 1.0}},
}


@pytest.fixture
def model(door: Door) -> str:
    return registered(door.database)


def test_whoever_waits_gets_the_answer_itself(door: Door, model: str) -> None:
    answers: list[Any] = []
    body = {"model": model, "inputs": [{"id": "mine", "text": "7"}, {"text": "seven"}], "top_k": 2}
    request = threading.Thread(target=lambda: answers.append(predict(door, body, wait=30)))
    request.start()
    job = until(
        lambda: claims.claim(door.database, Lane.INFER, "worker-1", 60.0),
        lambda job: job is not None,
        limit_s=20,
    )
    assert job is not None

    answered(door, job, **ITEM)
    request.join(30)

    (answer,) = answers
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=30"
    assert "Retry-After" not in answer.headers
    told = answer.json
    assert {name: told[name] for name in ("object", "status", "model", "error")} == {
        "object": "prediction",
        "status": "succeeded",
        "model": model,
        "error": None,
    }
    assert [item["id"] for item in told["predictions"]] == ["mine", "1"]
    first = told["predictions"][0]
    assert first["modalities"] == {**ITEM["modalities"], "weights_by": None}
    assert {name: first[name] for name in ("label", "score", "top")} == {
        name: ITEM[name] for name in ("label", "score", "top")
    }
    assert {first[name] for name in ("value", "labels", "embedding", "error")} == {None}
    assert set(told["usage"]) == {"queue_ms", "decode_ms", "gpu_ms", "batch_size"}
    assert told["usage"]["queue_ms"] >= 0


def test_whoever_does_not_wait_is_told_where_and_when_to_ask(door: Door, model: str) -> None:
    answer = predict(door, {"model": model, "inputs": [{"text": "7"}]}, wait=0)

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{PREDICTIONS}/{answer.json['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.json["status"] == "queued"
    assert answer.json["predictions"] is None
    assert answer.json["usage"] is None
    assert door.bells.rung == ["infer"]
    later = door.get(answer.headers["Location"])
    assert (later.status_code, later.headers["Retry-After"]) == (200, "1")


def test_background_means_not_to_wait_whatever_is_preferred(door: Door, model: str) -> None:
    answer = predict(door, {"model": model, "inputs": [{"text": "7"}], "background": True}, wait=60)

    assert answer.status_code == 202


def test_a_get_may_wait_as_well(door: Door, model: str) -> None:
    prediction = submitted(door, model)
    answered(door, claimed(door), **ITEM)

    answer = door.get(f"{PREDICTIONS}/{prediction['id']}", query_string={"wait": 60})

    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["status"] == "succeeded"
    assert "Location" not in answer.headers


def test_the_worker_is_given_the_rows_and_the_options(door: Door, model: str) -> None:
    prediction = submitted(
        door,
        model,
        {"id": 5, "text": "hello", "image": None},
        top_k=3,
        return_embeddings=True,
        on_bad_input="mask",
        metadata={"team": "red"},
    )

    assert prediction["metadata"] == {"team": "red"}
    assert spec_of(door, prediction["id"]) == {
        "model": model,
        "inputs": [{"id": "5", "values": {"text": "hello", "image": None}, "problems": {}}],
        "top_k": 3,
        "return_embeddings": True,
        "on_bad_input": "mask",
        "files": [],
    }


def test_a_prediction_that_failed_tells_why(door: Door, model: str) -> None:
    prediction, error = submitted(door, model), {"code": "model_broken", "message": "no", "param": None}
    job = claimed(door)
    with door.database.transaction() as session:
        jobs.move(session, job.id, "job.failed", fence=job.fence, message="no", error=error)

    answer = door.get(f"{PREDICTIONS}/{prediction['id']}").json or {}

    assert (answer["status"], answer["error"], answer["predictions"]) == ("failed", error, None)


@pytest.mark.parametrize("path", ["inputs", "inputs.0", "top_k", "return_embeddings", "explain"])
def test_what_is_wrong_with_the_request_as_a_whole_is_a_400(door: Door, model: str, path: str) -> None:
    body: dict[str, Any] = {"model": model, "inputs": [{"text": "7"}]}
    wrong = {"inputs": [], "inputs.0": ["7"], "top_k": 0, "return_embeddings": "yes", "explain": True}
    body[path.partition(".")[0]] = wrong[path]

    answer = predict(door, body)

    assert answer.status_code == 400
    assert answer.json["error"]["code"] == "invalid_spec"
    assert answer.json["error"]["param"] == path
    assert door.bells.rung == []


@pytest.mark.parametrize(
    ("family", "option", "value"),
    [
        ("late-fusion", "max_tokens", 5),
        ("late-fusion", "stop", "."),
        ("vlm", "top_k", 3),
        ("vlm", "return_embeddings", True),
    ],
)
def test_what_the_models_family_cannot_do_is_a_400(door: Door, family: str, option: str, value: Any) -> None:
    model = registered(door.database, family=family)

    answer = predict(door, {"model": model, "inputs": [{"text": "7"}], option: value})

    assert (answer.status_code, answer.json["error"]["param"]) == (400, option)
    assert "leave" in answer.json["error"]["message"]
    assert door.bells.rung == []


def test_the_worker_is_told_how_to_write(door: Door) -> None:
    model = registered(door.database, family="vlm")

    prediction = submitted(door, model, max_tokens=5, temperature=1, seed=3, stop="\n")

    spec = spec_of(door, prediction["id"])
    assert {name: spec[name] for name in ("max_tokens", "temperature", "seed", "stop")} == {
        "max_tokens": 5,
        "temperature": 1.0,
        "seed": 3,
        "stop": ["\n"],
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_tokens", 0), ("temperature", 3), ("seed", -1), ("stop", ["a"] * 5), ("stop", [""])],
)
def test_options_of_writing_have_limits(door: Door, option: str, value: Any) -> None:
    model = registered(door.database, family="vlm")

    answer = predict(door, {"model": model, "inputs": [{"text": "7"}], option: value})

    assert answer.status_code == 400
    assert answer.json["error"]["param"].startswith(option)


def test_more_than_256_rows_are_a_400(door: Door, model: str) -> None:
    submitted(door, model, *[{"text": "7"}] * 256)

    answer = predict(door, {"model": model, "inputs": [{"text": "7"}] * 257})

    assert answer.status_code == 400
    assert "256" in answer.json["error"]["message"]


def test_a_family_cannot_predict(door: Door) -> None:
    answer = predict(door, {"model": "late-fusion", "inputs": [{"text": "7"}]})

    assert answer.status_code == 400
    assert answer.json["error"]["param"] == "model"
    assert "fine-tuned model is needed" in answer.json["error"]["message"]


def test_another_tenants_model_is_as_absent_as_none(door: Door, model: str) -> None:
    stranger = door.new_key("b")

    answers = [
        predict(door, {"model": name, "inputs": [{"text": "7"}]}, key=stranger) for name in (model, "ft:none")
    ]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert {answer.json["error"]["code"] for answer in answers} == {"model_not_found"}
    assert {answer.json["error"]["param"] for answer in answers} == {"model"}


def test_another_tenants_prediction_is_as_absent_as_none(door: Door, model: str) -> None:
    prediction_id, stranger = submitted(door, model)["id"], door.new_key("b")

    answers = [
        door.get(f"{PREDICTIONS}/{prediction_id}", key=stranger),
        door.get(f"{PREDICTIONS}/{prediction_id}", query_string={"wait": 60}, key=stranger),
        door.send("POST", f"{PREDICTIONS}/{prediction_id}/cancel", key=stranger),
        door.get(PREDICTIONS, query_string={"after": prediction_id}, key=stranger),
        # Nor is a job of another kind a prediction.
        door.get(f"{PREDICTIONS}/{door.submit().json['id']}"),  # type: ignore[index]
    ]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json["error"]["code"] for answer in answers} == {"prediction_not_found"}  # type: ignore[index]
    assert (door.get(PREDICTIONS, key=stranger).json or {})["data"] == []


def test_a_waiting_prediction_is_cancelled_at_once(door: Door, model: str) -> None:
    prediction = submitted(door, model)

    # The stock client sends this content type with no body at all.
    answer = door.send("POST", f"{PREDICTIONS}/{prediction['id']}/cancel", content_type="application/json")
    again = door.send("POST", f"{PREDICTIONS}/{prediction['id']}/cancel", json={})

    assert (answer.status_code, answer.json["status"]) == (200, "cancelled")  # type: ignore[index]
    assert door.bells.woken == [prediction["id"]]
    assert again.status_code == 409
    assert again.headers["x-should-retry"] == "false"


def test_cancelling_a_running_prediction_pokes_its_worker(door: Door, model: str) -> None:
    prediction = submitted(door, model)
    claimed(door)

    answer = door.send("POST", f"{PREDICTIONS}/{prediction['id']}/cancel")

    assert (answer.json or {})["status"] == "running"
    assert door.bells.poked == ["worker-1"]


def test_predictions_are_listed_newest_first_without_what_was_predicted(door: Door, model: str) -> None:
    made = [submitted(door, model)["id"] for _ in range(3)]
    answered(door, claimed(door), **ITEM)
    door.submit()

    first = door.get(PREDICTIONS, query_string={"limit": 2}).json or {}
    second = door.get(PREDICTIONS, query_string={"limit": 2, "after": first["last_id"]}).json or {}

    listed = first["data"] + second["data"]
    assert [entry["id"] for entry in listed] == made[::-1]
    assert [entry["status"] for entry in listed] == [State.QUEUED, State.QUEUED, State.SUCCEEDED]
    assert {entry["predictions"] for entry in listed} == {None}
    assert {entry["model"] for entry in listed} == {model}
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_the_same_key_and_body_answer_with_the_first_prediction(door: Door, model: str) -> None:
    body = {"model": model, "inputs": [{"image": data_url(LARGE)}]}

    first = predict(door, body, headers={"Idempotency-Key": "k"})
    second = predict(door, body, headers={"Idempotency-Key": "k"})
    other = predict(door, {**body, "top_k": 2}, headers={"Idempotency-Key": "k"})

    assert second.json["id"] == first.json["id"]
    assert other.status_code == 422
    assert other.json["error"]["code"] == "idempotency_key_reused"
    # The bytes of the first; those of the others went again.
    assert len(door.blobs()) == 1


def test_a_retry_of_the_stock_client_folds_onto_the_first_prediction(door: Door, model: str) -> None:
    body = {"model": model, "inputs": [{"image": data_url(LARGE)}]}
    first = predict(door, body, headers={"x-stainless-retry-count": "0"})

    retried = predict(door, body, headers={"x-stainless-retry-count": "1"})
    anew = predict(door, body, headers={"x-stainless-retry-count": "0"})

    assert retried.json["id"] == first.json["id"]
    assert anew.json["id"] != first.json["id"]
    assert len(door.blobs()) == 2


def test_too_many_queued_predictions_are_a_429_and_their_bytes_go_again(door: Door, model: str) -> None:
    with door.database.transaction() as session:
        session.execute(update(Quota).values(max_queued=0))

    answer = predict(door, {"model": model, "inputs": [{"image": data_url(LARGE)}]})

    assert answer.status_code == 429
    assert door.blobs() == []


def test_a_key_that_may_handle_jobs_may_predict_also_if_it_is_older_than_predictions(
    door: Door, model: str
) -> None:
    with door.database.transaction() as session:
        session.execute(update(ApiKey).values(scopes=["files:read", "jobs:read", "jobs:write"]))

    prediction = submitted(door, model)

    assert door.get(f"{PREDICTIONS}/{prediction['id']}").status_code == 200


def test_a_key_may_predict_and_do_nothing_else(door: Door, model: str) -> None:
    narrow = door.new_key("a", scopes=frozenset({Scope.PREDICTIONS_WRITE}))

    answers = [
        predict(door, {"model": model, "inputs": [{"text": "7"}]}, key=narrow),
        door.get(PREDICTIONS, key=narrow),
        door.get("/v1/fine_tuning/jobs", key=narrow),
        door.submit({"training_file": "file-x"}, key=narrow),
    ]

    assert [answer.status_code for answer in answers] == [202, 403, 403, 403]
