"""Takes away blobs that no file names: of requests and jobs that died between the bytes and the row."""

import logging
import time
from itertools import islice

from db import files
from db.blobs import Blobs
from db.session import Database

log = logging.getLogger(__name__)

#: What has no row may belong to a database that is just being restored.
_ROWLESS_S = 86_400.0
_AT_ONCE = 500


def sweep(database: Database, blobs: Blobs) -> int:
    """How many went. A key that no row names today is named by none later: rows share those of other rows only."""
    old, gone = blobs.keys(before=time.time() - _ROWLESS_S), 0
    while some := list(islice(old, _AT_ONCE)):
        with database.reading() as session:
            unnamed = files.unnamed(session, some)
        for key in unnamed:
            blobs.delete(key)
        gone += len(unnamed)
    if gone:
        log.info("%d blobs that no file names went", gone)
    return gone
