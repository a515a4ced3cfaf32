"""Requests that wait: bounded in number, never on a database session, and answered when the process stops."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response
from sqlalchemy import text
from sqlalchemy.orm import Session

from api import waiting
from api.waiting import Waiting
from db.session import Database
from domain.errors import BadRequest


class Turns:
    """Stands in for the wakes: each wait is noted, then something happens."""

    def __init__(self, then: Any = lambda: None) -> None:
        self.waits: list[float] = []
        self.then = then

    def wait(self, job_id: str, heard: int, seconds: float) -> int:
        self.waits.append(seconds)
        self.then()
        return heard + 1


@pytest.fixture
def only_connection(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'plait.db'}")


def one(session: Session) -> int:
    return int(session.scalar(text("select 1")) or 0)


def test_a_wait_ends_when_the_row_is_done(only_connection: Database) -> None:
    looks: list[int] = []
    wakes = Turns()

    def read(session: Session) -> int:
        looks.append(one(session))
        return len(looks)

    row = Waiting(4).hold(
        SimpleNamespace(database=only_connection, wakes=wakes), read, lambda n: n == 3, "j", 9
    )

    assert row == 3
    assert len(wakes.waits) == 2


def test_no_session_is_held_while_waiting(only_connection: Database) -> None:
    held: list[int] = []
    wakes = Turns(lambda: held.append(only_connection.engine.pool.checkedout()))  # type: ignore[attr-defined]
    plait = SimpleNamespace(database=only_connection, wakes=wakes)

    Waiting(4).hold(plait, one, lambda _: len(held) == 2, "j", 9)

    assert held == [0, 0]


def test_the_time_is_up_after_the_seconds_that_were_asked_for(only_connection: Database) -> None:
    wakes = Turns()
    plait = SimpleNamespace(database=only_connection, wakes=wakes)

    assert Waiting(4).hold(plait, one, lambda _: False, "j", 0) == 1
    assert wakes.waits == []


def test_where_no_place_is_free_the_answer_does_not_wait(only_connection: Database) -> None:
    wakes, some = Turns(), Waiting(4)
    plait = SimpleNamespace(database=only_connection, wakes=wakes)

    with some.place() as first, some.place() as second, some.place() as third, some.place() as fourth:
        row = some.hold(plait, one, lambda _: False, "j", 9)

    assert [first, second, third, fourth] == [True, True, True, False]
    assert row == 1
    assert wakes.waits == []


def test_places_are_free_again_afterwards(only_connection: Database) -> None:
    some = Waiting(2)
    plait = SimpleNamespace(database=only_connection, wakes=Turns())

    for _ in range(3):
        some.hold(plait, one, bool, "j", 9)
        with some.place() as is_free:
            assert is_free


def test_a_process_that_stops_keeps_nobody_waiting(only_connection: Database) -> None:
    some = Waiting(4)
    wakes = Turns(some.end)
    plait = SimpleNamespace(database=only_connection, wakes=wakes)

    thread = threading.Thread(target=some.hold, args=(plait, one, lambda _: False, "j", 60))
    thread.start()
    thread.join(20)

    assert not thread.is_alive()
    assert len(wakes.waits) == 1


@pytest.mark.parametrize(
    ("query", "prefer", "seconds"),
    [
        ("", None, 30),
        ("", "wait=5", 5),
        ("", "respond-async, WAIT = 7", 7),
        ("", 'wait="8"; foo=bar', 8),
        ("", "wait=99999", 60),
        ("", "wait=-1", 30),
        ("", "wait=soon", 30),
        ("wait=0", "wait=5", 0),
        ("wait=86400", None, 60),
    ],
)
def test_how_long_is_read_from_the_query_or_from_prefer(query: str, prefer: str | None, seconds: int) -> None:
    headers = {"Prefer": prefer} if prefer else {}

    with Flask("api").test_request_context("/", query_string=query, headers=headers):
        assert waiting.asked(30) == seconds


@pytest.mark.parametrize("query", ["wait=", "wait=-1", "wait=1.5", "wait=٣", "wait=soon", "wait=9999999999"])
def test_a_wait_of_the_query_that_is_none_is_a_400(query: str) -> None:
    with Flask("api").test_request_context("/", query_string=query):
        with pytest.raises(BadRequest, match="whole seconds"):
            waiting.asked()


def test_a_preference_that_was_heard_is_told() -> None:
    with Flask("api").test_request_context("/", headers={"Prefer": "wait=90"}):
        assert waiting.applied(Response()).headers["Preference-Applied"] == "wait=60"
    with Flask("api").test_request_context("/", headers={"Prefer": "handling=lenient"}):
        assert "Preference-Applied" not in waiting.applied(Response()).headers
