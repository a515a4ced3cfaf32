"""A job's metrics as curves. Thinned by the database: a run of a million steps is not read to draw 500 points."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, case, func, or_, select
from sqlalchemy.orm import Session

from db.tables import Metric


@dataclass(frozen=True)
class Series:
    """One metric by step, steps rising."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def series(
    session: Session, job_id: str, *, names: Sequence[str] | None = None, max_points: int = 500
) -> dict[str, Series]:
    """Name -> curve of at most `max_points` (2 or more) points, evenly taken, the first and the last among them."""
    found: dict[str, Series] = {}
    for name, step, value in session.execute(_thinned(job_id, names, max_points)):
        curve = found.setdefault(name, Series())
        curve.steps.append(step)
        curve.values.append(value)
    return found


def _thinned(job_id: str, names: Sequence[str] | None, max_points: int) -> Select[str, int, float]:
    query = select(
        Metric.name,
        Metric.step,
        Metric.value,
        (func.row_number().over(partition_by=Metric.name, order_by=Metric.step) - 1).label("place"),
        (func.count().over(partition_by=Metric.name) - 1).label("last"),
    ).where(Metric.job == job_id)
    if names is not None:
        query = query.where(Metric.name.in_(names))
    p = query.subquery()
    # Rounded up: one stride less and there would be a point too many.
    stride = case((p.c.last < max_points, 1), else_=(p.c.last + max_points - 2) // (max_points - 1))
    kept = or_(p.c.place % stride == 0, p.c.place == p.c.last)
    return select(p.c.name, p.c.step, p.c.value).where(kept).order_by(p.c.name, p.c.step)
