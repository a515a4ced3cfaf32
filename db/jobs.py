"""The job row: submitted, claimed, renewed, moved, reaped. Each transition is one guarded transaction.

A guard that matches no row means "you lost": the caller does nothing and writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, func, or_, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from db import loads, outbox
from db.session import Database, now
from db.tables import Event, Job, JobLabel, Quota, TenantLoad
from db.upsert import insert
from domain.errors import Conflict, NotFound, OverQuota, Unprocessable
from domain.ids import new_id
from domain.job import FINAL, ID_PREFIX, MOVES, Kind, Lane, Stage, State, Want
from domain.retry import MAX_ATTEMPTS, MAX_DEATHS, is_poison

#: A retry by the stock client without a key of its own folds onto the first job for this long.
FOLD_S = 60.0
#: In a lane as long as this nobody asks for the exact place, and counting it would cost more with every job.
MOST_AHEAD = 1_000


@dataclass(frozen=True)
class Submission:
    """What a new job is made of."""

    tenant: str
    spec: dict[str, Any]
    kind: Kind = Kind.FINE_TUNE
    stage: Stage = Stage.VALIDATE
    lane: Lane = Lane.CPU
    #: What the first event says.
    message: str = "The job was accepted; its files are checked first."
    #: Given where bytes were stored under the job's id before the row; else a new one is made.
    id: str | None = None
    priority: int = 0
    labels: dict[str, str] | None = None
    key: str | None = None
    body_hash: str | None = None
    #: The sender says that it tries again (`x-stainless-retry-count` > 0).
    is_retry: bool = False


def submit(session: Session, new: Submission) -> Job:
    """T1. The job of this submission: a new one, or the one that the same key made before."""
    quota = session.scalars(
        select(Quota).where(Quota.tenant == new.tenant).with_for_update(key_share=True)
    ).one()
    earlier = _earlier(session, new)
    if earlier is not None:
        return earlier
    _refuse_over_quota(session, quota)
    job = session.scalars(
        insert(session, Job)
        .values(
            id=new.id or new_id(ID_PREFIX[new.kind]),
            tenant=new.tenant,
            kind=new.kind,
            stage=new.stage,
            lane=new.lane,
            priority=new.priority,
            state=State.QUEUED,
            spec=new.spec,
            labels=new.labels,
            idempotency_key=new.key,
            body_hash=new.body_hash,
            max_attempts=MAX_ATTEMPTS,
            max_deaths=MAX_DEATHS,
            event_seq=1,
        )
        .returning(Job)
    ).one()
    for name, value in (new.labels or {}).items():
        label = JobLabel(job=job.id, name=name, value=value, tenant=job.tenant, created_at=job.created_at)
        session.add(label)
    _record(session, job, "job.created", new.message)
    return job


def _earlier(session: Session, new: Submission) -> Job | None:
    if new.key is not None:
        job = session.scalars(
            select(Job).where(Job.tenant == new.tenant, Job.idempotency_key == new.key)
        ).one_or_none()
        if job is not None and job.body_hash != new.body_hash:
            raise Unprocessable(
                "This Idempotency-Key was used with another body; send a new key for a new job.",
                code="idempotency_key_reused",
            )
        return job
    if not new.is_retry:
        return None
    return session.scalars(
        select(Job)
        .where(
            Job.tenant == new.tenant,
            Job.kind == new.kind,
            Job.body_hash == new.body_hash,
            Job.created_at > now() - FOLD_S,
        )
        .order_by(Job.created_at.desc())
        .limit(1)
    ).one_or_none()


def _refuse_over_quota(session: Session, quota: Quota) -> None:
    waiting = session.scalar(
        select(func.count()).where(Job.tenant == quota.tenant, Job.state == State.QUEUED)
    )
    if (waiting or 0) >= quota.max_queued:
        raise OverQuota(f"{waiting} jobs are queued, which is this tenant's limit; wait or cancel some.")


def get(
    session: Session,
    tenant: str,
    job_id: str,
    *,
    kind: Kind | None = None,
    param: str = "id",
    only: Sequence[InstrumentedAttribute[Any]] = (),
) -> Job:
    """The tenant's job (of `kind`, if given); another tenant's is as absent as one that never was.

    With `only`, of all its columns those alone are read: who looks every second needs no megabytes.
    """
    query = select(Job).where(Job.id == job_id, Job.tenant == tenant)
    query = query.where(Job.kind == kind) if kind else query
    query = query.options(load_only(*only, raiseload=True)) if only else query
    try:
        return session.scalars(query).one()
    except NoResultFound:
        raise NotFound(f"No job {job_id}.", code="job_not_found", param=param) from None


def move(
    session: Session,
    job_id: str,
    name: str,
    *,
    fence: int | None = None,
    message: str,
    level: str = "info",
    data: dict[str, Any] | None = None,
    left_lane: Lane | None = None,
    new_fence: bool = False,
    **values: Any,
) -> Job:
    """The only code that writes `jobs.state`. Raises Conflict where MOVES or the fence forbid it.

    State, event and the tenant's load change together or not at all. `left_lane` names the lane that
    a running job leaves where that is not the lane it has afterwards; `new_fence` shuts out whoever
    held the job until now.
    """
    rule = MOVES[name]
    if rule.fenced and fence is None:
        raise ValueError(f"{name} is a worker's move and needs its fence")
    if State.RUNNING in rule.sources:
        values = {"lease_owner": None, "lease_until": None, **values}
    if new_fence:
        values = {"fence": Job.fence + 1, **values}
    if rule.target in FINAL:
        values = {"finished_at": now(), **values}
    statement = update(Job).where(Job.id == job_id, Job.state.in_(rule.sources))
    statement = statement.where(Job.fence == fence) if rule.fenced else statement
    job = session.scalars(
        statement.values(state=rule.target, event_seq=Job.event_seq + 1, **values)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if job is None:
        raise Conflict(f"Job {job_id} cannot take {name} now.", code="job_moved_on")
    if State.RUNNING in rule.sources:
        loads.lower(session, job.tenant, left_lane or Lane(job.lane))
    _record(session, job, name, message, level=level, data=data)
    outbox.tell(session, job)
    return job


def _record(
    session: Session,
    job: Job,
    name: str,
    message: str,
    *,
    level: str = "info",
    data: dict[str, Any] | None = None,
) -> None:
    session.add(
        Event(
            job=job.id,
            seq=job.event_seq,
            name=name,
            level=level,
            message=message,
            data={"state": job.state, "stage": job.stage, **(data or {})},
            fence=job.fence,
        )
    )
    session.flush()


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
    ready = exists().where(
        Job.state == State.QUEUED, Job.lane == lane, Job.tenant == Quota.tenant, Job.available_at <= now()
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
        .where(Job.state == State.QUEUED, Job.lane == lane, Job.tenant == tenant, Job.available_at <= now())
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


def cancel(session: Session, tenant: str, job_id: str, *, kind: Kind | None = None) -> Job:
    """T8. Waiting jobs are cancelled at once, running ones are asked to stop; a final one is a Conflict."""
    job = get(session, tenant, job_id, kind=kind)
    try:
        return move(session, job_id, "job.cancelled", message="The job was cancelled.", want=Want.CANCEL)
    except Conflict:
        pass
    asked = session.scalars(
        update(Job)
        .where(Job.id == job_id, Job.state == State.RUNNING, Job.want != Want.CANCEL)
        .values(want=Want.CANCEL, event_seq=Job.event_seq + 1)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if asked is not None:
        _record(session, asked, "job.cancel_requested", "The worker was asked to stop the job.")
        return asked
    session.refresh(job)
    if job.state in FINAL:
        ended = "been cancelled" if job.state == State.CANCELLED else job.state
        raise Conflict(f"Job {job_id} has already {ended}.", code="job_is_final", param="id")
    return job


def reap(database: Database, *, grace: float, limit: int = 100) -> list[Lane]:
    """T10. Jobs whose lease ran out go back to their lane, or end; any number of processes may do this.

    Returns the lanes that have work again.
    """
    with database.reading() as session:
        overdue = session.scalars(
            select(Job.id).where(Job.state == State.RUNNING, Job.lease_until < now() - grace).limit(limit)
        ).all()
    lanes = [_reap_one(database, job_id, grace) for job_id in overdue]
    return [lane for lane in lanes if lane is not None]


def _reap_one(database: Database, job_id: str, grace: float) -> Lane | None:
    with database.transaction() as session:
        late = Job.lease_until < now() - grace
        job = session.scalars(
            select(Job)
            .where(Job.id == job_id, Job.state == State.RUNNING, late)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        return lose(session, job, "its worker went silent") if job is not None else None


def lose(session: Session, job: Job, how: str, *, detail: str = "") -> Lane | None:
    """A running job's worker died: requeued, stopped if that was wanted, or given up as poison.

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
        why = f"The job's process died {deaths} times ({how}). {detail}".strip()
        change["error"] = {"code": "worker_died", "message": why, "param": None}
        _lost(session, job, "job.failed", why, change, level="error")
        return None
    message = f"Requeued from its last checkpoint: {how}."
    _lost(session, job, "job.reaped", message, {**change, "available_at": now()}, level="warn")
    return Lane(job.lane)


