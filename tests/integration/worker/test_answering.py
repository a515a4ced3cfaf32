"""A child asks its keeper where uploaded files are: it hears of its tenant's uploads, some at a time, even if late."""

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from db import claims, files, jobs, tenants
from db.session import Database
from db.tables import File
from domain.job import Lane
from worker.child import Desk
from worker.hold import Hold
from worker.wire import FILES_ASKED

SPEC = {"model": "late-fusion", "multimodal": {"hyperparameters": {"save_total_limit": 1}}}


def uploaded(database: Database, id_: str, tenant: str = "a", **more: Any) -> str:
    told = {"filename": "a.png", "purpose": "user_data", "bytes": 3, "sha256": id_, "blob": id_, **more}
    with database.transaction() as session:
        tenants.ensure(session, tenant)
        files.add(session, File(id=id_, tenant=tenant, **told))
    return id_


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def hold(database: Database, told: list[dict[str, Any]]) -> Iterator[Hold]:
    with database.transaction() as session:
        tenants.ensure(session, "a")
        jobs.submit(session, jobs.Submission(tenant="a", spec=SPEC))
    job = claims.claim(database, Lane.CPU, "w", 60)
    assert job is not None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Hold(
            database=database,
            job=job,
            lease_s=60.0,
            bell=ours,
            child=SimpleNamespace(tell=lambda **words: told.append(words)),  # type: ignore[arg-type]
            taken=time.monotonic(),
            draining=threading.Event(),
            discard=lambda _: None,
        )


def ask(hold: Hold, *ids: str) -> None:
    hold._hear({"say": "files", "ask": 7, "ids": list(ids)})


def test_a_child_hears_of_uploads_of_its_jobs_tenant_and_of_nothing_else(
    hold: Hold, told: list[dict[str, Any]], database: Database
) -> None:
    mine, theirs = uploaded(database, "file-mine"), uploaded(database, "file-theirs", tenant="b")
    result = uploaded(database, "file-result", purpose=files.RESULTS)
    gone = uploaded(database, "file-gone")
    with database.transaction() as session:
        files.delete(session, "a", gone)

    ask(hold, mine, theirs, result, gone, "file-none", mine, "FILE-MINE", "file-\N{BULLET}'--")

    found = {"blob": "file-mine", "sha256": "file-mine", "bytes": 3}
    assert told == [{"ask": 7, "files": {"file-mine": found}}]


def test_a_database_that_is_away_is_asked_again_and_the_child_hears_once(
    hold: Hold, told: list[dict[str, Any]], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = uploaded(database, "file-mine")
    with monkeypatch.context() as away:
        away.setattr(
            files, "readable", lambda *_: (_ for _ in ()).throw(OperationalError("", {}, Exception()))
        )
        ask(hold, mine)
    assert told == []
    assert hold.answer_at < time.monotonic() + 10

    hold._answer()

    assert [list(words["files"]) for words in told] == [[mine]]
    assert hold.answer_at == float("inf")


class Deaf:
    """A mouth whose keeper answers what it is asked a moment later, out of order and twice."""

    def __init__(self) -> None:
        self.desk: Desk | None = None
        self.asked: list[int] = []

    def tell(self, *, ask: int, ids: list[str], say: str) -> None:
        assert self.desk is not None
        self.asked.append(len(ids))
        for number in (ask - 1, ask, ask):
            self.desk.note_answer({"ask": number, "files": {id_: {"blob": str(number)} for id_ in ids}})


def test_a_child_takes_the_answer_to_its_own_question() -> None:
    mouth = Deaf()
    given = {"files": {}, "place": {}, "storage": {}} | {"job": "j", "spec": {}, "stay": False}
    desk = mouth.desk = Desk({**given, "folder": "/x", "store": "/x"}, mouth)  # type: ignore[arg-type]

    assert desk.find_files(["a"]) == {"a": {"blob": "1"}}
    assert desk.find_files(["b", "c"]) == {"b": {"blob": "2"}, "c": {"blob": "2"}}
    with pytest.raises(AssertionError):
        desk.find_files(["x"] * (FILES_ASKED + 1))
