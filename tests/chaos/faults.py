"""What is done to the fleet. Each fault is a generator: it strikes, yields while it lasts, and heals what it has done."""

import random
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import redis
from sqlalchemy import select, text

from chaos.fleet import LEASE_S, LOST_AFTER_S, Fleet, Member, signal_all, state_of
from chaos.keeper import ANY
from chaos.submitters import Submitters, killed_between_commit_and_answer
from chaos.witness import Witness, said_in
from db.tables import Job
from domain.job import FINAL
from support.proxy import lossy_proxy

#: How long a fault looks for somebody to strike.
LOOKS_S = 8.0


class Missed(Exception):
    """Nobody was there to be struck."""


@dataclass
class Scene:
    fleet: Fleet
    clients: Submitters
    witness: Witness
    rng: random.Random
    #: Jobs that somebody wanted cancelled.
    cancelled: set[str] = field(default_factory=set)


Fault = Callable[[Scene], Iterator[None]]


def lasting(seconds: float) -> Iterator[None]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield


def frozen(scene: Scene, member: Member, pids: list[int]) -> Iterator[None]:
    """Stops them until their leases are others' for certain."""
    member.taken = True
    signal_all(pids, signal.SIGSTOP)
    yield from lasting(LOST_AFTER_S + scene.rng.random())
    signal_all(pids, signal.SIGCONT)
    member.taken = False


def busy_worker(scene: Scene) -> Generator[None, None, tuple[Member, int]]:
    """Waits for a worker with a child; returns it and the child's pid."""
    until = time.monotonic() + LOOKS_S
    while time.monotonic() < until:
        by_pid = {worker.pid: worker for worker in scene.fleet.workers if not worker.taken}
        at_work = [c for c in list(scene.witness.alive.values()) if c.keeper in by_pid]
        if at_work:
            child = scene.rng.choice(at_work)
            return by_pid[child.keeper], child.pid
        yield
    raise Missed


def kill_child(scene: Scene) -> Iterator[None]:
    _, child = yield from busy_worker(scene)
    signal_all([child], signal.SIGKILL)


def freeze_child(scene: Scene) -> Iterator[None]:
    worker, child = yield from busy_worker(scene)
    yield from frozen(scene, worker, [child])


def kill_keeper(scene: Scene) -> Iterator[None]:
    worker, _ = yield from busy_worker(scene)
    signal_all([worker.pid], signal.SIGKILL)


def kill_worker(scene: Scene) -> Iterator[None]:
    worker, _ = yield from busy_worker(scene)
    signal_all(worker.family(), signal.SIGKILL)


def freeze_keeper(scene: Scene) -> Iterator[None]:
    worker, _ = yield from busy_worker(scene)
    yield from frozen(scene, worker, [worker.pid])


def freeze_worker(scene: Scene) -> Iterator[None]:
    worker, _ = yield from busy_worker(scene)
    yield from frozen(scene, worker, worker.family())


def drain_worker(scene: Scene) -> Iterator[None]:
    worker, _ = yield from busy_worker(scene)
    signal_all([worker.pid], signal.SIGTERM)


def late_outcome(scene: Scene) -> Iterator[None]:
    """A keeper stops with its outcome in hand until another has its job, and has done it, too; then it wakes first."""
    (scene.fleet.stops / ANY).touch()
    try:
        first = yield from _stopped(scene, "*")
    finally:
        (scene.fleet.stops / ANY).unlink(missing_ok=True)
    if first is None:
        raise Missed
    (scene.fleet.stops / first.job).touch()
    second = yield from _stopped(scene, f"{first.job}.*", unless_final=first.job)
    (scene.fleet.stops / first.job).unlink(missing_ok=True)
    signal_all([first.keeper], signal.SIGCONT)
    until = time.monotonic() + LEASE_S
    while time.monotonic() < until and not _has_settled(scene.fleet, first):
        yield
    if second is not None:
        signal_all([second.keeper], signal.SIGCONT)


class Stopped(NamedTuple):
    """A keeper that has stopped itself with the outcome of this claim in hand."""

    job: str
    fence: int
    keeper: int


def _has_settled(fleet: Fleet, claim: Stopped) -> bool:
    """Whether its keeper has said what came of it."""
    lives = [life for worker in fleet.workers for life in worker.lives if life.pid == claim.keeper]
    return any(
        said.what != "claimed" and (said.job, said.fence) == (claim.job, claim.fence)
        for said in said_in(lives)
    )


def _stopped(
    scene: Scene, pattern: str, unless_final: str | None = None
) -> Generator[None, None, Stopped | None]:
    """The keeper that has stopped itself; None when none does."""
    until = time.monotonic() + LOOKS_S + LOST_AFTER_S
    while time.monotonic() < until:
        for path in scene.fleet.stops.glob(f"{pattern}.stopped"):
            job, fence, pid = path.name.split(".")[:3]
            if state_of(int(pid)) == "T":
                path.unlink()
                return Stopped(job, int(fence), int(pid))
        if unless_final and is_final(scene.fleet, unless_final):
            return None
        yield
    return None


def is_final(fleet: Fleet, job: str) -> bool:
    def read() -> bool:
        with fleet.database.reading() as session:
            return session.scalar(select(Job.state).where(Job.id == job)) in FINAL

    return fleet.ask(read, otherwise=False)


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


def cancel(scene: Scene) -> Iterator[None]:
    job = scene.clients.asks(scene.rng, "cancel")
    if job is None:
        raise Missed
    scene.cancelled.add(job)
    yield


#: Kind -> what it does, and the one thing of the fleet that two faults at once must not have in hand.
FAULTS: Mapping[str, tuple[Fault, str]] = {
    "child killed": (kill_child, ""),
    "child frozen": (freeze_child, ""),
    "keeper killed": (kill_keeper, ""),
    "keeper frozen": (freeze_keeper, ""),
    "worker and child killed": (kill_worker, ""),
    "worker and child frozen": (freeze_worker, ""),
    "worker told to end": (drain_worker, ""),
    "keeper frozen at its outcome": (late_outcome, "outcome"),
    "API killed": (kill_api, "api"),
    "API frozen": (freeze_api, "api"),
    "upkeep killed": (kill_upkeep, "upkeep"),
    "upkeep frozen": (freeze_upkeep, "upkeep"),
    "broker killed": (kill_broker, "broker"),
    "broker flushed": (flush_broker, "broker"),
    "broker frozen": (pause_broker, "broker"),
    "client killed before its answer": (kill_client, "client"),
}
#: Only a server can be crashed; SQLite's crash is that of whoever has it open.
OF_A_SERVER: Mapping[str, tuple[Fault, str]] = {
    "PostgreSQL restarted at once": (restart_database, "database"),
    "PostgreSQL killed": (kill_database, "database"),
}
#: What users do, at the same time.
WISHES: Mapping[str, tuple[Fault, str]] = {"cancel": (cancel, "")}
