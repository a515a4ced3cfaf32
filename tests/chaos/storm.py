"""The faults of a plan, let loose some at a time, while the clients send their jobs. It knows no fault and no job by name."""

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from chaos.faults import FAULTS, OF_A_SERVER, WISHES, Fault
from chaos.scene import Missed, Scene
from db.tables import Job
from domain.job import State

#: Faults that last go on side by side; more would leave nobody at work.
MOST_AT_ONCE = 4
#: Seconds from one fault to the next.
GAP_S = (0.1, 0.6)
#: One client process sends so many, one after the other.
MOST_IN_A_BATCH = 4
#: With so many jobs undone the next fault and the next jobs wait: a slow machine has as many faults a job as a quick one.
MOST_UNDONE = 48
#: When so much time has passed, no fault comes any more.
STORM_S = 360.0


@dataclass(frozen=True)
class Plan:
    """What is to happen, all of it from one seed."""

    kind: str
    seed: int
    jobs: int
    faults: int
    trainings: int = 0
    workers: int = 4
    fence: str = "fenced"
    #: The faults to choose from; None means all that this database can suffer.
    kinds: tuple[str, ...] | None = None

    @property
    def known(self) -> Mapping[str, tuple[Fault, str]]:
        return {**FAULTS, **(OF_A_SERVER if self.kind == "postgresql" else {})}

    def schedule(self, rng: random.Random) -> list[str]:
        """Every kind once before one comes again, in any order; a wish with every fourth."""
        kinds = sorted(self.kinds or self.known)
        drawn: list[str] = []
        while len(drawn) < self.faults:
            drawn += rng.sample(kinds, min(len(kinds), self.faults - len(drawn)))
        if self.kinds is None:
            for place in range(len(drawn), 0, -4):
                drawn.insert(place, rng.choice(sorted(WISHES)))
        return drawn


class Storm:
    """Lets the faults of a schedule loose, some at once, and has the clients send jobs meanwhile."""

    def __init__(self, scene: Scene, plan: Plan) -> None:
        self.scene, self.plan = scene, plan
        self.waiting = plan.schedule(scene.rng)
        self.total, self.begun = len(self.waiting), 0
        self.active: list[tuple[str, str, Iterator[None]]] = []
        self.struck: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.undone = 0
        self.next_at = time.monotonic() + 1.0
        self.limit = time.monotonic() + STORM_S

    def turn(self) -> bool:
        """One tick; False once all is over and answered."""
        self.scene.fleet.revive()
        self.scene.clients.tend()
        for entry in list(self.active):
            self._step(entry)
        if time.monotonic() >= self.limit:
            self.waiting.clear()
        self.undone = self.scene.fleet.ask(self._count_undone, otherwise=self.undone)
        if self.undone <= MOST_UNDONE:
            self._send()
            if self.waiting and time.monotonic() >= self.next_at and len(self.active) < MOST_AT_ONCE:
                self._begin()
        return bool(self.waiting or self.active or self.scene.clients.running or self._unsent)

    def _count_undone(self) -> int:
        with self.scene.fleet.database.reading() as session:
            undone = Job.state.in_((State.QUEUED, State.RUNNING))
            return session.scalar(select(func.count()).select_from(Job).where(undone)) or 0

    @property
    def _unsent(self) -> int:
        return len(self.scene.clients.tasks) - self.scene.clients.sent

    def _send(self) -> None:
        """Jobs come as faults do: the last are sent with the last fault, so that each fault finds some at work."""
        done = (self.begun + 1) / (self.total + 1) if self.waiting else 1.0
        wanted = math.ceil(len(self.scene.clients.tasks) * min(1.0, done))
        due = wanted - self.scene.clients.sent
        if due >= min(MOST_IN_A_BATCH, self._unsent) > 0:
            self.scene.clients.send(self.scene.clients.take(min(due, MOST_IN_A_BATCH)))

    def _begin(self) -> None:
        in_hand = {thing for _, thing, _ in self.active if thing}
        known = {**self.plan.known, **WISHES}
        kind = next((k for k in self.waiting if known[k][1] not in in_hand), None)
        if kind is not None:
            self.waiting.remove(kind)
            strike, thing = known[kind]
            self.active.append((kind, thing, strike(self.scene)))
            self.begun += 1
            self.next_at = time.monotonic() + self.scene.rng.uniform(*GAP_S)

    def _step(self, entry: tuple[str, str, Iterator[None]]) -> None:
        kind, _, acting = entry
        try:
            next(acting)
        except StopIteration:
            self.active.remove(entry)
            self.struck[kind] += 1
        except Missed:
            self.active.remove(entry)
            self.missed[kind] += 1
            # It comes again, unless there is nobody left for it.
            if self.missed[kind] < 10 and (self._unsent or self.undone):
                self.waiting.append(kind)
