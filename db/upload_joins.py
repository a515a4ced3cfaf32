"""Completes uploads: whose turn it is to join the parts, and the one transaction that makes a file of them.

Joining takes minutes for a large file, and whoever does it may die. So it is claimed with a lease, under the id
of the file to be; the parts stay as they are until the file is there. A request that lost its claim publishes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import files, uploads
from db.session import now
from db.tables import File, Upload, UploadPart
from domain.errors import BadRequest, Conflict, NotFound, Unprocessable
from domain.uploads import Completion, UploadStatus

#: Renewed while bytes flow; the end of a large join, when all is flushed to the disk, takes part of it.
LEASE_S = 60.0


@dataclass(frozen=True)
class Turn:
    upload: Upload
    #: The parts to join, in order; None if that is done, or another request is at it.
    parts: Sequence[UploadPart] | None
    #: What an earlier request that died may have left behind.
    leftover: str | None = None

    @property
    def is_over(self) -> bool:
        return self.upload.status == UploadStatus.COMPLETED


def claim(session: Session, tenant: str, upload_id: str, asked: Completion, file_id: str) -> Turn:
    """The turn of a request that would name the file `file_id`; refuses what cannot become one."""
    upload, instant = uploads.locked(session, tenant, upload_id)
    if upload.status == UploadStatus.COMPLETED:
        _refuse_another(upload, asked)
        return Turn(upload, None)
    uploads.refuse_unless_pending(upload, instant)
    parts = _named(session, upload, asked.part_ids)
    if uploads.is_joined(upload, instant):
        return Turn(upload, None)
    leftover, upload.joining = upload.joining, file_id
    upload.joining_until = instant + LEASE_S
    return Turn(upload, parts, leftover)


def _refuse_another(upload: Upload, asked: Completion) -> None:
    if upload.completed_as == asked.body_hash:
        return
    if asked.key is not None and asked.key == upload.completion_key:
        raise Unprocessable(
            "This Idempotency-Key was used with other parts; send a new key.", code="idempotency_key_reused"
        )
    message = f"Upload {upload.id} was completed with other parts; GET it for its file."
    raise Conflict(message, code="upload_not_pending")


def _named(session: Session, upload: Upload, part_ids: Sequence[str]) -> list[UploadPart]:
    there = {p.id: p for p in session.scalars(select(UploadPart).where(UploadPart.upload == upload.id))}
    for id_ in part_ids:
        if id_ not in there:
            raise NotFound(f"Upload {upload.id} has no part {id_}.", code="part_not_found", param="part_ids")
    commonest, times = Counter(part_ids).most_common(1)[0]
    if times > 1:
        message = f"{commonest} is named {times} times; name each part once."
        raise BadRequest(message, code="duplicate_part", param="part_ids")
    found = sum(there[id_].bytes for id_ in part_ids)
    if found != upload.bytes:
        raise BadRequest(
            f"These parts hold {found} bytes and the upload was to hold {upload.bytes}; "
            "send what is missing, or leave out what is too much.",
            code="size_mismatch",
            param="part_ids",
        )
    return [there[id_] for id_ in part_ids]


def is_joined(session: Session, upload_id: str) -> bool:
    """Whether some request joins the parts just now."""
    query = select(Upload.id).where(
        Upload.id == upload_id, Upload.status == UploadStatus.PENDING, Upload.joining_until > now()
    )
    return session.scalar(query) is not None


def renew(session: Session, upload_id: str, file_id: str) -> bool:
    """Whether it is still worth while: not cancelled, and no other request has taken over."""
    held = update(Upload).where(
        Upload.id == upload_id, Upload.status == UploadStatus.PENDING, Upload.joining == file_id
    )
    return session.scalar(held.values(joining_until=now() + LEASE_S).returning(Upload.id)) is not None


def release(session: Session, upload_id: str, file_id: str) -> None:
    """Another request may have the turn at once."""
    held = update(Upload).where(Upload.id == upload_id, Upload.joining == file_id)
    session.execute(held.values(joining=None, joining_until=None))


def publish(session: Session, claimed: Upload, asked: Completion, file: File) -> File | None:
    """The file that comes of the upload; None if the claim was lost. The bytes that were promised are now its."""
    upload, instant = uploads.locked(session, claimed.tenant, claimed.id)
    if upload.status != UploadStatus.PENDING or upload.joining != file.id:
        return None
    upload.status, upload.completed_as = UploadStatus.COMPLETED, asked.body_hash
    upload.completion_key = asked.key
    upload.joining = upload.joining_until = None
    uploads.drop_parts(session, [upload.id])
    if upload.file_life_s is not None:
        file.expires_at = instant + upload.file_life_s
    session.flush()
    made = files.add(session, file)
    upload.file = made.id
    return made
