"""A worker compiles its kernels before its first claim. The GPU is a made-up name here: none is at hand."""

import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from db import jobs, tenants
from db.session import Database
from db.tables import Job
from domain.job import Kind, Lane, Stage, State
from settings import Settings
from worker import gpus, keeper, warming
from worker.keeper import Keeper

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

#: Says that it has begun, and ends when it is told to.
WAITS = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.recv(1)"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


@pytest.fixture
def train(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> Iterator[Keeper]:
    """A keeper of the train lane on a machine with one GPU, whose warming waits for a word."""
    command = [sys.executable, "-c", WAITS, str(listening.getsockname()[1])]
    monkeypatch.setattr(gpus, "installed", lambda: ["GPU-1"])
    monkeypatch.setattr(keeper, "warm_up", lambda draining: warming.warm_up(draining, command))
    url = database.engine.url.render_as_string(hide_password=False)
    made = Keeper(Settings(data=tmp_path / "data", database_url=url), Lane.TRAIN)
    made.settings.data.mkdir()
    yield made
    made.close()
    made.database.close()
    for end in (made._bell, made._rope):
        end.close()


def submitted(database: Database) -> str:
    with database.transaction() as session:
        tenants.ensure(session, "a")
        new = jobs.Submission(tenant="a", spec={}, kind=Kind.CHECK, stage=Stage.RUN, lane=Lane.TRAIN)
        return jobs.submit(session, new).id


def row(database: Database, job_id: str) -> Job:
    with database.reading() as session:
        return jobs.get(session, "a", job_id)


def accepted(listening: socket.socket) -> socket.socket:
    """The warming process's end of the line: it has begun."""
    return listening.accept()[0]


def test_nothing_is_claimed_before_the_kernels_are_ready(
    train: Keeper, database: Database, listening: socket.socket
) -> None:
    job_id = submitted(database)
    warming_up = threading.Thread(target=train.warm_up)
    warming_up.start()
    process = accepted(listening)

    assert train.work() == 0
    assert row(database, job_id).state == State.QUEUED

    process.close()
    warming_up.join(60)
    assert train.work() > 0
    assert row(database, job_id).fence > 0


def test_a_bell_that_rings_first_waits_for_the_kernels_too(
    train: Keeper, database: Database, listening: socket.socket
) -> None:
    job_id = submitted(database)
    ran: list[int] = []
    working = threading.Thread(target=lambda: ran.append(train.work()))
    working.start()
    process = accepted(listening)
    assert row(database, job_id).state == State.QUEUED

    process.close()
    working.join(60)

    assert row(database, job_id).fence > 0
    assert ran != [0]
    train.warm_up()  # a second time there is nothing to wait for


def test_a_worker_told_to_end_does_not_wait_for_its_kernels(train: Keeper, listening: socket.socket) -> None:
    warming_up = threading.Thread(target=train.warm_up)
    warming_up.start()
    process = accepted(listening)

    train.drain()
    warming_up.join(60)

    assert not warming_up.is_alive()
    assert process.recv(1) == b""  # it was killed: nobody is left at the other end
    process.close()


def test_a_warming_that_fails_is_told_and_the_worker_goes_on(
    train: Keeper, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    submitted(database)
    fails = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(keeper, "warm_up", lambda draining: warming.warm_up(draining, fails))

    with caplog.at_level(logging.WARNING, logger="worker.warming"):
        assert train.work() > 0

    assert "exit code 3" in caplog.text
    assert "PLAIT_KERNELS=torch" in caplog.text


@pytest.mark.parametrize("why", ["no gpu", "hidden", "switched off"])
def test_without_a_gpu_or_kernels_nothing_is_warmed(
    train: Keeper, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(keeper, "warm_up", lambda _: pytest.fail("it began"))
    if why == "no gpu":
        monkeypatch.setattr(gpus, "installed", list)
    elif why == "hidden":
        monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")
    else:
        train.settings = replace(train.settings, kernels="torch")

    train.warm_up()
