"""How many bytes a tenant may keep: those of its files, and those that its uploads in parts are going to be."""

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from db.session import now
from db.tables import File, Quota, Upload
from domain.errors import OverQuota
from domain.uploads import UploadStatus


def locked(session: Session, tenant: str) -> Quota:
    """The tenant's limits. Whoever else wants to add to what it keeps waits for the end of this transaction."""
    return session.scalars(select(Quota).where(Quota.tenant == tenant).with_for_update(key_share=True)).one()


def refuse_over(session: Session, quota: Quota, more: int) -> None:
    """Raises OverQuota if `more` bytes have no room beside what there is and what is promised to uploads."""
    held = used(session, quota.tenant)
    if held + more > quota.max_bytes:
        raise OverQuota(
            f"This tenant's files and uploads hold {held} bytes and may hold {quota.max_bytes}; this one has {more}. "
            "Delete some first.",
            passes=False,
        )


def used(session: Session, tenant: str) -> int:
    """Bytes that are kept and that are promised."""
    return _kept(session, tenant) + _promised(session, tenant)


def _kept(session: Session, tenant: str) -> int:
    query = select(func.coalesce(func.sum(File.bytes), 0))
    return int(session.scalar(query.where(File.tenant == tenant, File.deleted_at.is_(None))) or 0)


def _promised(session: Session, tenant: str) -> int:
    # What is just being joined becomes a file, also past its time.
    is_alive = or_(Upload.expires_at > now(), Upload.joining_until > now())
    query = select(func.coalesce(func.sum(Upload.bytes), 0)).where(
        Upload.tenant == tenant, Upload.status == UploadStatus.PENDING, is_alive
    )
    return int(session.scalar(query) or 0)
