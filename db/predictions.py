"""Predictions as their rows stand, without the inputs: those may be large, and every look would read them again."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, null, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db.tables import File, Job
from domain.errors import NotFound
from domain.job import FINAL, Kind, State


@dataclass(frozen=True)
class Standing:
    """A prediction without its inputs. Times are seconds since 1970."""

    id: str
    model: str
    state: State
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: dict[str, Any] | None
    labels: dict[str, str] | None
    #: What the worker answered; in a list it is not read.
    result: dict[str, Any] | None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


def _standings(tenant: str, *, result: Any) -> Select[Any]:
    return select(
        Job.id,
        Job.spec["model"].as_string().label("model"),
        Job.state,
        Job.created_at,
        Job.started_at,
        Job.finished_at,
        Job.error,
        Job.labels.label("labels"),
        result.label("result"),
    ).where(Job.tenant == tenant, Job.kind == Kind.PREDICT)


def _standing(row: Any) -> Standing:
    values = row._mapping
    return Standing(**{**values, "state": State(values["state"])})


def get(session: Session, tenant: str, prediction_id: str, *, param: str = "id") -> Standing:
    """The tenant's prediction; another tenant's is as absent as one that never was."""
    query = _standings(tenant, result=Job.result).where(Job.id == prediction_id)
    try:
        return _standing(session.execute(query).one())
    except NoResultFound:
        message = f"No prediction {prediction_id}."
        raise NotFound(message, code="prediction_not_found", param=param) from None


def page(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[list[Standing], bool]:
    """Newest first, from behind `after`, without what the workers answered; and whether there are more."""
    query = _standings(tenant, result=null())
    if after is not None:
        mark = get(session, tenant, after, param="after")
        same = (Job.created_at == mark.created_at) & (Job.id < mark.id)
        query = query.where((Job.created_at < mark.created_at) | same)
    rows = session.execute(query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)).all()
    return [_standing(row) for row in rows[:limit]], len(rows) > limit


def files_named(session: Session, tenant: str, file_ids: Iterable[str]) -> Mapping[str, File]:
    """Those of the files that are there and the tenant's, by id."""
    query = select(File).where(
        File.id.in_(sorted(set(file_ids))), File.tenant == tenant, File.deleted_at.is_(None)
    )
    return {file.id: file for file in session.scalars(query)}


def states(session: Session, ids: Collection[str]) -> Mapping[str, State]:
    """The states of those predictions that have a row."""
    rows = session.execute(select(Job.id, Job.state).where(Job.id.in_(ids)))
    return {row.id: State(row.state) for row in rows}
