"""How many jobs of a tenant run in a lane: the counter behind fair claims."""

from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from db.session import Database
from db.tables import Job, Quota, TenantLoad
from db.upsert import insert
from domain.job import Lane, State


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


def recount(database: Database) -> int:
    """Corrects the counters that are wrong, as after a repair by hand; how many those were."""
    with database.reading() as session:
        counted = {(row.tenant, row.lane): row.running for row in session.execute(_counts())}
        told = {(load.tenant, load.lane): load.running for load in session.scalars(select(TenantLoad))}
    doubtful = [key for key in counted.keys() | told.keys() if counted.get(key, 0) != told.get(key, 0)]
    return sum(_recount_one(database, *key) for key in doubtful)


def _recount_one(database: Database, tenant: str, lane: str) -> bool:
    with database.transaction() as session:
        values = {"tenant": tenant, "lane": lane, "running": 0}
        session.execute(insert(session, TenantLoad).values(values).on_conflict_do_nothing())
        mine = (TenantLoad.tenant == tenant) & (TenantLoad.lane == lane)
        # Every move that changes the count waits for this lock: what is counted behind it holds until COMMIT.
        load = session.scalars(select(TenantLoad).where(mine).with_for_update()).one()
        running = session.scalar(
            _counts().with_only_columns(func.count()).where(Job.tenant == tenant, Job.lane == lane)
        )
        was_wrong, load.running = load.running != (running or 0), running or 0
    return was_wrong


def _counts() -> Any:
    running = select(Job.tenant, Job.lane, func.count().label("running")).where(Job.state == State.RUNNING)
    return running.group_by(Job.tenant, Job.lane)
