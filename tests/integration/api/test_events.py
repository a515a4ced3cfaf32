"""A job's events as a stream: every one, once, in order, from wherever the listener was; and no thread kept in vain."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from api.app import create_app
from api.stream import Listener, Streams, is_gone, told
from api.waiting import Waiting
from db import claims, jobs, reports
from db.session import Database
from db.tables import Job
from domain.job import Lane
from support.door import Door

JOBS = "/v1/fine_tuning/jobs"


@pytest.fixture
def job(door: Door) -> Job:
    """Running."""
    assert door.submit().status_code == 200
    claimed = claims.claim(door.database, Lane.CPU, "worker-1", 60.0)
    assert claimed is not None
    return claimed


def say(door: Door, job: Job, *messages: str) -> None:
    event = {"name": "training", "level": "info", "type": "message", "data": {}}
    words = reports.Words(events=[{**event, "message": message} for message in messages])
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


def open_stream(door: Door, app: Any, job: Job, key: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {key or door.key}"}
    return app.test_client().get(f"{JOBS}/{job.id}/events?stream=true", headers=headers)


def test_a_silent_stream_beats_without_making_events_of_it(door: Door, job: Job) -> None:
    app = create_app(door.settings, door.database, door.bells, Streams(32, heartbeat_s=0.05))

    answer = open_stream(door, app, job)
    heard: Iterator[bytes] = iter(answer.response)
    parts = [next(heard) for _ in range(6)]
    answer.close()

    assert parts[0] == b": listening\n"
    assert parts[-1] == b": heartbeat\n"
    assert numbers(b"".join(parts)) == [1, 2]


def test_more_streams_than_a_tenant_may_have_are_a_429(door: Door, job: Job) -> None:
    app = create_app(replace(door.settings, api_threads=8), door.database, door.bells)
    first, second = (open_stream(door, app, job) for _ in range(2))

    third = open_stream(door, app, job)
    first.close()
    after_one_closed = open_stream(door, app, job)

    assert third.status_code == 429
    assert third.headers["Retry-After"]
    assert third.json["error"]["code"] == "too_many_streams"
    assert (second.status_code, after_one_closed.status_code) == (200, 200)
    second.close()
    after_one_closed.close()


class Behind:
    """What a stream needs, with wakes that note whether a session is held meanwhile."""

    def __init__(self, database: Database) -> None:
        self.database, self.waiting, self.wakes = database, Waiting(8), self
        self.held: list[int] = []

    def wait(self, _job: str, heard: int, _seconds: float) -> int:
        self.held.append(self.database.engine.pool.checkedout())  # type: ignore[attr-defined]
        return heard


def test_no_session_is_held_while_a_stream_waits(door: Door, job: Job) -> None:
    plait = Behind(door.database)
    heard = told(plait, Listener(job.id, 0), heartbeat_s=0.0)

    for _ in range(6):
        next(heard)

    assert plait.held
    assert set(plait.held) == {0}


def test_a_stream_ends_with_its_process(door: Door, job: Job) -> None:
    plait = Behind(door.database)
    plait.waiting.end()

    assert list(told(plait, Listener(job.id, 0), heartbeat_s=0.0)) == [b": listening\n"]


def test_a_stream_outlives_a_database_that_is_away(door: Door, job: Job) -> None:
    plait = Behind(door.database)
    heard = told(plait, Listener(job.id, 2), heartbeat_s=0.0)
    with door.database.transaction() as session:
        session.execute(text("ALTER TABLE events RENAME TO away"))
    silent = [next(heard) for _ in range(3)]
    with door.database.transaction() as session:
        session.execute(text("ALTER TABLE away RENAME TO events"))
    end(door, job)

    assert numbers(b"".join(silent)) == []
    assert numbers(b"".join(heard)) == [3]


def test_a_listener_that_went_away_is_noticed_and_one_that_sends_ahead_is_not() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        assert not is_gone(ours)
        theirs.send(b"GET /next")
        assert not is_gone(ours)
        assert ours.recv(100) == b"GET /next"
        theirs.close()
        assert is_gone(ours)
    assert is_gone(ours)
