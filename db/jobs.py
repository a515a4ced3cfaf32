"""The job row: submitted, read, moved, and what its user asks of it. `db.claims` knows what a worker does with it.

Each transition is one guarded transaction. A guard that matches no row means "you lost": the caller does
nothing and writes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from db import audit, loads, outbox, readers
from db.session import now
from db.tables import Event, Job, JobLabel, JobStart, Quota
from db.upsert import insert
from domain.errors import Conflict, NotFound, OverQuota, Unprocessable
from domain.ids import new_id
from domain.job import FINAL, ID_PREFIX, MOVES, WAITING, Kind, Lane, Stage, State, Want
from domain.retry import MAX_ATTEMPTS, MAX_DEATHS

#: A retry by the stock client without a key of its own folds onto the first job for this long.
FOLD_S = 60.0


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
    #: The files that the job reads, and the field that names each.
    files: Mapping[str, str] = field(default_factory=dict)
    #: Given where bytes were stored under the job's id before the row; else a new one is made.
    id: str | None = None
    #: The checkpoint of another job that this one starts from.
    start: str | None = None
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
    if new.start is not None:
        session.add(JobStart(job=job.id, checkpoint=new.start))
    readers.add(session, job, new.files)
    _record(session, job, "job.created", new.message)
    audit.made(session, job.id)
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
    waiting = session.scalar(select(func.count()).where(Job.tenant == quota.tenant, Job.state.in_(WAITING)))
    if (waiting or 0) >= quota.max_queued:
        raise OverQuota(
            f"{waiting} jobs are queued or paused and this tenant's limit is {quota.max_queued}; "
            "wait for some to run, or cancel some."
        )


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

    State, event and the tenant's load change together or not at all. `fence` is the one of the worker that
    moves a running job; a move of a waiting one has none. `left_lane` names the lane that
    a running job leaves where that is not the lane it has afterwards; `new_fence` shuts out whoever
    held the job until now.
    """
    rule = MOVES[name]
    sources = rule.sources - {State.RUNNING} if fence is None else rule.sources & {State.RUNNING}
    if not sources:
        raise ValueError(f"{name} is {'a worker' if fence is None else 'no worker'}'s move: mind the fence")
    if fence is not None:
        values = {"lease_owner": None, "lease_until": None, **values}
    if new_fence:
        values = {"fence": Job.fence + 1, **values}
    if rule.target in FINAL:
        values = {"finished_at": now(), **values}
    statement = update(Job).where(Job.id == job_id, Job.state.in_(sources))
    statement = statement.where(Job.fence == fence) if fence is not None else statement
    job = session.scalars(
        statement.values(state=rule.target, event_seq=Job.event_seq + 1, **values)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if job is None:
        raise Conflict(f"Job {job_id} cannot take {name} now.", code="job_moved_on")
    if fence is not None:
        loads.lower(session, job.tenant, left_lane or Lane(job.lane))
    if rule.target in FINAL:
        readers.drop(session, job)
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


def cancel(session: Session, tenant: str, job_id: str, *, kind: Kind | None = None) -> Job:
    """T8. A waiting job is cancelled at once, a running one is asked to stop; a final one is a Conflict."""
    job = _locked(session, tenant, job_id, kind)
    if job.state in WAITING:
        return move(session, job_id, "job.cancelled", message="The job was cancelled.", want=Want.CANCEL)
    if job.want != Want.CANCEL:
        _ask(session, job, Want.CANCEL, "job.cancel_requested", "The worker was asked to stop the job.")
    return job


def pause(session: Session, tenant: str, job_id: str, *, kind: Kind | None = None) -> Job:
    """T9. A queued job is paused at once; a running one is asked for a checkpoint and paused with it."""
    job = _locked(session, tenant, job_id, kind)
    if job.state == State.PAUSED:
        raise Conflict(f"Job {job_id} is paused already; resume it to let it go on.", code="job_is_paused")
    _refuse_cancelling(job)
    if job.state == State.QUEUED:
        return move(session, job_id, "job.paused", message="The job was paused.", want=Want.PAUSE)
    if job.want != Want.PAUSE:
        message = "The worker was asked for a checkpoint; then the job is paused."
        _ask(session, job, Want.PAUSE, "job.pause_requested", message)
    return job


def resume(session: Session, tenant: str, job_id: str, *, kind: Kind | None = None) -> Job:
    """T9. A paused job is queued again, ready at once; a pause that is only asked for is taken back."""
    job = _locked(session, tenant, job_id, kind)
    _refuse_cancelling(job)
    if job.state == State.PAUSED:
        message = "The job was resumed and waits for a worker."
        return move(session, job_id, "job.resumed", message=message, want=Want.RUN, available_at=now())
    if job.want != Want.PAUSE:
        raise Conflict(f"Job {job_id} is not paused.", code="job_not_paused")
    _ask(session, job, Want.RUN, "job.resumed", "The pause was taken back before the worker paused the job.")
    return job


def _locked(session: Session, tenant: str, job_id: str, kind: Kind | None) -> Job:
    """The tenant's job, which nobody moves meanwhile; a final one is a Conflict."""
    job = get(session, tenant, job_id, kind=kind)
    session.refresh(job, with_for_update=True)
    if job.state in FINAL:
        ended = "been cancelled" if job.state == State.CANCELLED else job.state
        raise Conflict(f"Job {job_id} has already {ended}.", code="job_is_final", param="id")
    return job


def _refuse_cancelling(job: Job) -> None:
    if job.want == Want.CANCEL:
        raise Conflict(f"Job {job.id} is being cancelled.", code="job_is_cancelled", param="id")


def _ask(session: Session, job: Job, want: Want, name: str, message: str) -> None:
    """A running job's keeper reads `want` at its next renewal, or at once by a bell."""
    job.want = want
    job.event_seq += 1
    _record(session, job, name, message)
