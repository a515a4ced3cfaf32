"""The event log of a job, as it is read."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import Event, Job, Metric
from domain.errors import NotFound
from domain.job import FINAL


def event_id(job_id: str, seq: int) -> str:
    """`ftevent-<job>-<number>`: an event's name tells its place, so a cursor needs no look-up."""
    return f"ftevent-{job_id.removeprefix('ftjob-')}-{seq}"


def number(job_id: str, cursor: str, *, param: str = "after") -> int:
    """The number of an event of this job, which is told by its id or by the number itself."""
    digits = cursor.removeprefix(event_id(job_id, 0)[:-1])
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise NotFound(f"No event {cursor} in this job.", code="event_not_found", param=param)
    return int(digits)


def page(
    session: Session, job_id: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[Event], bool]:
    """Newest first, from behind `after`; and whether there are more."""
    query = select(Event).where(Event.job == job_id)
    if after is not None:
        query = query.where(Event.seq < number(job_id, after))
    rows = session.scalars(query.order_by(Event.seq.desc()).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def since(session: Session, job_id: str, seq: int, *, limit: int = 1000) -> Sequence[Event]:
    """Oldest first, everything after event number `seq`."""
    query = select(Event).where(Event.job == job_id, Event.seq > seq).order_by(Event.seq).limit(limit)
    return session.scalars(query).all()


def news(session: Session, job_id: str, seq: int, *, limit: int = 1000) -> tuple[Sequence[Event], bool]:
    """The events after number `seq`, oldest first; and whether no other will ever follow them."""
    # The state first: once it reads as final, its last event can be read too.
    state = session.scalar(select(Job.state).where(Job.id == job_id))
    rows = since(session, job_id, seq, limit=limit)
    return rows, state in FINAL and len(rows) < limit


def series(session: Session, job_id: str, name: str) -> list[tuple[int, float]]:
    """One metric of a job by step."""
    query = select(Metric.step, Metric.value).where(Metric.job == job_id, Metric.name == name)
    return [(step, value) for step, value in session.execute(query.order_by(Metric.step))]
