"""The checkpoints that a job published, as they are read. Only the last one's bytes are kept."""

from collections.abc import Sequence

from sqlalchemy import select, tuple_
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db.tables import Checkpoint
from domain.errors import NotFound


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


def _get(session: Session, job_id: str, checkpoint_id: str) -> Checkpoint:
    try:
        query = select(Checkpoint).where(Checkpoint.id == checkpoint_id, Checkpoint.job == job_id)
        return session.scalars(query).one()
    except NoResultFound:
        message = f"No checkpoint {checkpoint_id} in this job."
        raise NotFound(message, code="checkpoint_not_found", param="after") from None
