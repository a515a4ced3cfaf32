"""What the client tries again, when, and with what."""

import pytest

from plait import Client, PlaitAPIError, PlaitConnectionError
from support.scripted import HANG_UP, Answer, page, refusal

JOB = {"id": "ftjob-1", "object": "fine_tuning.job", "status": "queued", "model": "late-fusion"}


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_a_request_that_may_pass_later_is_tried_again(client, server, status):
    server.on("GET /models", refusal(status, "busy"), page([{"id": "late-fusion"}]))

    assert [model.id for model in client.models.list()] == ["late-fusion"]


def test_it_gives_up_after_two_retries(client, server, waits):
    server.on("GET /models", refusal(503, "unavailable", "the database is away"))

    with pytest.raises(PlaitAPIError, match="the database is away"):
        client.models.list()

    assert len(server.asked) == 3
    assert len(waits) == 2


@pytest.mark.parametrize(
    "answer", [refusal(400, "bad"), refusal(404, "not_found"), refusal(409, "x", x_should_retry="false")]
)
def test_what_will_not_change_is_asked_once(client, server, waits, answer):
    server.on("GET /files/file-1", answer)

    with pytest.raises(PlaitAPIError):
        client.files.get("file-1")

    assert len(server.asked) == 1
    assert waits == []


def test_a_retried_create_carries_the_same_idempotency_key_and_body(client, server):
    server.on("POST /fine_tuning/jobs", HANG_UP, refusal(500, "internal_error"), JOB)

    job = client.jobs.create({"model": "late-fusion", "training_file": "file-1"})

    assert job.id == "ftjob-1"
    assert len(server.asked) == 3
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1
    assert len({asked.body for asked in server.asked}) == 1


def test_two_creates_carry_different_idempotency_keys(client, server):
    server.on("POST /fine_tuning/jobs", JOB)

    client.jobs.create({"model": "late-fusion"})
    client.jobs.create({"model": "late-fusion"})
    client.jobs.create({"model": "late-fusion"}, idempotency_key="mine")

    first, second, third = (asked.headers["idempotency-key"] for asked in server.asked)
    assert first != second
    assert third == "mine"


def test_it_waits_as_long_as_the_server_asks(client, server, waits):
    server.on("GET /models", refusal(429, "rate_limited", retry_after="7"), page([]))

    assert list(client.models.list()) == []
    assert waits == [7.0]


def test_a_wait_of_an_hour_is_told_and_not_waited(client, server, waits):
    server.on("GET /models", refusal(429, "quota_exceeded", retry_after="3600"))

    with pytest.raises(PlaitAPIError, match="Try again in 3600 s"):
        client.models.list()

    assert waits == []


@pytest.mark.parametrize("retry_after", ["soon", "nan", "-1", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_senseless_retry_after_counts_as_none(client, server, waits, retry_after):
    server.on("GET /models", refusal(503, "unavailable", retry_after=retry_after), page([]))

    client.models.list()

    assert 0 < waits[0] <= 0.5


def test_a_refused_connection_is_tried_again_and_then_told(client, server, waits):
    server.stop()

    with pytest.raises(PlaitConnectionError) as caught:
        client.models.list()

    server.start()
    assert len(waits) == 2
    assert "plait-server up" in str(caught.value)
    assert server.base_url in str(caught.value)


def test_an_address_elsewhere_is_not_told_to_start_a_server_here(waits):
    with Client("http://plait.invalid/v1", "k", wait=waits.append) as client:
        with pytest.raises(PlaitConnectionError) as caught:
            client.models.list()

    assert "PLAIT_BASE_URL" in str(caught.value)
    assert "plait-server up" not in str(caught.value)


def test_an_upload_is_sent_whole_again(client, server, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "hello"}\n')
    server.on("POST /files", Answer(503), {"id": "file-1", "filename": "a.jsonl"})

    client.files.push(tmp_path / "a.jsonl")

    first, second = server.asked
    assert first.body == second.body
    assert b'{"text": "hello"}' in second.body
