"""How many jobs of a tenant run in a lane: the counter behind fair claims."""

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from db.tables import Quota, TenantLoad
from db.upsert import insert
from domain.job import Lane


def raise_(session: Session, tenant: str, lane: Lane) -> bool:
    """One more runs; False (and nothing changed) when the tenant's limit for a lane is reached."""
    limit = select(Quota.max_running).where(Quota.tenant == tenant).scalar_subquery()
    raised = session.scalar(
        insert(session, TenantLoad)
        .values(tenant=tenant, lane=lane, running=1)
        .on_conflict_do_update(
            index_elements=["tenant", "lane"],
            set_={"running": TenantLoad.running + 1},
            where=TenantLoad.running < limit,
        )
        .returning(TenantLoad.running)
    )
    return raised is not None


def lower(session: Session, tenant: str, lane: Lane) -> None:
    """One less runs."""
    session.execute(
        update(TenantLoad)
        .where(TenantLoad.tenant == tenant, TenantLoad.lane == lane)
        .values(running=case((TenantLoad.running > 0, TenantLoad.running - 1), else_=0))
        .execution_options(synchronize_session=False)
    )
