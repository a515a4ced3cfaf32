"""Uploads in parts: their rows, and those of the parts that arrived. The bytes are in `db.blobs`.

Whoever changes an upload locks its row first, so that a part, a completion and a cancel cannot cross.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db import audit, room
from db.session import now
from db.tables import File, Upload, UploadPart
from domain.errors import BadRequest, Conflict, NotFound, TooLarge, Unprocessable
from domain.uploads import LIFE_S, MOST_PARTS, MOST_TIMES, UploadStatus


@dataclass(frozen=True)
class Standing:
    """An upload as its sender sees it: past its time it is expired, whether upkeep has been there or not."""

    upload: Upload
    status: UploadStatus
    file: File | None


def create(session: Session, new: Upload) -> Upload:
    """The stored row: `new`, or the one that the same Idempotency-Key made before."""
    quota = room.locked(session, new.tenant)
    earlier = _same_key(session, new)
    if earlier is not None:
        return earlier
    room.refuse_over(session, quota, new.bytes)
    new.created_at = session.scalars(select(now())).one()
    new.expires_at = new.created_at + LIFE_S
    session.add(new)
    session.flush()
    audit.made(session, new.id)
    return new


def _same_key(session: Session, new: Upload) -> Upload | None:
    if new.idempotency_key is None:
        return None
    earlier = session.scalars(
        select(Upload).where(Upload.tenant == new.tenant, Upload.idempotency_key == new.idempotency_key)
    ).one_or_none()
    if earlier is not None and earlier.body_hash != new.body_hash:
        raise Unprocessable(
            "This Idempotency-Key was used with another upload; send a new key.",
            code="idempotency_key_reused",
        )
    return earlier


def get(session: Session, tenant: str, upload_id: str) -> Standing:
    upload, instant = _read(session, tenant, upload_id, lock=False)
    file = session.get(File, upload.file) if upload.file else None
    is_there = file is not None and file.deleted_at is None
    return Standing(upload, status_at(upload, instant), file if is_there else None)


def locked(session: Session, tenant: str, upload_id: str) -> tuple[Upload, float]:
    """The upload, which nobody else changes until the transaction ends, and the time by the database's clock."""
    return _read(session, tenant, upload_id, lock=True)


def _read(session: Session, tenant: str, upload_id: str, *, lock: bool) -> tuple[Upload, float]:
    query = select(Upload, now()).where(Upload.id == upload_id, Upload.tenant == tenant)
    try:
        upload, instant = session.execute(query.with_for_update(of=Upload) if lock else query).one()
    except NoResultFound:
        raise NotFound(f"No upload {upload_id}.", code="upload_not_found", param="id") from None
    return upload, float(instant)


def is_joined(upload: Upload, instant: float) -> bool:
    """Whether a request that is believed to be alive joins the parts just now."""
    return upload.joining_until is not None and upload.joining_until > instant


def status_at(upload: Upload, instant: float) -> UploadStatus:
    status = UploadStatus(upload.status)
    is_late = upload.expires_at <= instant and not is_joined(upload, instant)
    return UploadStatus.EXPIRED if status is UploadStatus.PENDING and is_late else status


def refuse_unless_pending(upload: Upload, instant: float) -> None:
    status = status_at(upload, instant)
    if status is not UploadStatus.PENDING:
        raise Conflict(f"Upload {upload.id} is {status}; begin a new one.", code="upload_not_pending")


def refuse_unless_open(session: Session, tenant: str, upload_id: str) -> None:
    """Looks before the bytes of a part are read; `add_part` has the last word."""
    refuse_unless_pending(*_read(session, tenant, upload_id, lock=False))


def add_part(session: Session, tenant: str, part: UploadPart) -> UploadPart:
    upload, instant = locked(session, tenant, part.upload)
    refuse_unless_pending(upload, instant)
    if upload.parts >= MOST_PARTS:
        raise BadRequest(f"An upload takes {MOST_PARTS} parts; send larger ones.", code="too_many_parts")
    if upload.received + part.bytes > upload.bytes * MOST_TIMES:
        raise TooLarge(
            f"Upload {upload.id} was to hold {upload.bytes} bytes, and {upload.received} have arrived; "
            "cancel it and begin a new one.",
            param="data",
        )
    upload.parts += 1
    upload.received += part.bytes
    session.add(part)
    session.flush()
    audit.made(session, part.id)
    return part


def parts_page(
    session: Session, tenant: str, upload_id: str, *, after: str | None, limit: int
) -> tuple[Sequence[UploadPart], bool]:
    """The parts behind `after` as they arrived; and whether there are more."""
    _read(session, tenant, upload_id, lock=False)
    query = select(UploadPart).where(UploadPart.upload == upload_id)
    if after is not None:
        mark = session.get(UploadPart, after)
        if mark is None or mark.upload != upload_id:
            raise NotFound(f"Upload {upload_id} has no part {after}.", code="part_not_found", param="after")
        same = UploadPart.created_at == mark.created_at
        query = query.where((UploadPart.created_at > mark.created_at) | (same & (UploadPart.id > mark.id)))
    rows = session.scalars(query.order_by(UploadPart.created_at, UploadPart.id).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def cancel(session: Session, tenant: str, upload_id: str) -> None:
    """Gives a pending upload up; one that is cancelled already stays so."""
    upload, instant = locked(session, tenant, upload_id)
    if upload.status == UploadStatus.CANCELLED:
        return
    refuse_unless_pending(upload, instant)
    upload.status = UploadStatus.CANCELLED
    drop_parts(session, [upload_id])


def drop_parts(session: Session, upload_ids: Sequence[str]) -> None:
    """Forgets the rows of parts. Their bytes go after the commit; upkeep finds those that stay behind."""
    session.execute(delete(UploadPart).where(UploadPart.upload.in_(upload_ids)))
