"""Faults of those whom the workers and clients talk to, and of the clients themselves."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress

import redis
from sqlalchemy import select, text

from chaos.fleet import Fleet, signal_all
from chaos.scene import Missed, Scene, frozen, lasting
from chaos.submitters import killed_between_commit_and_answer
from db.tables import Job
from support.proxy import lossy_proxy


def kill_api(scene: Scene) -> Iterator[None]:
    signal_all(scene.fleet.api.family(), signal.SIGKILL)
    yield from lasting(0.5)


def freeze_api(scene: Scene) -> Iterator[None]:
    pids = scene.fleet.api.family()
    signal_all(pids, signal.SIGSTOP)
    yield from lasting(scene.rng.uniform(1.0, 3.0))
    signal_all(pids, signal.SIGCONT)


def kill_upkeep(scene: Scene) -> Iterator[None]:
    signal_all([scene.rng.choice(scene.fleet.upkeeps).pid], signal.SIGKILL)
    yield


def freeze_upkeep(scene: Scene) -> Iterator[None]:
    upkeep = scene.rng.choice(scene.fleet.upkeeps)
    yield from frozen(scene, upkeep, [upkeep.pid])


def kill_broker(scene: Scene) -> Iterator[None]:
    scene.fleet.broker.kill()
    scene.fleet.broker.wait()
    yield from lasting(scene.rng.uniform(0.2, 2.0))
    scene.fleet.restart_broker()
    yield from lasting(0.5)


def flush_broker(scene: Scene) -> Iterator[None]:
    with suppress(redis.RedisError):
        scene.fleet.broker_client().flushall()
    yield


def pause_broker(scene: Scene) -> Iterator[None]:
    seconds = scene.rng.uniform(0.5, 2.5)
    signal_all([scene.fleet.broker.pid], signal.SIGSTOP)
    yield from lasting(seconds)
    signal_all([scene.fleet.broker.pid], signal.SIGCONT)


def restart_database(scene: Scene) -> Iterator[None]:
    yield from _until_the_database_answers(scene)


def kill_database(scene: Scene) -> Iterator[None]:
    assert scene.fleet.server is not None
    scene.fleet.server.kill()
    yield from lasting(0.3)
    yield from _until_the_database_answers(scene)


def _until_the_database_answers(scene: Scene) -> Iterator[None]:
    """Restarts it, again if need be: what a killed one has left must have ended first."""
    assert scene.fleet.server is not None
    while True:
        restart: subprocess.Popen[bytes] = scene.fleet.server.restart()
        while restart.poll() is None:
            yield
        if scene.fleet.ask(lambda: _answers(scene.fleet), otherwise=False):
            return
        yield from lasting(0.3)


def _answers(fleet: Fleet) -> bool:
    with fleet.database.reading() as session:
        return session.scalar(text("SELECT 1")) == 1


def kill_client(scene: Scene) -> Iterator[None]:
    """Killed between COMMIT and answer; it comes back with the same keys."""
    requests = scene.clients.take(2)
    if not requests:
        raise Missed

    def is_stored(request: Mapping[str, str]) -> bool:
        def read() -> bool:
            with scene.fleet.database.reading() as session:
                key = Job.idempotency_key == request["key"]
                return session.scalar(select(Job.id).where(key)) is not None

        return scene.fleet.ask(read, otherwise=False)

    with lossy_proxy(scene.fleet.port, lose=1_000) as proxy:
        yield from killed_between_commit_and_answer(scene.clients, requests, proxy.port, is_stored)
