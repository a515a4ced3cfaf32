"""The event log of a job, as it is read."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import Event, Metric
from domain.errors import NotFound


def event_id(job_id: str, seq: int) -> str:
    """`ftevent-<job>-<number>`: an event's name tells its place, so a cursor needs no look-up."""
    return f"ftevent-{job_id.removeprefix('ftjob-')}-{seq}"


def _seq(job_id: str, cursor: str) -> int:
    number = cursor.removeprefix(event_id(job_id, 0)[:-1])
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise NotFound(f"No event {cursor} in this job.", code="event_not_found", param="after")
    return int(number)


def page(
    session: Session, job_id: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[Event], bool]:
    """Newest first, from behind `after`; and whether there are more."""
    query = select(Event).where(Event.job == job_id)
    if after is not None:
        query = query.where(Event.seq < _seq(job_id, after))
    rows = session.scalars(query.order_by(Event.seq.desc()).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def since(session: Session, job_id: str, seq: int, *, limit: int = 1000) -> Sequence[Event]:
    """Oldest first, everything after event number `seq`."""
    query = select(Event).where(Event.job == job_id, Event.seq > seq).order_by(Event.seq).limit(limit)
    return session.scalars(query).all()


def series(session: Session, job_id: str, name: str) -> list[tuple[int, float]]:
    """One metric of a job by step."""
    query = select(Metric.step, Metric.value).where(Metric.job == job_id, Metric.name == name)
    return [(step, value) for step, value in session.execute(query.order_by(Metric.step))]
