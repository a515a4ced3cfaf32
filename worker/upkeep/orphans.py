"""Takes away what no row names: folders of claims that were lost, and what is left of jobs that are gone."""

import logging
import time

from db import retention
from db.artifacts import Artifacts
from db.logs import Logs
from db.session import Database

log = logging.getLogger(__name__)

#: What has no row may belong to a database that is just being restored.
_ROWLESS_S = 86_400.0
_AT_ONCE = 500


def sweep(database: Database, artifacts: Artifacts, logs: Logs) -> int:
    """How many folders of claims went. Those of the claim that holds a job, and of later ones, stay."""
    owners, gone = artifacts.owners(), 0
    stale = {job for job, touched in logs.owners().items() if touched < time.time() - _ROWLESS_S}
    jobs = sorted(owners.keys() | stale)
    for first in range(0, len(jobs), _AT_ONCE):
        some = jobs[first : first + _AT_ONCE]
        with database.reading() as session:
            standings = retention.standings(session, some)
        for job in some:
            standing = standings.get(job)
            if standing is not None:
                since = None if standing.is_final else standing.fence
                gone += artifacts.prune(job, keep=standing.refs, since=since)
                continue
            if owners.get(job, 0.0) < time.time() - _ROWLESS_S:
                gone += artifacts.prune(job, keep=[])
            if job in stale:
                logs.delete(job)
    if gone:
        log.info("%d folders that no job names went", gone)
    return gone
