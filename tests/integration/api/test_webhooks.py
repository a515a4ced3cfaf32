"""Webhook endpoints and their log over HTTP; what is sent is seen to in tests/integration/worker."""

import threading
from pathlib import Path
from typing import Any

import pytest

from db import deliveries, jobs, outbox, webhooks
from db.outbox import Tried
from db.session import Database
from domain.access import Scope
from domain.job import Kind, Lane, Stage
from domain.webhooks import EVENT_TYPES, MOST_ENDPOINTS, Code
from settings import Settings
from support.door import Door

PATH = "/v1/webhook_endpoints"
URL = "http://127.0.0.1:9/hook"


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Door:
    return Door(database, Settings(data=tmp_path / "data", webhook_allow="127.0.0.0/8, hooks.internal"))


def created(door: Door, **more: Any) -> dict[str, Any]:
    answer = door.send("POST", PATH, json={"url": URL, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json or {})


def refusal(answer: Any) -> tuple[int, str, str | None]:
    error = (answer.json or {})["error"]
    return answer.status_code, error["code"], error["param"]


def delivered(door: Door, endpoint_id: str, tried: Tried) -> str:
    """A message that was tried once, with this outcome; its id."""
    with door.database.transaction() as session:
        row = deliveries.sample(session, "a", endpoint_id, "check.failed")
        row.is_test = False
    (message,) = outbox.take(door.database, endpoint_id, 60.0, 1)
    assert outbox.settle(door.database, message, tried)
    return row.id


def test_the_secret_is_shown_when_an_endpoint_is_made_and_never_again(door: Door) -> None:
    made = created(door, name="ci", event_types=["fine_tuning.job.succeeded"])
    secret = made.pop("signing_secret")

    seen = door.get(f"{PATH}/{made['id']}").json or {}
    (listed,) = (door.get(PATH).json or {})["data"]

    assert secret.startswith("whsec_")
    assert seen == listed == made
    assert (made["object"], made["status"], made["name"]) == ("webhook_endpoint", "enabled", "ci")
    assert made["signing_secret_hint"] == f"whsec_…{secret[-4:]}"
    assert secret not in str(seen)


def test_the_same_key_makes_one_endpoint_and_shows_the_same_secret(door: Door) -> None:
    key = {"Idempotency-Key": "k"}
    first, second = (door.send("POST", PATH, json={"url": URL}, headers=key).json for _ in range(2))

    other = door.send("POST", PATH, json={"url": URL + "2"}, headers=key)

    assert first == second
    assert refusal(other)[:2] == (422, "idempotency_key_reused")
    door.send("DELETE", f"{PATH}/{(first or {})['id']}")
    assert (door.send("POST", PATH, json={"url": URL}, headers=key).json or {})["id"] != (first or {})["id"]


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/hook",
        "https://10.0.0.1/hook",
        "https://[::1]/hook",
        "https://169.254.169.254/latest/meta-data/",
        "http://8.8.8.8/hook",
        "https://2130706433/",
        "https://user@127.0.0.1/",
        "https://no-such-host.invalid/",
        "ftp://127.0.0.1/",
    ],
)
def test_a_url_to_which_nothing_would_be_sent_is_refused(
    database: Database, tmp_path: Path, url: str
) -> None:
    door = Door(database, Settings(data=tmp_path / "data"))
    assert refusal(door.send("POST", PATH, json={"url": url})) == (400, "webhook_url_refused", "url")
    assert (door.get(PATH).json or {})["data"] == []


def test_what_the_operator_allows_may_be_private_and_without_tls(door: Door) -> None:
    made = created(door)

    answer = door.send("POST", f"{PATH}/{made['id']}", json={"url": "http://10.0.0.1/"})

    assert refusal(answer) == (400, "webhook_url_refused", "url")
    assert (door.get(f"{PATH}/{made['id']}").json or {})["url"] == URL


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": "https://" + "a" * 3000},
        {"url": URL, "event_types": []},
        {"url": URL, "event_types": ["check.exploded"]},
        {"url": URL, "name": "n" * 201},
        {"url": URL, "secret": "whsec_mine"},
        {"url": 7},
    ],
)
def test_a_body_that_is_wrong_is_told_by_its_field(door: Door, body: dict[str, Any]) -> None:
    answer = door.send("POST", PATH, json=body)

    assert refusal(answer)[:2] == (400, "invalid_spec"), answer.text


