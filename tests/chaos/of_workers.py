"""Faults of those who do the jobs: children, their keepers, and both together."""

import signal
import time
from collections.abc import Generator, Iterator
from typing import NamedTuple

from sqlalchemy import select

from chaos.fleet import LEASE_S, LOST_AFTER_S, Fleet, signal_all, state_of
from chaos.keeper import ANY
from chaos.scene import LOOKS_S, Missed, Scene, busy_worker, frozen
from chaos.witness import said_in
from db.tables import Job
from domain.job import FINAL


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
