"""What waits in the lanes: which of them have work, and how many stand before a job."""

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from db.session import now
from db.tables import Job
from domain.job import Lane, State

#: In a lane as long as this nobody asks for the exact place, and counting it would cost more with every job.
MOST_AHEAD = 1_000


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
