"""What every fault is given, and the ways in which several of them strike."""

import random
import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from chaos.fleet import LOST_AFTER_S, Fleet, Member, signal_all
from chaos.submitters import Submitters
from chaos.witness import Witness

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
