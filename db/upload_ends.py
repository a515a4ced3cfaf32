"""What upkeep does with uploads whose time is over, and with files that were to live for a while only."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from db import uploads
from db.session import now
from db.tables import File, Upload
from domain.uploads import UploadStatus

_AT_ONCE = 500


def expire(session: Session) -> Sequence[str]:
    """The uploads whose time ran out, marked so; one that is just being completed is let be."""
    late = (
        select(Upload.id)
        .where(
            Upload.status == UploadStatus.PENDING,
            Upload.expires_at < now(),
            or_(Upload.joining_until.is_(None), Upload.joining_until < now()),
        )
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    gone = session.scalars(late).all()
    session.execute(update(Upload).where(Upload.id.in_(gone)).values(status=UploadStatus.EXPIRED))
    uploads.drop_parts(session, gone)
    return gone


def left_behind(session: Session) -> Mapping[str, str]:
    """Upload -> the file that a request began to make of it before it died; of uploads that are over."""
    query = select(Upload.id, Upload.joining).where(
        Upload.status.in_((UploadStatus.CANCELLED, UploadStatus.EXPIRED)),
        Upload.joining.is_not(None),
        Upload.joining_until < now(),
    )
    return {id_: joining for id_, joining in session.execute(query.limit(_AT_ONCE)) if joining}


def forget_left_behind(session: Session, upload_ids: Collection[str]) -> None:
    session.execute(update(Upload).where(Upload.id.in_(upload_ids)).values(joining=None, joining_until=None))


def pending(session: Session, upload_ids: Collection[str]) -> Mapping[str, bool]:
    """Whether they are still pending; of those that have a row."""
    query = select(Upload.id, Upload.status).where(Upload.id.in_(upload_ids))
    return {id_: status == UploadStatus.PENDING for id_, status in session.execute(query)}


def forget(session: Session, after_s: float) -> None:
    """Deletes the rows of uploads that were over so many seconds ago: nobody asks for them again."""
    over = Upload.status != UploadStatus.PENDING
    session.execute(delete(Upload).where(over, Upload.expires_at < now() - after_s, Upload.joining.is_(None)))


def files_to_delete(session: Session) -> Sequence[tuple[str, str]]:
    """Tenant and id of the files that were to be gone by now."""
    query = select(File.tenant, File.id).where(File.expires_at < now(), File.deleted_at.is_(None))
    return [(tenant, id_) for tenant, id_ in session.execute(query.limit(_AT_ONCE))]
