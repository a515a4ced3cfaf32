"""Upkeep: reaps silent workers' jobs and rings again for work that no bell announced. Any number may run."""

import logging
import random
import threading
import time

from sqlalchemy.exc import DBAPIError

import settings as configuration
from bus.bells import Bells
from db import claims, queues
from db.artifacts import Artifacts
from db.blobs import Blobs
from db.logs import Logs
from db.session import Database
from worker.upkeep import media, models

log = logging.getLogger(__name__)

#: Seconds between two rounds; a lost bell costs at most this much when workers do not poll.
ROUND_S = 2.0
#: Seconds between two looks for media and models that nobody needs any more.
SWEEP_S = 300.0


def run(settings: configuration.Settings, over: threading.Event) -> None:
    """Rounds until `over`. After a database outage one whole lease passes before anything is reaped:
    its holders could not renew either."""
    database = Database(settings.database, timeout_s=settings.database_timeout_s, pool=2)
    bells = Bells(settings.redis_url)
    round_s = min(ROUND_S, settings.lease_s / 2)
    blobs = Blobs(settings.data / "blobs")
    artifacts = Artifacts(settings.data.absolute() / "artifacts")
    logs = Logs(settings.data.absolute())
    wait = sweep_at = 0.0
    while not over.wait(wait):
        wait = round_s * random.uniform(0.8, 1.2)
        try:
            tend(database, bells, logs, grace=settings.grace_s)
            if time.monotonic() >= sweep_at:
                sweep_at = time.monotonic() + SWEEP_S
                media.sweep(database, blobs)
                models.sweep(database, artifacts)
        except OSError as error:
            log.warning("not all that nobody needs could be deleted (%s)", error.strerror)
        except DBAPIError as error:
            log.warning("the database does not answer (%s); no reaping for a lease", type(error).__name__)
            wait = settings.lease_s
    database.close()


def tend(database: Database, bells: Bells, logs: Logs, *, grace: float) -> None:
    """One round: T10 and T11."""
    for lane in claims.reap(database, grace=grace, last_words=logs.last_words):
        log.info("a job of lane %s lost its worker and waits again", lane)
    with database.reading() as session:
        lanes = queues.lanes_with_work(session)
    for lane in lanes:
        bells.ring(lane)
