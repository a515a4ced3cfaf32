"""What waits in the lanes: which of them have work, and how many stand before a job."""

from typing import Any

from sqlalchemy import ColumnElement, bindparam, case, func, or_, select
from sqlalchemy.orm import Session, aliased

from db.prepared import Prepared, literal
from db.session import now
from db.tables import Job
from domain.job import Lane, State

#: In a lane as long as this nobody asks for the exact place, and counting it would cost more with every job.
MOST_AHEAD = 200

_QUEUED = literal(State.QUEUED)
_Other = aliased(Job, name="other")


def lanes_with_work(session: Session) -> list[Lane]:
    """T11. The lanes in which a job is ready now."""
    ready = select(Job.lane).where(Job.state == _QUEUED, Job.available_at <= now()).distinct()
    return [Lane(lane) for lane in session.scalars(ready)]


def place() -> ColumnElement[int | None]:
    """In SQL, for a query of one `Job`: how many jobs of its lane are ready and stand before a queued one.

    Counted up to MOST_AHEAD; null when it does not wait. Tenants take turns, so a job may well be taken
    earlier than this tells. Two ranges of one index are counted: an OR of them would read the whole lane.
    """
    return case((Job.state == _QUEUED, ahead_of(Job.lane, Job.priority, Job.available_at)))


def ahead_of(lane: Any, priority: Any, since: Any) -> Any:
    """The same for any job whose lane, priority and `available_at` are known, as columns or values."""
    ready = or_(_Other.available_at <= now(), _Other.available_at <= since)
    more_urgent = _ahead(_Other.lane == lane, _Other.priority > priority, ready)
    return more_urgent + _ahead(_Other.lane == lane, _Other.priority == priority, _Other.available_at < since)


def _ahead(*which: ColumnElement[bool]) -> Any:
    waiting = select(_Other.id).where(_Other.state == _QUEUED, *which).limit(MOST_AHEAD)
    found = waiting.correlate_except(_Other).subquery()
    return select(func.count()).select_from(found).scalar_subquery()


_PLACE = Prepared(select(place()).where(Job.id == bindparam("job_id")))


def position(session: Session, job: Job) -> int | None:
    """The `place` of a job; one that does not wait costs nothing."""
    return _PLACE.run(session, job_id=job.id).scalar() if job.state == State.QUEUED else None
