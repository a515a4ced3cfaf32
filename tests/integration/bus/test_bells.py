"""Bells with a real broker and a real Celery worker: each is a message of Celery's, and no lane gets a heap of them."""

import json
import logging
import queue
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery.contrib.testing.worker import start_worker

from bus.bells import ENOUGH, Bells
from bus.celery import PREFIX, TASK, make, message
from domain.job import Lane

CPU = f"{PREFIX}{Lane.CPU}"


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are() -> Iterator[None]:
    """A Celery worker in this process makes the root logger deaf to warnings, for every test that comes after."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)


@pytest.fixture
def wire(url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(url) as made:
        yield made


def without_ids(message: bytes | str) -> dict[str, Any]:
    """The message but for what differs from one of Celery's to the next."""
    told: dict[str, Any] = json.loads(message)
    for part, name in (("headers", "id"), ("headers", "root_id"), ("properties", "correlation_id")):
        assert uuid.UUID(told[part].pop(name))
    assert uuid.UUID(told["properties"].pop("delivery_tag"))
    for part, name in (("properties", "reply_to"), ("headers", "origin")):
        assert told[part].pop(name)
    return told


@pytest.mark.parametrize("lane", Lane)
def test_a_bell_is_the_message_that_celery_would_send(url: str, wire: "redis.Redis", lane: Lane) -> None:
    Bells(url).ring(lane)
    with make(url) as app:
        app.send_task(TASK, args=[str(lane)], queue=str(lane))

    theirs, ours = wire.lrange(f"{PREFIX}{lane}", 0, -1)

    assert without_ids(ours) == without_ids(theirs)


@pytest.mark.parametrize("database", ["", "?db=2"])
def test_a_celery_worker_runs_its_task_once_for_each_bell(url: str, database: str) -> None:
    url += database
    app, heard = make(url, lane=Lane.CPU), queue.Queue[tuple[str, str]]()

    @app.task(name=TASK, bind=True, shared=False)
    def run(self: Any, lane: str) -> None:
        heard.put((lane, self.request.id))

    Bells(url).ring(Lane.CPU, 3)
    with start_worker(app, pool="solo", perform_ping_check=False):
        first = [heard.get(timeout=30) for _ in range(3)]
        Bells(url).ring(Lane.CPU)
        last = heard.get(timeout=30)

    assert {lane for lane, _ in (*first, last)} == {"cpu"}
    assert len({task for _, task in (*first, last)}) == 4
    assert heard.empty()


def test_a_bell_that_is_made_while_a_task_runs_is_not_that_tasks_child(url: str) -> None:
    app, made = make(url, lane=Lane.CPU), queue.Queue[str]()

    @app.task(name=TASK, shared=False)
    def run(_lane: str) -> None:
        made.put(message(Lane.CPU))

    Bells(url).ring(Lane.CPU)
    with start_worker(app, pool="solo", perform_ping_check=False):
        inside = made.get(timeout=30)

    assert json.loads(inside)["headers"] == json.loads(message(Lane.CPU))["headers"]


def test_a_lane_gets_no_more_unheard_bells_than_it_needs_whoever_rings(url: str, wire: "redis.Redis") -> None:
    ringers = [Bells(url) for _ in range(3)]

    had_enough = [ringer.ring(Lane.CPU) for _ in range(20) for ringer in ringers]

    # The others each ring once more before they see that it has.
    assert ENOUGH <= wire.llen(CPU) < ENOUGH + len(ringers)
    assert had_enough[: ENOUGH - 1] == [False] * (ENOUGH - 1)
    assert all(had_enough[ENOUGH + len(ringers) :])


def test_many_rung_together_are_as_many_bells_up_to_enough(url: str, wire: "redis.Redis") -> None:
    bells = Bells(url)

    few, many = bells.ring(Lane.CPU, 3), bells.ring(Lane.CPU, 1_000)

    assert (few, many) == (False, True)
    assert wire.llen(CPU) == ENOUGH


def test_bells_that_were_heard_since_make_room_for_as_many(url: str, wire: "redis.Redis") -> None:
    bells = Bells(url)
    bells.ring(Lane.CPU, ENOUGH - 1)
    wire.delete(CPU)

    assert bells.ring(Lane.CPU, ENOUGH)
    assert wire.llen(CPU) == ENOUGH


@pytest.mark.parametrize("lost", ["heard", "flushed"])
def test_a_lane_whose_bells_are_gone_is_rung_again(url: str, wire: "redis.Redis", lost: str) -> None:
    bells = Bells(url)
    assert bells.ring(Lane.CPU, ENOUGH)

    wire.delete(CPU) if lost == "heard" else wire.flushall()

    assert not bells.ring(Lane.CPU)
    assert wire.llen(CPU) == 1


def test_each_lane_has_bells_of_its_own(url: str, wire: "redis.Redis") -> None:
    bells = Bells(url)
    assert bells.ring(Lane.CPU, ENOUGH)

    bells.ring(Lane.TRAIN)

    assert (wire.llen(CPU), wire.llen(f"{PREFIX}{Lane.TRAIN}")) == (ENOUGH, 1)


def test_a_bell_for_a_broker_that_is_gone_raises_nothing(running: Any) -> None:
    process, url = running
    bells = Bells(url)
    assert not bells.ring(Lane.CPU)
    process.kill()
    process.wait()

    assert not bells.ring(Lane.CPU)
    assert not bells.ready()
