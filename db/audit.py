"""The audit: which key changed what, and when. One row a change, in the transaction of the change."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db import pages
from db.prepared import Prepared
from db.session import now
from db.tables import Audit, Tenant
from domain.errors import NotFound
from domain.ids import new_id

_MADE = "audit.made"
_INSERT = Prepared(
    insert(Audit.metadata.tables[Audit.__tablename__]),
    columns=("id", "tenant", "key", "action", "object_id", "request_id", "address"),
)


def made(session: Session, object_id: str) -> None:
    """What this transaction made: whoever keeps its audit cannot know the id in advance."""
    session.info[_MADE] = object_id


def made_in(session: Session) -> str | None:
    return session.info.get(_MADE)


def new_audit_id() -> str:
    return new_id("audit_")


def write(session: Session, **row: str | None) -> None:
    """The row's columns: `tenant`, `key`, `action`, `object_id`, `request_id` and `address`."""
    _INSERT.drive(session, id=new_audit_id(), **row)


def page(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[Audit], bool]:
    """The tenant's rows, newest first, from behind `after`; and whether there are more."""
    mark = _get(session, tenant, after) if after is not None else None
    return pages.newest_first(session, select(Audit).where(Audit.tenant == tenant), Audit, mark, limit)


def _get(session: Session, tenant: str, audit_id: str) -> Audit:
    try:
        return session.scalars(select(Audit).where(Audit.id == audit_id, Audit.tenant == tenant)).one()
    except NoResultFound:
        raise NotFound(f"No audit event {audit_id}.", code="audit_event_not_found", param="after") from None


def latest(
    session: Session, *, tenant: str | None = None, within_s: float | None = None, limit: int = 1_000
) -> Sequence[Audit]:
    """The newest rows of one tenant or of all, no older than `within_s`, newest first."""
    query = select(Audit).order_by(Audit.created_at.desc(), Audit.id.desc()).limit(limit)
    query = query.where(Audit.tenant == tenant) if tenant is not None else query
    return session.scalars(query.where(Audit.created_at >= now() - within_s) if within_s else query).all()


def tenants(session: Session) -> Sequence[str]:
    """Whose rows there may be."""
    return session.scalars(select(Tenant.id)).all()


def delete_older(session: Session, tenant: str, days: float, *, limit: int = 10_000) -> int:
    """Forgets rows of the tenant's that are older than `days`, at most `limit` at once; how many they were."""
    old = (
        select(Audit.id)
        .where(Audit.tenant == tenant, Audit.created_at < now() - days * 86_400)
        .order_by(Audit.created_at)
        .limit(limit)
    )
    return len(session.scalars(delete(Audit).where(Audit.id.in_(old)).returning(Audit.id)).all())
