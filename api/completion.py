"""Completes an upload: joins its parts to a file, once, however many ask for it and whoever of them dies."""

import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from api.services import Services
from api.waiting import LONGEST_S
from db import tables, upload_joins
from db.blobs import Stored, part_key
from db.upload_joins import Turn
from domain.access import Principal
from domain.errors import BadRequest, Conflict, PlaitError, Unavailable
from domain.ids import new_id
from domain.uploads import Completion

log = logging.getLogger(__name__)

_RENEW_S = upload_joins.LEASE_S / 6
#: Joins at once in one process: each keeps a thread and the disk busy for as long as its bytes take.
_AT_ONCE = threading.BoundedSemaphore(4)
#: How long one more waits for a turn before it is sent away, with its parts as they are.
_PATIENCE_S = 5.0


def complete(plait: Services, who: Principal, upload_id: str, asked: Completion) -> None:
    """Returns when the file is there. Waits a while for another request that joins; then a Conflict that passes."""
    file_id, deadline = new_id("file-"), time.monotonic() + LONGEST_S
    while True:
        with plait.database.transaction() as session:
            turn = upload_joins.claim(session, who.tenant, upload_id, asked, file_id)
        if turn.is_over or (turn.parts is not None and _join(plait, who, turn, asked, file_id)):
            return
        _await_other(plait, upload_id, deadline)


@contextmanager
def _a_turn() -> Iterator[None]:
    if not _AT_ONCE.acquire(timeout=_PATIENCE_S):
        message = "This server is joining as many uploads as it can; ask again, the parts are kept."
        raise Unavailable(message, code="uploads_busy")
    try:
        yield
    finally:
        _AT_ONCE.release()


def _await_other(plait: Services, upload_id: str, deadline: float) -> None:
    is_joined = plait.waiting.hold(
        plait,
        lambda session: upload_joins.is_joined(session, upload_id),
        lambda joined: not joined,
        upload_id,
        max(0.0, deadline - time.monotonic()),
    )
    if is_joined:
        message = f"Upload {upload_id} is being completed by another request; ask again."
        raise Conflict(message, code="upload_completing")


def _join(plait: Services, who: Principal, turn: Turn, asked: Completion, file_id: str) -> bool:
    """Whether this request made the file. Until one has, the parts stay as they are."""
    upload_id = turn.upload.id
    if turn.leftover:
        plait.drop(turn.leftover)
    try:
        with _a_turn():
            made = _published(plait, who, turn, asked, file_id)
    except (PlaitError, OSError):
        _give_back(plait, upload_id, file_id)
        raise
    # After any other failure nobody knows whether the file was published: its bytes stay, and the lease ends.
    if made is not None:
        if made.blob != file_id:
            # The tenant had the same bytes already.
            plait.drop(file_id)
        plait.drop_of(upload_id)
    else:
        _give_back(plait, upload_id, file_id)
    plait.bells.wake(upload_id)
    return made is not None


def _give_back(plait: Services, upload_id: str, file_id: str) -> None:
    plait.drop(file_id)
    with plait.database.transaction() as session:
        upload_joins.release(session, upload_id, file_id)


def _published(
    plait: Services, who: Principal, turn: Turn, asked: Completion, file_id: str
) -> tables.File | None:
    stored = _joined(plait, turn, asked, file_id)
    if stored is None:
        return None
    with plait.change(who) as session:
        file = _file(turn.upload, stored, file_id)
        return upload_joins.publish(session, turn.upload, asked, file)


def _joined(plait: Services, turn: Turn, asked: Completion, file_id: str) -> Stored | None:
    """The bytes of the file, stored under its id; None if the upload is another's by now, or nobody's."""
    upload_id, parts = turn.upload.id, turn.parts or ()
    md5, hold = hashlib.md5(usedforsecurity=False), _Hold(plait, upload_id, file_id)

    def watch(chunk: bytes) -> None:
        if asked.md5:
            md5.update(chunk)
        hold.keep()

    try:
        stored = plait.blobs.join(file_id, [part_key(upload_id, p.id) for p in parts], watch=watch)
    except _Lost:
        return None
    except OSError:
        # With a cancel the parts go, from under whoever joins them.
        if hold.renew():
            raise
        return None
    if asked.md5 and md5.hexdigest() != asked.md5:
        raise BadRequest(
            f"The whole has the MD5 {md5.hexdigest()}, not {asked.md5}; the parts are kept: send those that are "
            "damaged again, or name them in another order.",
            code="checksum_mismatch",
            param="md5",
        )
    return stored


class _Lost(Exception):
    """The upload was cancelled, or another request took over."""


class _Hold:
    """The claim of this request on the upload, renewed now and then."""

    def __init__(self, plait: Services, upload_id: str, file_id: str) -> None:
        self._plait, self._ids = plait, (upload_id, file_id)
        self._due = time.monotonic() + _RENEW_S

    def keep(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _RENEW_S
        try:
            is_ours = self.renew()
        except DBAPIError as error:
            # A lease lost is time lost, nothing else; the database may be back before the last byte is.
            log.warning("the claim on an upload could not be renewed (%s)", type(error).__name__)
            return
        if not is_ours:
            raise _Lost

    def renew(self) -> bool:
        with self._plait.database.transaction() as session:
            return upload_joins.renew(session, *self._ids)


def _file(upload: tables.Upload, stored: Stored, file_id: str) -> tables.File:
    return tables.File(
        id=file_id,
        tenant=upload.tenant,
        filename=upload.filename,
        purpose=upload.purpose,
        bytes=stored.bytes,
        sha256=stored.sha256,
        blob=file_id,
        schema=upload.schema,
    )