def _lost(
    session: Session, job: Job, name: str, message: str, change: dict[str, Any], level: str = "info"
) -> None:
    move(session, job.id, name, message=message, level=level, data={"deaths": change["deaths"]}, **change)


def lanes_with_work(session: Session) -> list[Lane]:
    """T11. The lanes in which a job is ready now."""
    ready = select(Job.lane).where(Job.state == State.QUEUED, Job.available_at <= now()).distinct()
    return [Lane(lane) for lane in session.scalars(ready)]


def position(session: Session, job: Job) -> int | None:
    """How many jobs of its lane are ready and stand before a queued one, counted up to MOST_AHEAD.

    None when it does not wait. Tenants take turns, so a job may well be taken earlier than this tells.
    """
    if job.state != State.QUEUED:
        return None
    ready = or_(Job.available_at <= now(), Job.available_at <= job.available_at)
    return _ahead(session, job, Job.priority > job.priority, ready) + _ahead(
        session, job, Job.priority == job.priority, Job.available_at < job.available_at
    )


def _ahead(session: Session, job: Job, *which: ColumnElement[bool]) -> int:
    """Two ranges of one index are counted; an OR of them would read the whole lane."""
    found = select(Job.id).where(Job.state == State.QUEUED, Job.lane == job.lane, *which).limit(MOST_AHEAD)
    return session.scalar(select(func.count()).select_from(found.subquery())) or 0
