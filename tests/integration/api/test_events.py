"""A job's events as a stream: every one, once, in order, from wherever the listener was; and no thread kept in vain."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from api.app import create_app
from api.listener import Listener
from api.listeners import Limits
from db import claims, events, jobs, reports
from db.tables import Job
from domain.job import Lane
from support.door import Door
from support.stack import until

JOBS = "/v1/fine_tuning/jobs"


@pytest.fixture
def job(door: Door) -> Job:
    """Running."""
    assert door.submit().status_code == 200
    claimed = claims.claim(door.database, Lane.CPU, "worker-1", 60.0)
    assert claimed is not None
    return claimed


def say(door: Door, job: Job, *messages: str) -> None:
    about = {"name": "training", "level": "info", "type": "message", "data": {}}
    words = reports.Words(events=[{**about, "message": message} for message in messages])
    with door.database.transaction() as session:
        assert reports.report(session, job.id, job.fence, words) is not None


def end(door: Door, job: Job) -> None:
    with door.database.transaction() as session:
        jobs.move(session, job.id, "job.failed", fence=job.fence, message="over")


def numbers(body: bytes) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in body.decode().splitlines() if line.startswith("id: ")]


@pytest.mark.parametrize(
    "asked", [{"query_string": {"stream": "true"}}, {"headers": {"Accept": "text/event-stream"}}]
)
def test_a_stream_tells_all_and_ends_after_the_final_event(door: Door, job: Job, asked: Any) -> None:
    say(door, job, "one\ntwo")
    end(door, job)

    answer = door.get(f"{JOBS}/{job.id}/events", **asked)

    assert answer.content_type == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-store"
    assert numbers(answer.data) == [1, 2, 3, 4]
    told_data = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    listed = (door.get(f"{JOBS}/{job.id}/events").json or {})["data"]
    assert told_data == listed[::-1]
    assert told_data[2]["message"] == "one\ntwo"
    assert "\nretry: 1000\nid: 1\n" in answer.text


@pytest.mark.parametrize(
    ("query", "headers", "told_numbers"),
    [
        ({"after": "2"}, {}, [3]),
        ({"after": "ID2"}, {}, [3]),
        ({}, {"Last-Event-ID": "1"}, [2, 3]),
        ({"after": "1"}, {"Last-Event-ID": "2"}, [3]),
        ({"after": "3"}, {}, []),
    ],
)
def test_a_stream_goes_on_behind_the_last_event_that_is_known(
    door: Door, job: Job, query: dict[str, str], headers: dict[str, str], told_numbers: list[int]
) -> None:
    end(door, job)
    ids = (door.get(f"{JOBS}/{job.id}/events").json or {})["data"]
    query = {name: ids[1]["id"] if value == "ID2" else value for name, value in query.items()}

    answer = door.get(f"{JOBS}/{job.id}/events", query_string={"stream": "1", **query}, headers=headers)

    assert numbers(answer.data) == told_numbers


def test_no_event_is_missed_or_told_twice_while_many_commit(door: Door, job: Job) -> None:
    writers = [
        threading.Thread(target=lambda n=n: [say(door, job, f"{n}.{i}") for i in range(15)]) for n in range(3)
    ]

    def write() -> None:
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        end(door, job)

    writing = threading.Thread(target=write)
    writing.start()
    answers = [door.get(f"{JOBS}/{job.id}/events", query_string={"stream": "true"}) for _ in range(2)]
    writing.join()

    for answer in answers:
        assert numbers(answer.data) == list(range(1, 3 + 45 + 1))


def open_stream(app: Any, door: Door, job: Job, key: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {key or door.key}"}
    return app.test_client().get(f"{JOBS}/{job.id}/events?stream=true", headers=headers)


def heard_until(heard: Iterator[bytes], words: bytes) -> bytes:
    """What is heard up to the first part with these words in it."""
    all_of_it = b""
    while words not in all_of_it:
        all_of_it += next(heard)
    return all_of_it


def test_a_silent_stream_beats_without_making_events_of_it(door: Door, job: Job) -> None:
    app = create_app(door.settings, door.database, door.bells, Limits(heartbeat_s=0.05))

    answer = open_stream(app, door, job)
    heard = heard_until(iter(answer.response), b": heartbeat\n: heartbeat\n")
    answer.close()

    assert heard.startswith(b": listening\n")
    assert numbers(heard) == [1, 2]


def test_more_streams_than_a_tenant_may_have_are_a_429(door: Door, job: Job) -> None:
    app = create_app(door.settings, door.database, door.bells, Limits(most=4, most_each=2))
    first, second = (open_stream(app, door, job) for _ in range(2))

    third = open_stream(app, door, job)
    first.close()
    after_one_closed = until(
        lambda: open_stream(app, door, job), lambda answer: answer.status_code == 200, limit_s=10
    )

    assert third.status_code == 429
    assert third.headers["Retry-After"]
    assert third.json["error"]["code"] == "too_many_streams"
    second.close()
    after_one_closed.close()


def test_no_session_is_held_while_a_stream_waits(door: Door, job: Job) -> None:
    answer = open_stream(door.app, door, job)
    heard_until(iter(answer.response), b"id: 2\n")

    checked_out = door.database.engine.pool.checkedout  # type: ignore[attr-defined]
    assert until(checked_out, lambda held: held == 0, limit_s=10) == 0
    answer.close()


def test_a_wake_is_told_at_once(door: Door, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.listeners.LOOK_EVERY_S", 600.0)
    answer = open_stream(door.app, door, job)
    heard = iter(answer.response)
    heard_until(heard, b"id: 2\n")

    say(door, job, "news")
    door.app.extensions["listeners"].note(job.id)

    assert numbers(heard_until(heard, b"news")) == [3]
    answer.close()


def test_a_stream_ends_with_its_process(door: Door, job: Job) -> None:
    answer = open_stream(door.app, door, job)

    door.app.extensions["listeners"].end()

    assert numbers(b"".join(answer.response)) in ([1, 2], [])


def test_a_stream_ends_with_the_key_that_opened_it(door: Door, job: Job) -> None:
    spare = door.send("POST", "/v1/api_keys", json={}).json or {}
    answer = open_stream(door.app, door, job, key=spare["api_key"])
    heard = iter(answer.response)
    heard_until(heard, b"id: 2\n")

    door.send("DELETE", f"/v1/api_keys/{spare['id']}")

    assert numbers(b"".join(heard)) == []


def test_a_stream_outlives_a_database_that_is_away(
    door: Door, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    answer = open_stream(door.app, door, job)
    heard = iter(answer.response)
    heard_until(heard, b"id: 2\n")
    with door.database.transaction() as session:
        session.execute(text("ALTER TABLE jobs RENAME TO away"))
    until(lambda: "streams wait for the database" in caplog.text, bool, limit_s=10)
    with door.database.transaction() as session:
        session.execute(text("ALTER TABLE away RENAME TO jobs"))
    end(door, job)

    assert numbers(b"".join(heard)) == [3]


def test_a_stream_of_a_job_that_is_deleted_ends(door: Door, job: Job) -> None:
    answer = open_stream(door.app, door, job)
    heard = iter(answer.response)
    heard_until(heard, b"id: 2\n")

    with door.database.transaction() as session:
        session.execute(text("DELETE FROM jobs"))

    assert b"".join(heard) == b""


def test_a_reader_that_is_slow_delays_nobody_and_misses_nothing(door: Door, job: Job) -> None:
    app = create_app(door.settings, door.database, door.bells)
    slow, quick = open_stream(app, door, job), open_stream(app, door, job)
    # Far more than a connection holds.
    for _ in range(6):
        say(door, job, *["x" * 2_000] * 200)
    end(door, job)

    assert numbers(b"".join(quick.response)) == list(range(1, 1204))
    assert numbers(b"".join(slow.response)) == list(range(1, 1204))


def test_what_many_listen_to_is_asked_for_in_one_query_while_nothing_happens(door: Door) -> None:
    made = [str((door.submit().json or {})["id"]) for _ in range(5)]
    asked: list[str] = []
    event.listen(door.database.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))

    with door.database.reading() as session:
        news = events.news(session, dict.fromkeys(made, 1))

    assert [(told.rows, told.is_all) for told in news.values()] == [([], False)] * 5
    assert len([statement for statement in asked if statement.startswith("SELECT")]) == 1


def test_a_listener_that_went_away_is_noticed_and_one_that_sends_ahead_is_not() -> None:
    ours, theirs = socket.socketpair()
    listener = Listener("a", "key_a", "ftjob-a", 0)
    listener.begin(ours)
    with ours:
        assert not listener.is_gone()
        theirs.send(b"GET /next")
        assert not listener.is_gone()
        assert ours.recv(100) == b"GET /next"
        theirs.close()
        assert listener.is_gone()
    assert listener.is_gone()
