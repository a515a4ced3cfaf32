"""Takes away the media of predictions that are over: they were sent for one answer, and nobody reads them again."""

import logging
import time

from db import predictions
from db.blobs import Blobs
from db.session import Database
from domain.job import FINAL, ID_PREFIX, Kind

log = logging.getLogger(__name__)

#: Bytes are stored before their row: no request takes this many seconds in between.
_ROWLESS_S = 3600.0
#: Nobody is still writing what no byte was added to for this long.
_UNTOUCHED_S = 86_400.0
_AT_ONCE = 500


def sweep(database: Database, blobs: Blobs) -> int:
    """Deletes the media of final predictions, and of requests that died before their row; of how many."""
    owners = blobs.owners(ID_PREFIX[Kind.PREDICT])
    gone = 0
    for first in range(0, len(owners), _AT_ONCE):
        ids = sorted(owners)[first : first + _AT_ONCE]
        with database.reading() as session:
            states = predictions.states(session, ids)
        for id_ in ids:
            is_old = owners[id_] < time.time() - _ROWLESS_S
            if states[id_] in FINAL if id_ in states else is_old:
                blobs.delete_of(id_)
                gone += 1
    blobs.drop_leftovers(time.time() - _UNTOUCHED_S)
    if gone:
        log.info("the media of %d predictions went", gone)
    return gone
