"""`plait webhooks` and `client.webhooks` against written answers."""

import json

import pytest

ENDPOINT = {
    "id": "whe_1",
    "object": "webhook_endpoint",
    "url": "https://ci.example.com/plait",
    "name": "ci",
    "event_types": ["*"],
    "status": "enabled",
    "created_at": 1_700_000_000,
    "signing_secret_hint": "whsec_…wxyz",
}
MESSAGE = {
    "id": "msg_1",
    "event_type": "check.failed",
    "job": "check_1",
    "status": "failed",
    "attempts": 2,
    "status_code": 503,
    "error": "bad_status",
    "created_at": 1_700_000_000,
}
ONE = "/webhook_endpoints/whe_1"


def listed(*items):
    return {"object": "list", "data": list(items), "has_more": False}


def test_an_endpoint_is_made_and_its_secret_is_printed_once(plait, server):
    server.on("POST /webhook_endpoints", ENDPOINT | {"signing_secret": "whsec_abc"})

    done = plait("webhooks", "create", "https://ci.example.com/plait", "-t", "check.failed", "--name", "ci")

    assert done.exit_code == 0
    assert "whsec_abc" in done.stdout
    assert "not shown again" in done.stderr
    assert server.asked[0].json == {
        "url": "https://ci.example.com/plait",
        "event_types": ["check.failed"],
        "name": "ci",
    }
    assert "idempotency-key" in server.asked[0].headers


def test_the_secret_is_in_no_repr(client, server):
    server.on("POST /webhook_endpoints", ENDPOINT | {"signing_secret": "whsec_abc"})

    made = client.webhooks.create("https://ci.example.com/plait")

    assert made.secret == "whsec_abc"
    assert "whsec_abc" not in repr(made)
    assert server.asked[0].json["event_types"] == ["*"]


def test_endpoints_are_listed_and_shown_with_the_reason_why_one_is_off(plait, server):
    off = ENDPOINT | {"status": "disabled", "disabled_reason": "Its receiver answered 410."}
    server.on("GET /webhook_endpoints", listed(off))
    server.on(f"GET {ONE}", off)

    assert "whe_1  disabled  https://ci.example.com/plait  *      ci" in plait("webhooks", "list").stdout
    shown = plait("webhooks", "show", "whe_1").stdout
    assert "Its receiver answered 410." in shown
    assert "whsec_…wxyz" in shown
    assert json.loads(plait("webhooks", "list", "--json").stdout) == [off]


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (("--enable",), {"enabled": True}),
        (("--disable",), {"enabled": False}),
        (("--url", "https://x.y", "-t", "*"), {"url": "https://x.y", "event_types": ["*"]}),
        (("--name", ""), {"name": ""}),
    ],
)
def test_an_endpoint_is_changed_by_what_is_given(plait, server, options, sent):
    server.on(f"POST {ONE}", ENDPOINT)

    assert plait("webhooks", "update", "whe_1", *options).exit_code == 0
    assert server.asked[0].json == sent


def test_a_change_of_nothing_is_wrong_usage(plait, server):
    assert plait("webhooks", "update", "whe_1").exit_code == 2
    assert server.asked == []


@pytest.mark.parametrize(("options", "keeps"), [((), True), (("--now",), False)])
def test_a_secret_is_rotated_with_or_without_the_old_one(plait, server, options, keeps):
    server.on(f"POST {ONE}/rotate_secret", ENDPOINT | {"signing_secret": "whsec_new"})

    assert "whsec_new" in plait("webhooks", "rotate", "whe_1", *options).stdout
    assert server.asked[0].json == {"keep_old_secret_active_for_24_hours": keeps}


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        ({"success": True, "status_code": 200, "error": None}, 0, "msg_1 arrived: 200"),
        ({"success": True, "status_code": 500, "error": "bad_status"}, 1, "msg_1 failed: 500 bad_status"),
        ({"success": False, "status_code": None, "error": "no_connection"}, 1, "failed: no_connection"),
        ({"success": False, "status_code": None, "error": None}, 1, "not sent yet"),
    ],
)
def test_a_test_says_what_the_receiver_answered(plait, server, told, code, words):
    server.on(f"POST {ONE}/test", {"delivery": "msg_1", **told})

    done = plait("webhooks", "test", "whe_1", "-t", "check.failed")

    assert done.exit_code == code
    assert words in done.stdout
    assert server.asked[0].json == {"event_type": "check.failed"}


def test_the_log_is_listed_and_one_message_is_shown_with_its_tries(plait, server):
    tries = [
        {
            "number": 1,
            "started_at": 1_700_000_000,
            "duration_ms": 12,
            "status_code": 503,
            "error": "bad_status",
            "message": "The receiver answered 503.",
            "answer": "busy\x1b[2J",
        }
    ]
    server.on(f"GET {ONE}/deliveries", listed(MESSAGE))
    server.on(f"GET {ONE}/deliveries/msg_1", MESSAGE | {"payload": "{}", "tries": tries})

    log = plait("webhooks", "deliveries", "whe_1", "--status", "failed").stdout
    shown = plait("webhooks", "deliveries", "whe_1", "msg_1").stdout

    assert "503 bad_status" in log
    assert server.asked[0].query["status"] == "failed"
    assert r"The receiver answered 503. busy\x1b[2J" in shown
    assert "12 ms" in shown


def test_a_message_is_sent_again_and_an_endpoint_deleted(plait, server):
    server.on(f"POST {ONE}/deliveries/msg_1/redeliver", MESSAGE | {"status": "pending"})
    server.on(f"DELETE {ONE}", {"id": "whe_1", "object": "webhook_endpoint.deleted", "deleted": True})

    assert "msg_1 is sent again" in plait("webhooks", "redeliver", "whe_1", "msg_1").stdout
    assert json.loads(plait("webhooks", "delete", "whe_1", "--json").stdout)["deleted"] is True
