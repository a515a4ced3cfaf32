"""The checkpoints that a job published: as they are read, and how many of them keep their bytes."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Select, select, tuple_
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.tables import Checkpoint, Job, JobStart
from domain.errors import NotFound
from domain.job import UNFINISHED


def page(
    session: Session, job_id: str, *, after: str | None = None, limit: int = 10
) -> tuple[Sequence[Checkpoint], bool]:
    """Newest first, from behind `after`; and whether there are more."""
    query = select(Checkpoint).where(Checkpoint.job == job_id)
    if after is not None:
        mark = _get(session, job_id, after)
        query = query.where(tuple_(Checkpoint.created_at, Checkpoint.id) < tuple_(mark.created_at, mark.id))
    newest = query.order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc())
    rows = session.scalars(newest.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def kept(session: Session, job_id: str) -> Sequence[str]:
    """The folders of a job's checkpoints whose bytes are kept, newest first."""
    return [row.ref for row in session.scalars(available(job_id))]


def kept_of_all(session: Session, job_ids: Collection[str]) -> Mapping[str, Sequence[str]]:
    """The same for many jobs at once, in no order; jobs that keep none are left out."""
    found: dict[str, list[str]] = {}
    query = select(Checkpoint.job, Checkpoint.ref).where(Checkpoint.job.in_(job_ids), Checkpoint.available)
    for job, ref in session.execute(query):
        found.setdefault(job, []).append(ref)
    return found


def available(job_id: str) -> Select[Checkpoint]:
    """The query of a job's kept checkpoints, newest first.

    By fence before step: a claim that found a damaged checkpoint began again from a lower step.
    """
    query = select(Checkpoint).where(Checkpoint.job == job_id, Checkpoint.available)
    return query.order_by(Checkpoint.fence.desc(), Checkpoint.step.desc())


def retire(session: Session, job_id: str, *, keep: int) -> list[str]:
    """All but the newest `keep` are no longer available; the folders that may go once this is committed.

    Those that an unfinished job starts from stay. Locked before they are looked at: a submit that takes one
    at this instant is either seen here, or sees that it is gone.
    """
    older = session.scalars(available(job_id).offset(keep).with_for_update()).all()
    needed = set(session.scalars(_needed(JobStart.checkpoint).where(Checkpoint.job == job_id)))
    retired = [row for row in older if row.id not in needed]
    for row in retired:
        row.available = False
    return [row.ref for row in retired]


def needed_jobs() -> Select[str]:
    """The query of the jobs from whose checkpoints unfinished jobs start."""
    return _needed(Checkpoint.job)


def _needed(what: InstrumentedAttribute[str]) -> Select[str]:
    query = select(what).select_from(JobStart).join(Checkpoint, Checkpoint.id == JobStart.checkpoint)
    return query.join(Job, Job.id == JobStart.job).where(Job.state.in_(UNFINISHED))


def _get(session: Session, job_id: str, checkpoint_id: str) -> Checkpoint:
    try:
        query = select(Checkpoint).where(Checkpoint.id == checkpoint_id, Checkpoint.job == job_id)
        return session.scalars(query).one()
    except NoResultFound:
        message = f"No checkpoint {checkpoint_id} in this job."
        raise NotFound(message, code="checkpoint_not_found", param="after") from None
