"""Takes away jobs that were over long ago, with their events, metrics, result files, logs and folders."""

import logging

from db import retention
from db.artifacts import Artifacts
from db.blobs import Blobs
from db.logs import Logs
from db.session import Database

log = logging.getLogger(__name__)

_DAY_S = 86_400.0
#: Rounds of one sweep: what is left waits for the next, and so do the leader's other duties not for this.
_ROUNDS = 100


def sweep(database: Database, blobs: Blobs, artifacts: Artifacts, logs: Logs, days: float) -> int:
    """Of how many jobs nothing is left. Rows first: bytes that no row names are swept later, whoever dies now."""
    gone = 0
    for _ in range(_ROUNDS if days > 0 else 0):
        with database.transaction() as session:
            jobs = retention.expired(session, older_than_s=days * _DAY_S)
            unused = retention.forget(session, jobs)
        if not jobs:
            break
        for key in unused:
            blobs.delete(key)
        for job in jobs:
            artifacts.prune(job, keep=[])
            logs.delete(job)
        gone += len(jobs)
    if gone:
        log.info("%d jobs that were over for %g days went", gone, days)
    return gone
