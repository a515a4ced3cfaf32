"""What waits in the lanes: which of them have work, and how many stand before a job."""

from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, func, or_, select
from sqlalchemy.orm import Session, aliased

from db.prepared import Prepared, literal
from db.session import now
from db.tables import Job
from domain.job import Lane, State

#: In a lane as long as this nobody asks for the exact place, and counting it would cost more with every job.
MOST_AHEAD = 1_000

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
    ready = or_(_Other.available_at <= now(), _Other.available_at <= Job.available_at)
    more_urgent = _ahead(_Other.priority > Job.priority, ready)
    earlier = _ahead(_Other.priority == Job.priority, _Other.available_at < Job.available_at)
    return case((Job.state == _QUEUED, more_urgent + earlier))


def _ahead(*which: ColumnElement[bool]) -> Any:
    same_lane = and_(_Other.state == _QUEUED, _Other.lane == Job.lane)
    found = select(_Other.id).where(same_lane, *which).limit(MOST_AHEAD).correlate(Job).subquery()
    return select(func.count()).select_from(found).scalar_subquery()


_PLACE = Prepared(select(place()).where(Job.id == bindparam("job_id")))


def position(session: Session, job: Job) -> int | None:
    """The `place` of a job; one that does not wait costs nothing."""
    return _PLACE.run(session, job_id=job.id).scalar() if job.state == State.QUEUED else None
