"""Rates at the door: who has one is told of it by every answer, and who sends too much is asked to wait."""

import pytest

from api.rates import duration
from db import quotas
from support.door import Door

HEADERS = tuple(f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset"))


def limit(door: Door, tenant: str = "a", **limits: int) -> None:
    with door.database.transaction() as session:
        quotas.set_limits(session, tenant, limits)


def test_a_tenant_without_a_limit_is_told_of_none(door: Door) -> None:
    assert not [name for name in HEADERS if name in door.get("/v1/files").headers]


def test_every_answer_says_what_is_left_and_one_too_many_is_refused(door: Door) -> None:
    limit(door, requests_per_minute=3)

    answers = [door.get("/v1/files"), door.get("/v1/files/none"), door.send("POST", "/v1/fine_tuning/jobs")]
    refusal = door.get("/v1/files")

    assert [answer.status_code for answer in answers] == [200, 404, 415]
    assert [answer.headers[HEADERS[1]] for answer in (*answers, refusal)] == ["2", "1", "0", "0"]
    assert {answer.headers[HEADERS[0]] for answer in (*answers, refusal)} == {"3"}
    assert refusal.status_code == 429
    assert (refusal.json or {})["error"]["code"] == "rate_limit_exceeded"
    assert (refusal.json or {})["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refusal.headers["Retry-After"]) <= 20
    assert "x-should-retry" not in refusal.headers
    assert refusal.headers[HEADERS[2]].endswith("s")


def test_a_burst_is_smaller_than_a_minutes_requests(door: Door) -> None:
    limit(door, requests_per_minute=60, request_burst=2)

    statuses = [door.get("/v1/files").status_code for _ in range(3)]

    assert statuses == [200, 200, 429]
    assert "60 requests a minute, 2 of them at once" in door.get("/v1/files").text


def test_what_needs_no_key_spends_nothing_and_another_tenant_is_not_held_up(door: Door) -> None:
    limit(door, requests_per_minute=1)
    other = door.new_key("b")
    assert door.get("/v1/files").status_code == 200

    assert door.get("/v1/files").status_code == 429
    assert door.get("/healthz").status_code == 200
    assert door.get("/v1/files", key=other).status_code == 200


def test_all_keys_of_a_tenant_share_its_rate(door: Door) -> None:
    limit(door, requests_per_minute=1)
    second = door.new_key("a")

    assert [door.get("/v1/files").status_code, door.get("/v1/files", key=second).status_code] == [200, 429]


def test_a_full_store_is_told_of_in_a_way_that_stops_retries(door: Door) -> None:
    limit(door, max_bytes=10)

    answer = door.upload()

    assert answer.status_code == 429
    assert (answer.json or {})["error"]["code"] == "quota_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    assert "Retry-After" in answer.headers
    assert door.blobs() == []


def test_a_full_queue_is_told_of_in_a_way_that_lets_others_try_again(door: Door) -> None:
    limit(door, max_queued=0)

    answer = door.submit()

    assert answer.status_code == 429
    assert "0 jobs are queued or paused and this tenant's limit is 0" in answer.text
    assert "x-should-retry" not in answer.headers
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0ms"), (0.12, "120ms"), (0.9999, "1000ms"), (8.641, "8.64s"), (59.999, "1m0s"), (360, "6m0s")],
)
def test_a_duration_is_written_as_openai_writes_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
