"""Forgets what the audit has kept long enough."""

import logging

from db import audit
from db.session import Database

log = logging.getLogger(__name__)


def sweep(database: Database, days: float) -> int:
    """How many rows older than `days` went; with 0 all stay."""
    if days <= 0:
        return 0
    with database.reading() as session:
        tenants, gone = audit.tenants(session), 0
    for tenant in tenants:
        # Short transactions: on SQLite every other writer waits for the end of one.
        with database.transaction() as session:
            gone += audit.delete_older(session, tenant, days)
    if gone:
        log.info("%d rows of the audit that were older than %g days went", gone, days)
    return gone
