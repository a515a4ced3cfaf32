"""T4: what a worker tells while it holds a job. Every write carries the fence; a late one hits no row."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.session import now
from db.tables import Checkpoint, Event, Job, Metric
from db.upsert import insert
from domain.ids import new_id
from domain.job import State, Want

#: Rows of one INSERT: below SQLite's limit on bound parameters at four columns a row.
_CHUNK = 2_000


@dataclass(frozen=True)
class Words:
    """Events, metrics, progress and the spec as it was decided, gathered since the last report."""

    events: Sequence[dict[str, Any]] = ()
    metrics: Sequence[tuple[str, int, float]] = ()
    progress: dict[str, Any] | None = field(default=None)
    resolved: dict[str, Any] | None = field(default=None)


def report(session: Session, job_id: str, fence: int, words: Words) -> Want | None:
    """Stores `words` if `fence` still holds the job; what the user wants, or None when fenced off."""
    values: dict[str, Any] = {"event_seq": Job.event_seq + len(words.events)}
    if words.progress is not None:
        # Told by the database's clock: an estimate that is read later has grown older since.
        values["progress"] = words.progress | {"reported_at": session.scalar(select(now()))}
    if words.resolved is not None:
        values["resolved"] = words.resolved
    held = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == State.RUNNING, Job.fence == fence)
        .values(**values)
        .returning(Job.want, Job.event_seq)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if held is None:
        return None
    _add_events(session, job_id, fence, words.events, held.event_seq)
    _put_metrics(session, job_id, words.metrics)
    return Want(held.want)


def checkpoint(
    session: Session, job_id: str, fence: int, *, ref: str, step: int, metrics: dict[str, float]
) -> Want | None:
    """Publishes a complete checkpoint: the next claim starts from it. None means fenced off.

    Told again after a commit that was never answered, it has one row still: of two rows for the same bytes one
    would be retired as the older, and its bytes deleted.
    """
    want = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.state == State.RUNNING, Job.fence == fence)
        .values(checkpoint_ref=ref)
        .returning(Job.want)
        .execution_options(synchronize_session=False)
    )
    if want is None:
        return None
    if session.scalar(select(Checkpoint.id).where(Checkpoint.job == job_id, Checkpoint.ref == ref)) is None:
        session.add(
            Checkpoint(id=new_id("ftckpt_"), job=job_id, fence=fence, step=step, ref=ref, metrics=metrics)
        )
    return Want(want)


def _add_events(
    session: Session, job_id: str, fence: int, events: Sequence[dict[str, Any]], last: int
) -> None:
    first = last - len(events) + 1
    session.add_all(Event(job=job_id, seq=first + i, fence=fence, **event) for i, event in enumerate(events))


def _put_metrics(session: Session, job_id: str, metrics: Sequence[tuple[str, int, float]]) -> None:
    # A statement may touch a key once only: of two values for one step the later stands.
    rows = [
        {"job": job_id, "name": name, "step": step, "value": value}
        for (name, step), value in {(n, s): v for n, s, v in metrics}.items()
    ]
    for i in range(0, len(rows), _CHUNK):
        put = insert(session, Metric).values(rows[i : i + _CHUNK])
        put = put.on_conflict_do_update(
            index_elements=["job", "name", "step"], set_={"value": put.excluded.value, "created_at": now()}
        )
        session.execute(put)
