"""Following a job by the stream of its events: each once, in order, through breaks and restarts."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from plait import Client, Update
from support.scripted import Answer, ScriptedServer, page, refusal, sse, stream

JOB, EVENTS = "/fine_tuning/jobs/ftjob-1", "/fine_tuning/jobs/ftjob-1/events"


def job(status: str = "running") -> Answer:
    """With so long a time to the next look that only the stream can be what ends the wait."""
    return Answer(200, {"id": "ftjob-1", "status": status}, {"Retry-After": "30"})


def event(n: int) -> dict[str, Any]:
    return {"id": f"ftevent-1-{n}", "created_at": n, "message": f"event {n}"}


def newest_first(last: int) -> dict[str, Any]:
    return page([event(n) for n in range(last, 0, -1)])


def told(updates: list[Update]) -> list[str]:
    return [event.message for update in updates for event in update.events]


def streams(server: ScriptedServer) -> list[dict[str, str]]:
    """The streams that were asked for."""
    return [asked.query for asked in server.asked if "stream" in asked.query]


def test_a_watch_hears_events_when_they_happen_and_asks_for_the_job_each_time(client, server):
    over = threading.Event()
    server.on(f"GET {JOB}", job("queued"), job(), job("succeeded"))
    server.on(f"GET {EVENTS}", newest_first(2), newest_first(4))

    def happening() -> Iterator[bytes]:
        yield b"retry: 1000\n\n: heartbeat\n\n"
        yield sse(event(3))
        seen_by_client.wait(10)
        yield sse(event(4))
        over.wait(10)

    seen_by_client = threading.Event()
    server.on(f"GET {EVENTS}?stream", stream(happening()))
    updates = []
    for update in client.jobs.watch("ftjob-1"):
        updates.append(update)
        if "event 3" in told(updates):
            seen_by_client.set()
    over.set()

    assert told(updates) == ["event 1", "event 2", "event 3", "event 4"]
    assert streams(server) == [{"stream": "true", "after": "ftevent-1-2"}]


def test_what_a_stream_did_not_tell_is_read_from_the_list(client, server):
    server.on(f"GET {JOB}", job(), job("succeeded"))
    server.on(f"GET {EVENTS}", newest_first(1), newest_first(3))
    server.on(f"GET {EVENTS}?stream", stream(iter([sse(event(2))])))

    assert told(list(client.jobs.watch("ftjob-1"))) == ["event 1", "event 2", "event 3"]


def test_a_stream_that_begins_anew_repeats_nothing(client, server):
    server.on(f"GET {JOB}", job(), job(), job(), job(), job(), job("succeeded"))
    server.on(f"GET {EVENTS}", newest_first(1), newest_first(2), newest_first(3))
    again = (stream(map(sse, [event(1), event(2), event(3)][: n + 1])) for n in (1, 2, 2, 2, 2))
    server.on(f"GET {EVENTS}?stream", *again)

    assert told(list(client.jobs.watch("ftjob-1"))) == ["event 1", "event 2", "event 3"]


def test_a_restart_of_the_server_loses_and_repeats_no_event(server):
    server.on(f"GET {JOB}", job(), job(), job(), job("succeeded"))
    server.on(f"GET {EVENTS}", newest_first(1), newest_first(3), newest_first(5))

    def until_the_server_stops() -> Iterator[bytes]:
        yield sse(event(2))
        server.stop()

    server.on(
        f"GET {EVENTS}?stream",
        stream(until_the_server_stops()),
        stream(map(sse, [event(3), event(4)])),
        stream(iter([sse(event(5))])),
    )
    troubles: list[Exception] = []
    restarts: list[float] = []

    def start_again(seconds: float) -> None:
        if len(troubles) == 2 and not restarts:
            server.start()
            restarts.append(seconds)

    with Client(server.base_url, "k", wait=start_again, max_retries=0) as client:
        updates = list(client.jobs.watch("ftjob-1", on_trouble=troubles.append))

    assert told(updates) == [f"event {n}" for n in range(1, 6)]
    assert len(troubles) == 2


def test_a_server_without_room_for_a_stream_is_asked_again_later(client, server, waits):
    server.on(f"GET {JOB}", *[job()] * 25, job("succeeded"))
    server.on(f"GET {EVENTS}", newest_first(1))
    server.on(f"GET {EVENTS}?stream", refusal(429, "too_many_streams", retry_after="5"))

    list(client.jobs.watch("ftjob-1"))

    assert len(streams(server)) == 3
    assert set(waits) == {30.0}


@pytest.mark.parametrize("answer", [Answer(200, page([])), refusal(406, "not_acceptable")])
def test_a_server_that_streams_nothing_is_asked_once_and_polled_then(client, server, answer):
    server.on(f"GET {JOB}", *[job()] * 25, job("succeeded"))
    server.on(f"GET {EVENTS}", newest_first(1))
    server.on(f"GET {EVENTS}?stream", answer)

    assert told(list(client.jobs.watch("ftjob-1"))) == ["event 1"]
    assert len(streams(server)) == 1


def test_a_watch_that_is_left_ends_its_stream(client, server):
    left = threading.Event()
    server.on(f"GET {JOB}", job())
    server.on(f"GET {EVENTS}", newest_first(1))

    def endless() -> Iterator[bytes]:
        yield sse(event(2))
        left.wait(20)

    server.on(f"GET {EVENTS}?stream", stream(endless()))
    watch = client.jobs.watch("ftjob-1")
    assert [told([next(watch)]), told([next(watch)])] == [["event 1"], ["event 2"]]
    readers = [thread for thread in threading.enumerate() if thread.name == "plait-events"]
    watch.close()
    for reader in readers:
        reader.join(10)

    assert readers
    assert not any(reader.is_alive() for reader in readers)
    left.set()


def test_a_check_is_watched_without_events(client, server):
    server.on(
        "GET /jobs/check_1",
        *[{"id": "check_1", "kind": "check", "status": s} for s in ("queued", "succeeded")],
    )

    assert [update.job.status for update in client.jobs.watch("check_1")] == ["queued", "succeeded"]
    assert {asked.path for asked in server.asked} == {"/v1/jobs/check_1"}
