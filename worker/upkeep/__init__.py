"""Upkeep: reaps silent workers' jobs and rings for work that no bell announced; sweeps away what nobody needs.

Any number may run: of each duty one of them is the leader, and another follows when it falls silent. What a leader
does is guarded by itself, so that two that both believe they lead do no harm.
"""

import logging
import os
import random
import secrets
import socket
import threading
from collections.abc import Callable, Iterator

from sqlalchemy.exc import DBAPIError

import settings as configuration
from bus.bells import Bells
from db import claims, leaders, loads, queues
from db.artifacts import Artifacts
from db.blobs import open_blobs
from db.logs import Logs
from db.session import Database
from domain.errors import Unavailable
from worker.upkeep import audits, caches, media, models, orphans, retention, uploads, webhooks
from worker.upkeep import blobs as unnamed_blobs

log = logging.getLogger(__name__)

#: Seconds between two rounds; a lost bell costs at most this much when workers do not poll.
ROUND_S = 2.0
#: Seconds between two looks for what nobody needs any more.
SWEEP_S = 300.0
#: Rounds that a leader may miss before another leads.
MISSED = 3
#: Seconds that the end of the process waits for a sweep in hand.
_LEFTOVERS_S = 10.0


def run(settings: configuration.Settings, over: threading.Event) -> None:
    """Both duties until `over`. A sweep may take long, and no lost job waits for it: it has a thread of its own."""
    upkeep = Upkeep(settings)
    sweeping = threading.Thread(target=upkeep.sweep, args=(over,), name="sweeps", daemon=True)
    sweeping.start()
    upkeep.rounds(over)
    sweeping.join(_LEFTOVERS_S)
    upkeep.close()


class Upkeep:
    """One process's part. Who leads, the database says."""

    def __init__(self, settings: configuration.Settings) -> None:
        self.settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.database = Database(settings.database, timeout_s=settings.database_timeout_s, pool=2)
        self.bells = Bells(settings.redis_url)
        self.blobs = open_blobs(settings)
        self.artifacts = Artifacts(settings.data.absolute() / "artifacts")
        self.logs = Logs(settings.data.absolute())

    def rounds(self, over: threading.Event) -> None:
        """Reaps and rings. After a database outage one whole lease passes before anything is reaped: its
        holders could not renew either."""
        round_s, wait = min(ROUND_S, self.settings.lease_s / 2), 0.0
        while not over.wait(wait):
            wait = round_s * random.uniform(0.8, 1.2)
            try:
                if self._leads("rounds", MISSED * round_s):
                    self.tend()
            except DBAPIError as error:
                log.warning("the database does not answer (%s); no reaping for a lease", type(error).__name__)
                wait = self.settings.lease_s

    def tend(self) -> None:
        """One round: T10 and T11."""
        lost = claims.reap(self.database, grace=self.settings.grace_s, last_words=self.logs.last_words)
        for lane in lost:
            log.info("a job of lane %s lost its worker and waits again", lane)
        with self.database.reading() as session:
            lanes = queues.lanes_with_work(session)
        for lane in lanes:
            self.bells.ring(lane)

    def sweep(self, over: threading.Event) -> None:
        """Now and then takes away all that can be; what one sweep cannot take, another still may."""
        wait = 0.0
        while not over.wait(wait):
            wait = SWEEP_S * random.uniform(0.8, 1.2)
            for one in self._sweeps():
                try:
                    # Asked before each of them: the duty is this process's for one more sweep.
                    if over.is_set() or not self._leads("sweeps", SWEEP_S):
                        break
                    one()
                except OSError as error:
                    log.warning("not all that nobody needs could be deleted (%s)", error.strerror)
                except Unavailable as error:
                    log.warning("a sweep ended early: %s", error.message)
                except DBAPIError as error:
                    log.warning("a sweep ended early (%s)", type(error).__name__)
                except Exception:
                    # Nobody would miss this thread for weeks: the others go on, and this one is tried again.
                    log.exception("a sweep failed")

    def _sweeps(self) -> Iterator[Callable[[], object]]:
        database, blobs, artifacts, logs = self.database, self.blobs, self.artifacts, self.logs
        yield lambda: loads.recount(database)
        yield lambda: media.sweep(database, blobs)
        yield lambda: models.sweep(database, artifacts)
        yield lambda: uploads.sweep(database, blobs)
        yield lambda: retention.sweep(database, blobs, artifacts, logs, self.settings.retain_days)
        yield lambda: audits.sweep(database, self.settings.audit_days)
        yield lambda: webhooks.sweep(database, self.settings.retain_days)
        yield lambda: unnamed_blobs.sweep(database, blobs)
        yield lambda: orphans.sweep(database, artifacts, logs)
        yield lambda: caches.sweep(self.settings)

    def _leads(self, duty: str, ttl: float) -> bool:
        with self.database.transaction() as session:
            return leaders.lead(session, duty, self.name, ttl)

    def close(self) -> None:
        """The next may lead at once."""
        try:
            with self.database.transaction() as session:
                for duty in ("rounds", "sweeps"):
                    leaders.resign(session, duty, self.name)
        except DBAPIError as error:
            log.info("the database does not answer (%s); another leads soon", type(error).__name__)
        self.database.close()
