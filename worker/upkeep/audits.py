"""Forgets what the audit has kept long enough."""

import logging

from db import audit
from db.session import Database

log = logging.getLogger(__name__)


def sweep(database: Database, days: float) -> int:
    """How many rows older than `days` went; with 0 all stay."""
    if days <= 0:
        return 0
    with database.transaction() as session:
        gone = audit.delete_older(session, days)
    if gone:
        log.info("%d rows of the audit that were older than %g days went", gone, days)
    return gone
