"""What a worker's processes do with a job's row: claim, renew, and what becomes of it when a worker dies."""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from db import loads
from db.jobs import move
from db.prepared import literal
from db.session import Database, now
from db.tables import Job, Quota, TenantLoad
from domain.errors import Conflict
from domain.job import Lane, State, Want
from domain.retry import is_poison

log = logging.getLogger(__name__)

#: A job's id and a claim's fence -> the end of what that claim's process printed; empty where there is none.
LastWords = Callable[[str, int], str]

#: What PostgreSQL says of a row that another has had for too long: a lock, a statement that took too long, a deadlock.
_LOCKED = {"55P03", "57014", "40P01"}
_MOST_LOCKED = 3

_QUEUED, _RUNNING = literal(State.QUEUED), literal(State.RUNNING)


def claim(database: Database, lane: Lane, owner: str, ttl: float) -> Job | None:
    """T2. The best ready job of the least loaded tenant, leased to `owner` for `ttl` seconds.

    The tenants are read without any lock, so that an open submit never makes a busy tenant look idle.
    """
    with database.reading() as session:
        tenants = session.scalars(_tenants_with_work(lane)).all()
    for tenant in tenants:
        with database.transaction() as session:
            job = _claim_of(session, tenant, lane, owner, ttl)
            if job is not None:
                return job
            session.rollback()
    return None


def _tenants_with_work(lane: Lane) -> Any:
    running = func.coalesce(TenantLoad.running, 0)
    # Its order makes PostgreSQL look into the index: of a mere EXISTS it expects the first rows of the table to do,
    # and reads all of it for a tenant that has none.
    ready = (
        select(Job.id)
        .where(Job.state == _QUEUED, Job.lane == lane, Job.tenant == Quota.tenant, Job.available_at <= now())
        .order_by(Job.priority.desc(), Job.available_at)
        .limit(1)
        .scalar_subquery()
        .is_not(None)
    )
    return (
        select(Quota.tenant)
        .outerjoin(TenantLoad, (TenantLoad.tenant == Quota.tenant) & (TenantLoad.lane == lane))
        .where(ready, running < Quota.max_running)
        .order_by(running * 1.0 / Quota.weight, Quota.tenant)
        .limit(16)
    )


def _claim_of(session: Session, tenant: str, lane: Lane, owner: str, ttl: float) -> Job | None:
    job_id = session.scalar(
        select(Job.id)
        .where(Job.state == _QUEUED, Job.lane == lane, Job.tenant == tenant, Job.available_at <= now())
        .order_by(Job.priority.desc(), Job.available_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if job_id is None or not loads.raise_(session, tenant, lane):
        return None
    return move(
        session,
        job_id,
        "job.claimed",
        message=f"A worker of the {lane} lane took the job.",
        data={"worker": owner},
        new_fence=True,
        lease_owner=owner,
        lease_until=now() + ttl,
        attempt=Job.attempt + 1,
        started_at=func.coalesce(Job.started_at, now()),
    )


def renew(session: Session, job_id: str, fence: int, ttl: float) -> Want | None:
    """T3. What the user wants of the job; None means fenced off: kill the child, write nothing."""
    want = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.state == State.RUNNING, Job.fence == fence)
        .values(lease_until=now() + ttl)
        .returning(Job.want)
        .execution_options(synchronize_session=False)
    )
    return Want(want) if want is not None else None


def held(session: Session, job_id: str, fence: int) -> Job:
    """The running job as it is now, locked; a Conflict when `fence` no longer holds it."""
    job = session.scalars(
        select(Job).where(Job.id == job_id, Job.state == State.RUNNING, Job.fence == fence).with_for_update()
    ).one_or_none()
    if job is None:
        raise Conflict(f"Job {job_id} is no longer this worker's.", code="job_moved_on")
    return job


def _no_words(_job_id: str, _fence: int) -> str:
    return ""


def reap(
    database: Database, *, grace: float, last_words: LastWords = _no_words, limit: int = 100
) -> list[Lane]:
    """T10. Jobs whose lease ran out go back to their lane, or end; any number of processes may do this.

    Returns the lanes that have work again.
    """
    with database.reading() as session:
        overdue = session.scalars(
            select(Job.id).where(Job.state == _RUNNING, Job.lease_until < now() - grace).limit(limit)
        ).all()
    lanes: list[Lane | None] = []
    locked = 0
    for job_id in overdue:
        try:
            lanes.append(_reap_one(database, job_id, grace, last_words))
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCKED:
                raise
            # Its rows wait for the next round; the jobs behind it do not, unless each costs so long a wait.
            log.warning("job %s is reaped later (%s)", job_id, type(error.orig).__name__)
            locked += 1
            if locked == _MOST_LOCKED:
                break
    return [lane for lane in lanes if lane is not None]


def _reap_one(database: Database, job_id: str, grace: float, last_words: LastWords) -> Lane | None:
    with database.transaction() as session:
        late = Job.lease_until < now() - grace
        job = session.scalars(
            select(Job)
            .where(Job.id == job_id, Job.state == State.RUNNING, late)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        return lose(session, job, "its worker went silent", last_words) if job is not None else None


def lose(session: Session, job: Job, how: str, last_words: LastWords = _no_words) -> Lane | None:
    """A running job's worker died: requeued, stopped or paused if that was wanted, or given up as poison.

    A death is not an attempt: the attempt is given back. Raises Conflict when another moved it first.
    """
    deaths = job.deaths + 1
    change: dict[str, Any] = {
        "fence": job.fence,
        "deaths": deaths,
        "attempt": job.attempt - 1,
        "new_fence": True,
    }
    if job.want == Want.CANCEL:
        _lost(session, job, "job.stopped", f"The job was cancelled; {how}.", change)
        return None
    if is_poison(deaths, job.max_deaths):
        words = last_words(job.id, job.fence)
        why = f"The job's process died {deaths} times, the last time because {how}; it is not tried again."
        why += f" Its last words: {words}" if words else ""
        change["error"] = {"code": "worker_died", "message": why, "param": None}
        _lost(session, job, "job.failed", why, change, level="error")
        return None
    if job.want == Want.PAUSE:
        _lost(session, job, "job.paused", f"Paused at its last checkpoint: {how}.", change, level="warn")
        return None
    message = f"Requeued from its last checkpoint: {how}."
    _lost(session, job, "job.reaped", message, {**change, "available_at": now()}, level="warn")
    return Lane(job.lane)


def _lost(
    session: Session, job: Job, name: str, message: str, change: dict[str, Any], level: str = "info"
) -> None:
    move(session, job.id, name, message=message, level=level, data={"deaths": change["deaths"]}, **change)
