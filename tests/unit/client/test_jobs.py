"""Making jobs and following them, also through a restart of the server."""

from typing import Any

import pytest

from plait import Client, PlaitAPIError, PlaitConnectionError, PlaitError
from support.scripted import Answer, ScriptedServer, page, refusal

ROUTE = "/fine_tuning/jobs"


def job(status: str = "running", **more: Any) -> dict[str, Any]:
    return {"id": "ftjob-1", "object": "fine_tuning.job", "status": status, "model": "late-fusion", **more}


def event(n: int, **more: Any) -> dict[str, Any]:
    about = {
        "id": f"ftevent-{n}",
        "created_at": n,
        "level": "info",
        "message": f"event {n}",
        "type": "message",
    }
    return about | {"object": "fine_tuning.job.event", "data": {}} | more


def test_a_job_is_made_from_the_create_body(client, server):
    server.on(f"POST {ROUTE}", job("validating_files", created_at=7, progress=None, error=None))
    spec = {"model": "late-fusion", "training_file": "file-1", "multimodal": {"fusion": {"type": "mean"}}}

    made = client.jobs.create(spec)

    assert server.asked[0].json == spec
    assert server.asked[0].headers["authorization"] == "Bearer plait-key"
    assert (made.id, made.status, made.created_at, made.is_final) == ("ftjob-1", "validating_files", 7, False)
    assert (made.progress, made.metrics, made.error) == ({}, {}, None)


def test_a_finished_job_carries_its_numbers_and_its_model(client, server):
    server.on(
        f"GET {ROUTE}/ftjob-1",
        job("succeeded", metrics={"test_accuracy": 0.9}, fine_tuned_model="ft:late-fusion:a"),
    )

    got = client.jobs.get("ftjob-1")

    assert got.is_final
    assert got.metrics == {"test_accuracy": 0.9}
    assert got.fine_tuned_model == "ft:late-fusion:a"


def test_an_error_of_nulls_is_no_error(client, server):
    server.on(f"GET {ROUTE}/ftjob-1", job(error={"code": None, "message": None, "param": None}))

    assert client.jobs.get("ftjob-1").error is None


def test_jobs_are_listed_by_metadata_after_a_given_one(client, server):
    server.on(f"GET {ROUTE}", page([job()]))

    found = list(client.jobs.list(after="ftjob-2", metadata={"team": "a"}))

    assert [each.id for each in found] == ["ftjob-1"]
    assert server.asked[0].query == {"metadata[team]": "a", "limit": "100", "after": "ftjob-2"}


def test_a_cancel_is_a_post_without_a_body(client, server):
    server.on(f"POST {ROUTE}/ftjob-1/cancel", job("cancelled"))

    assert client.jobs.cancel("ftjob-1").status == "cancelled"
    assert server.asked[0].body == b""


@pytest.mark.parametrize(("word", "status"), [("pause", "paused"), ("resume", "queued")])
def test_a_pause_and_a_resume_are_posts_without_a_body(client, server, word, status):
    server.on(f"POST {ROUTE}/ftjob-1/{word}", job(status))

    assert getattr(client.jobs, word)("ftjob-1").status == status
    assert server.asked[0].body == b""


def test_a_model_id_keeps_its_colons_and_slashes(client, server):
    server.on(
        "GET /models/ft:late-fusion:org/name:ckpt-step-3", {"id": "ft:late-fusion:org/name:ckpt-step-3"}
    )

    assert (
        client.models.get("ft:late-fusion:org/name:ckpt-step-3").id == "ft:late-fusion:org/name:ckpt-step-3"
    )


def test_a_watch_gives_each_event_once_and_in_order(client, server):
    server.on(f"GET {ROUTE}/ftjob-1", job("queued"), job(), job("succeeded"))
    server.on(
        f"GET {ROUTE}/ftjob-1/events",
        page([event(2), event(1)]),
        page([event(2), event(1)]),
        page([event(4), event(3), event(2), event(1)]),
    )

    updates = list(client.jobs.watch("ftjob-1"))

    assert [update.job.status for update in updates] == ["queued", "running", "succeeded"]
    assert [[e.message for e in update.events] for update in updates] == [
        ["event 1", "event 2"],
        [],
        ["event 3", "event 4"],
    ]


def test_a_watch_fetches_as_many_pages_as_there_are_new_events(client, server):
    server.on(f"GET {ROUTE}/ftjob-1", job("succeeded"))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([event(3), event(2)], more=True), page([event(1)]))

    [update] = client.jobs.watch("ftjob-1")

    assert [e.id for e in update.events] == ["ftevent-1", "ftevent-2", "ftevent-3"]


def test_a_watch_looks_again_when_the_server_says(client, server, waits):
    soon, at_once = (Answer(200, job(), {"Retry-After": seconds}) for seconds in ("2", "0"))
    server.on(f"GET {ROUTE}/ftjob-1", soon, at_once, job(), job("succeeded"))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([]))

    list(client.jobs.watch("ftjob-1"))

    assert waits == [2.0, 0.1, 1.0]


def test_a_watch_survives_a_restart_of_the_server(server):
    server.on(f"GET {ROUTE}/ftjob-1", job(), job("succeeded"))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([event(1)]), page([event(2), event(1)]))
    restart = Restart(server, down_for=8)
    troubles: list[PlaitError] = []

    with Client(server.base_url, "k", wait=restart) as client:
        updates = list(client.jobs.watch("ftjob-1", on_trouble=troubles.append))

    assert [update.job.status for update in updates] == ["running", "succeeded"]
    assert [e.id for update in updates for e in update.events] == ["ftevent-1", "ftevent-2"]
    assert troubles
    assert all(isinstance(trouble, PlaitConnectionError) for trouble in troubles)


def test_a_watch_waits_for_a_server_that_is_not_ready(client, server, waits):
    unready = refusal(503, "unavailable", retry_after="3")
    server.on(f"GET {ROUTE}/ftjob-1", *[unready] * 7, job("succeeded"))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([]))

    updates = list(client.jobs.watch("ftjob-1"))

    assert len(updates) == 1
    assert set(waits) == {3.0}


def test_a_watch_loses_patience_in_the_end(server):
    waits: list[float] = []
    server.stop()

    with Client(server.base_url, "k", wait=waits.append) as client:
        with pytest.raises(PlaitConnectionError, match="plait-server up"):
            list(client.jobs.watch("ftjob-1", patience_s=10))

    server.start()
    assert 5 < sum(waits) < 30


def test_a_watch_of_an_unknown_job_ends_at_once(client, server, waits):
    with pytest.raises(PlaitAPIError, match="no such thing"):
        list(client.jobs.watch("ftjob-9"))

    assert waits == []


def test_an_events_issues_are_at_hand(client, server):
    issue = {"code": "missing_media", "message": "no file a.png", "line": 17, "column": "image"}
    server.on(f"GET {ROUTE}/ftjob-1/events", page([event(1, data={"issues": [issue]}), event(2)]))

    first, second = client.jobs.events("ftjob-1")

    assert first.issues == [issue]
    assert second.issues == []


class Restart:
    """Stands for the pauses: the server is gone after the first, and back `down_for` pauses later."""

    def __init__(self, server: ScriptedServer, down_for: int) -> None:
        self._server = server
        self._pause = 0
        self._back = down_for

    def __call__(self, _seconds: float) -> None:
        if self._pause == 0:
            self._server.stop()
        if self._pause == self._back:
            self._server.start()
        self._pause += 1