def test_an_endpoint_is_changed_by_what_is_given(door: Door) -> None:
    made = created(door, name="old")

    changed = door.send("POST", f"{PATH}/{made['id']}", json={"name": "new", "event_types": ["check.failed"]})
    off = door.send("POST", f"{PATH}/{made['id']}", json={"enabled": False}).json or {}
    on = door.send("POST", f"{PATH}/{made['id']}", json={"enabled": True}).json or {}

    assert (changed.json or {})["name"] == "new"
    assert (off["status"], off["disabled_reason"]) == ("disabled", "It was disabled by its owner.")
    assert (on["status"], on["disabled_reason"], on["disabled_at"]) == ("enabled", None, None)
    assert (on["name"], on["event_types"], on["url"]) == ("new", ["check.failed"], URL)


def test_a_secret_is_rotated(door: Door) -> None:
    made = created(door)

    rotated = door.send("POST", f"{PATH}/{made['id']}/rotate_secret").json or {}
    with door.database.reading() as session:
        kept = webhooks.get(session, "a", made["id"])
    leaked = {"keep_old_secret_active_for_24_hours": False}
    again = door.send("POST", f"{PATH}/{made['id']}/rotate_secret", json=leaked).json or {}

    assert len({made["signing_secret"], rotated["signing_secret"], again["signing_secret"]}) == 3
    assert kept.old_secret == made["signing_secret"]
    assert 86_000 < (kept.old_secret_until or 0) - kept.updated_at <= 86_401
    with door.database.reading() as session:
        assert webhooks.get(session, "a", made["id"]).old_secret is None


def test_a_tenant_has_so_many_endpoints_and_no_more(door: Door) -> None:
    made = [created(door)["id"] for _ in range(MOST_ENDPOINTS)]

    answer = door.send("POST", PATH, json={"url": URL})

    assert refusal(answer)[:2] == (409, "too_many_webhook_endpoints")
    assert answer.headers["x-should-retry"] == "false"
    assert door.send("DELETE", f"{PATH}/{made[0]}").json == {
        "id": made[0],
        "object": "webhook_endpoint.deleted",
        "deleted": True,
    }
    created(door)
    pages, after = [], None
    for _ in range(3):
        query = {"limit": 8} | ({"after": after} if after else {})
        pages.append(door.get(PATH, query_string=query).json or {})
        after = pages[-1]["last_id"]
    assert [len(p["data"]) for p in pages] == [8, 8, 4]
    assert [p["has_more"] for p in pages] == [True, True, False]


def test_the_log_tells_each_message_and_each_try(door: Door) -> None:
    made = created(door)
    good = delivered(door, made["id"], Tried(0.1234, 204))
    bad = delivered(door, made["id"], Tried(1.0, None, Code.TIMEOUT, "too slow"))
    log = f"{PATH}/{made['id']}/deliveries"

    listed = (door.get(log).json or {})["data"]
    pending = (door.get(log, query_string={"status": "pending"}).json or {})["data"]
    detail = door.get(f"{log}/{bad}").json or {}

    assert [(m["id"], m["status"], m["attempts"]) for m in listed] == [
        (bad, "pending", 1),
        (good, "delivered", 1),
    ]
    assert [m["id"] for m in pending] == [bad]
    assert pending[0]["next_attempt_at"] is not None
    assert detail["tries"][0] | {"started_at": 0} == {
        "number": 1,
        "started_at": 0,
        "duration_ms": 1000,
        "status_code": None,
        "error": "delivery_timeout",
        "message": "too slow",
        "answer": "",
    }
    assert '"type":"check.failed"' in detail["payload"]
    assert door.get(log, query_string={"after": bad, "limit": 1}).json["data"][0]["id"] == good  # type: ignore[index]
    assert refusal(door.get(log, query_string={"status": "lost"}))[:2] == (400, "invalid_status")
    assert refusal(door.get(log, query_string={"after": "msg_x"})) == (
        404,
        "webhook_delivery_not_found",
        "after",
    )


def test_a_message_is_sent_again_and_a_disabled_endpoint_says_so(door: Door) -> None:
    made = created(door)
    sent = delivered(door, made["id"], Tried(0.1, 200))
    again = f"{PATH}/{made['id']}/deliveries/{sent}/redeliver"

    assert (door.send("POST", again).json or {})["status"] == "pending"

    door.send("POST", f"{PATH}/{made['id']}", json={"enabled": False})
    assert refusal(door.send("POST", again))[:2] == (409, "webhook_endpoint_disabled")
    assert refusal(door.send("POST", f"{PATH}/{made['id']}/test"))[:2] == (409, "webhook_endpoint_disabled")


