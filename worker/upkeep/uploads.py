"""Takes away uploads that nobody completed in time, the bytes of all that are over, and files that expired."""

import logging
import time

from db import files, upload_ends
from db.blobs import Blobs
from db.session import Database
from domain.errors import Conflict, NotFound

log = logging.getLogger(__name__)

#: The rows of uploads that are over answer those who ask again; later nobody does.
_REMEMBERED_S = 7 * 86_400.0
#: What has no row may belong to a database that is just being restored.
_ROWLESS_S = 86_400.0
_AT_ONCE = 500


def sweep(database: Database, blobs: Blobs) -> int:
    """Of how many uploads bytes were deleted."""
    with database.transaction() as session:
        late = upload_ends.expire(session)
    if late:
        log.info("%d uploads were not completed in time", len(late))
    gone = _drop_parts(blobs, database)
    _drop_begun_files(database, blobs)
    _drop_expired_files(database, blobs)
    with database.transaction() as session:
        upload_ends.forget(session, _REMEMBERED_S)
    return gone


def _drop_parts(blobs: Blobs, database: Database) -> int:
    """Whatever belongs to no pending upload: also what a request left that died between the bytes and the row."""
    owners, gone = blobs.owners("upload_"), 0
    for first in range(0, len(owners), _AT_ONCE):
        ids = sorted(owners)[first : first + _AT_ONCE]
        with database.reading() as session:
            there = upload_ends.pending(session, ids)
        for id_ in ids:
            is_rowless = id_ not in there and owners[id_] < time.time() - _ROWLESS_S
            if is_rowless or not there.get(id_, True):
                blobs.delete_of(id_)
                gone += 1
    return gone


def _drop_begun_files(database: Database, blobs: Blobs) -> None:
    with database.reading() as session:
        left = upload_ends.left_behind(session)
    for file_id in left.values():
        blobs.delete(file_id)
    if left:
        with database.transaction() as session:
            upload_ends.forget_left_behind(session, left)


def _drop_expired_files(database: Database, blobs: Blobs) -> None:
    with database.reading() as session:
        due = upload_ends.files_to_delete(session)
    for tenant, file_id in due:
        try:
            with database.transaction() as session:
                blob = files.delete(session, tenant, file_id)
        except (Conflict, NotFound):
            # A job still reads it: next time. Or its owner was faster.
            continue
        if blob is not None:
            blobs.delete(blob)
