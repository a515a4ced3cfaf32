"""The job row: submitted, read, moved, and what its user asks of it. `db.claims` knows what a worker does with it.

Each transition is one guarded transaction. A guard that matches no row means "you lost": the caller does
nothing and writes nothing.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from db import audit, events, loads, outbox, readers, submissions
from db.session import now
from db.submissions import Submission as Submission
from db.tables import Job, JobLabel, JobStart
from domain.errors import Conflict, NotFound
from domain.job import FINAL, MOVES, WAITING, Kind, Lane, State, Want


def submit(session: Session, new: Submission) -> Job:
    """T1. The job of this submission: a new one, or the one that the same key made before."""
    limit = submissions.limit_of(session, new.tenant)
    earlier = submissions.earlier(session, new)
    if earlier is not None:
        return earlier
    submissions.refuse_over_quota(session, new.tenant, limit)
    job = submissions.inserted(session, new)
    for name, value in (new.labels or {}).items():
        label = JobLabel(job=job.id, name=name, value=value, tenant=job.tenant, created_at=job.created_at)
        session.add(label)
    if new.start is not None:
        session.add(JobStart(job=job.id, checkpoint=new.start))
    readers.add(session, job, new.files)
    events.record(session, job, "job.created", new.message)
    audit.made(session, job.id)
    return job


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
    events.record(session, job, name, message, level=level, data=data)
    outbox.tell(session, job)
    return job


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
    events.record(session, job, name, message)