@pytest.mark.parametrize(
    ("tried", "told"),
    [
        (
            Tried(0.1, 500, Code.BAD_STATUS, "no"),
            {"success": True, "status_code": 500, "error": "bad_status"},
        ),
        (Tried(0.1, 200), {"success": True, "status_code": 200, "error": None}),
        (
            Tried(0.1, None, Code.NO_CONNECTION),
            {"success": False, "status_code": None, "error": "no_connection"},
        ),
    ],
)
def test_a_test_is_answered_with_what_the_receiver_said(
    door: Door, tried: Tried, told: dict[str, Any]
) -> None:
    made, over = created(door), threading.Event()

    def send() -> None:
        while not over.wait(0.02):
            for message in outbox.take(door.database, made["id"], 60.0, 1):
                outbox.settle(door.database, message, tried)

    thread = threading.Thread(target=send)
    thread.start()
    answer = door.send("POST", f"{PATH}/{made['id']}/test", json={"event_type": "check.failed"})
    over.set()
    thread.join()

    assert answer.status_code == 200
    assert (answer.json or {}) | told == answer.json
    assert (answer.json or {})["event_type"] == "check.failed"
    assert (answer.json or {})["object"] == "webhook_endpoint.test"


def test_a_test_that_nobody_sends_yet_says_where_to_ask(door: Door) -> None:
    made = created(door)

    answer = door.send("POST", f"{PATH}/{made['id']}/test", headers={"Prefer": "wait=0"})

    assert answer.status_code == 202
    later = door.get(answer.headers["Location"]).json or {}
    assert (later["status"], later["event_type"]) == ("pending", "webhook.test")


def test_another_tenants_endpoints_and_messages_are_as_absent_as_none(door: Door) -> None:
    made, stranger = created(door), door.new_key("b")
    sent = delivered(door, made["id"], Tried(0.1, 200))
    one, log = f"{PATH}/{made['id']}", f"{PATH}/{made['id']}/deliveries"

    answers = [
        door.get(one, key=stranger),
        door.send("POST", one, json={"name": "mine"}, key=stranger),
        door.send("DELETE", one, key=stranger),
        door.send("POST", f"{one}/rotate_secret", key=stranger),
        door.send("POST", f"{one}/test", key=stranger),
        door.get(log, key=stranger),
        door.get(f"{log}/{sent}", key=stranger),
        door.send("POST", f"{log}/{sent}/redeliver", key=stranger),
        door.get(PATH, query_string={"after": made["id"]}, key=stranger),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert (door.get(PATH, key=stranger).json or {})["data"] == []
    assert (door.get(one).json or {})["name"] == ""


def test_a_message_of_another_endpoint_is_not_this_ones(door: Door) -> None:
    first, second = created(door), created(door)
    sent = delivered(door, first["id"], Tried(0.1, 200))

    answer = door.get(f"{PATH}/{second['id']}/deliveries/{sent}")

    assert refusal(answer)[:2] == (404, "webhook_delivery_not_found")


def test_keys_need_the_scopes_of_webhooks(door: Door) -> None:
    reader = door.new_key("a", frozenset({Scope.WEBHOOKS_READ}))
    other = door.new_key("a", frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE}))

    assert door.get(PATH, key=reader).status_code == 200
    assert door.send("POST", PATH, json={"url": URL}, key=reader).status_code == 403
    assert door.get(PATH, key=other).status_code == 403


def test_the_types_are_listed(door: Door) -> None:
    assert door.get("/v1/webhook_event_types").json == {"object": "list", "data": list(EVENT_TYPES)}


def test_a_job_that_is_cancelled_over_http_is_told(door: Door) -> None:
    made = created(door)
    new = jobs.Submission(tenant="a", spec={"file": "f"}, kind=Kind.CHECK, stage=Stage.RUN, lane=Lane.CPU)
    with door.database.transaction() as session:
        job_id = jobs.submit(session, new).id

    door.send("POST", f"/v1/jobs/{job_id}/cancel")

    (told,) = (door.get(f"{PATH}/{made['id']}/deliveries").json or {})["data"]
    assert (told["event_type"], told["job"]) == ("check.cancelled", job_id)
