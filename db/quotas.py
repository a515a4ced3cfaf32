"""Tenants' limits: shown beside what is used, and set."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db import room, tenants
from db.tables import Job, Quota, Tenant, TenantLoad
from domain.errors import Conflict, NotFound
from domain.job import WAITING


@dataclass(frozen=True)
class Used:
    """What a tenant has of its limits now."""

    running: int
    #: Paused jobs among them.
    queued: int
    #: Those promised to uploads among them.
    bytes: int


def create(session: Session, tenant: str) -> Quota:
    """A new tenant with the usual limits; a Conflict when there is one of this name."""
    if session.get(Tenant, tenant) is not None:
        raise Conflict(f"There is a tenant {tenant} already.", code="tenant_exists")
    tenants.ensure(session, tenant)
    return get(session, tenant)


def get(session: Session, tenant: str) -> Quota:
    try:
        return session.scalars(select(Quota).where(Quota.tenant == tenant)).one()
    except NoResultFound:
        raise NotFound(
            f"No tenant {tenant}; `plait-server tenants list` shows them.", code="tenant_not_found"
        ) from None


def all_of(session: Session) -> Sequence[Quota]:
    return session.scalars(select(Quota).order_by(Quota.tenant)).all()


def set_limits(session: Session, tenant: str, limits: dict[str, int]) -> Quota:
    """Changes the limits that are given; what is queued, running or stored above a lower one stays."""
    get(session, tenant)
    if limits:
        session.execute(update(Quota).where(Quota.tenant == tenant).values(**limits))
        session.expire_all()
    return get(session, tenant)


def used(session: Session, tenant: str) -> Used:
    running = select(func.coalesce(func.sum(TenantLoad.running), 0)).where(TenantLoad.tenant == tenant)
    queued = select(func.count()).where(Job.tenant == tenant, Job.state.in_(WAITING))
    return Used(
        running=int(session.scalars(running).one()),
        queued=int(session.scalars(queued).one()),
        bytes=room.used(session, tenant),
    )
