"""Takes away the bytes of deleted models, once nobody can be reading them any more."""

import logging

from db import registry
from db.artifacts import Artifacts
from db.session import Database

log = logging.getLogger(__name__)

#: A prediction that was begun before the deletion reads the model for minutes at most; a download may be slow.
_STAYS_S = 3600.0


def sweep(database: Database, artifacts: Artifacts) -> int:
    """Of how many models bytes were deleted."""
    with database.reading() as session:
        refs = registry.deleted(session, before_s=_STAYS_S)
    gone = sum(artifacts.remove(ref) for ref in refs)
    if gone:
        log.info("the bytes of %d deleted models went", gone)
    return gone
