"""The event log of a job, as it is written and read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from db.prepared import Prepared
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


_INSERT = Prepared(
    insert(Event.metadata.tables[Event.__tablename__]),
    columns=("job", "seq", "name", "level", "type", "message", "data", "fence"),
)


def record(
    session: Session,
    job: Job,
    name: str,
    message: str,
    *,
    level: str = "info",
    data: dict[str, Any] | None = None,
) -> None:
    """The event whose number the job's row has just taken, in the same transaction."""
    _INSERT.drive(
        session,
        job=job.id,
        seq=job.event_seq,
        name=name,
        level=level,
        type="message",
        message=message,
        data=json.dumps({"state": job.state, "stage": job.stage, **(data or {})}),
        fence=job.fence,
    )


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


@dataclass(frozen=True)
class News:
    """What followed in one job, oldest first; and whether no other event will ever follow."""

    rows: Sequence[Event]
    is_all: bool


def news(session: Session, seen: Mapping[str, int], *, limit: int = 1000) -> dict[str, News]:
    """What followed event number `seen[job]` in each of the jobs. One query where nothing did."""
    # The states first: once one reads as final, its job's last event can be read too.
    standing = select(Job.id, Job.state, Job.event_seq).where(Job.id.in_(list(seen)))
    known = {job: (state in FINAL, last) for job, state, last in session.execute(standing)}
    told: dict[str, News] = {}
    for job, cursor in seen.items():
        # A job that was deleted has no more to tell.
        is_final, last = known.get(job, (True, 0))
        rows = since(session, job, cursor, limit=limit) if last > cursor else []
        told[job] = News(rows, is_final and len(rows) < limit)
    return told


def series(session: Session, job_id: str, name: str) -> list[tuple[int, float]]:
    """One metric of a job by step."""
    query = select(Metric.step, Metric.value).where(Metric.job == job_id, Metric.name == name)
    return [(step, value) for step, value in session.execute(query.order_by(Metric.step))]
