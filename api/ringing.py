"""Rings the bells behind the back of whoever submits: a bell is a hint, and no answer waits for the broker.

What was asked for while a bell was rung is rung together: as many bells as jobs, up to as many as the lane needs.
"""

import threading
import time
from collections import Counter

from bus.bells import Bells
from domain.job import Lane

#: A lane with enough unheard bells is not looked at again for so long: who rings meanwhile is rung for afterwards.
REST_S = 0.02


class Ringing:
    """Stands before `bus.bells.Bells`. Safe in any thread; its own thread starts with the first bell."""

    def __init__(self, bells: Bells) -> None:
        self._bells = bells
        self._asked = threading.Condition()
        self._lanes: Counter[Lane] = Counter()
        self._rest_until: dict[Lane, float] = {}
        self._workers: set[str] = set()
        self._jobs: set[str] = set()
        self._thread: threading.Thread | None = None

    def ring(self, lane: Lane) -> None:
        """Tells the lane's workers that one more job may be ready. Call it after COMMIT."""
        with self._asked:
            self._lanes[lane] += 1
            if self._rest_s(lane) <= 0:
                self._soon()

    def poke(self, worker: str | None) -> None:
        """Tells one worker to look at its job again: a cancel or a pause."""
        if worker:
            with self._asked:
                self._workers.add(worker)
                self._soon()

    def wake(self, job_id: str) -> None:
        """Tells whoever waits for a job that it has changed."""
        with self._asked:
            self._jobs.add(job_id)
            self._soon()

    def ready(self) -> bool:
        return self._bells.ready()

    def _rest_s(self, lane: Lane) -> float:
        return self._rest_until.get(lane, 0.0) - time.monotonic()

    def _soon(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ringing", daemon=True)
            self._thread.start()
        self._asked.notify()

    def _run(self) -> None:
        while True:
            lanes, workers, jobs = self._await()
            # A cancel first: somebody waits for it.
            for worker in workers:
                self._bells.poke(worker)
            for job_id in jobs:
                self._bells.wake(job_id)
            for lane, times in lanes.items():
                if self._bells.ring(lane, times):
                    self._rest_until[lane] = time.monotonic() + REST_S

    def _await(self) -> tuple[Counter[Lane], set[str], set[str]]:
        """What is to be rung next; lanes that have rested."""
        with self._asked:
            while True:
                # Whoever rings a lane that rests does not wake this thread. What rests no more is due by now.
                rests = [rest_s for lane in self._rest_until if (rest_s := self._rest_s(lane)) > 0]
                lanes = self._due()
                if lanes or self._workers or self._jobs:
                    break
                self._asked.wait(min(rests, default=None))
            workers, self._workers = self._workers, set()
            jobs, self._jobs = self._jobs, set()
            return lanes, workers, jobs

    def _due(self) -> Counter[Lane]:
        return Counter({lane: self._lanes.pop(lane) for lane in list(self._lanes) if self._rest_s(lane) <= 0})
