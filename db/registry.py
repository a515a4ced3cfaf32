"""Finished models: what `fine_tuned_model` names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db.session import now
from db.tables import Job, Model
from domain.errors import NotFound


@dataclass(frozen=True)
class Described:
    """A model with what its job found out about it."""

    model: Model
    #: What was measured, such as `test_accuracy`.
    metrics: dict[str, Any]
    #: The labels that it tells apart; empty for a regression.
    classes: list[Any]
    #: What it reads of a row.
    columns: list[str]


def get(session: Session, tenant: str, model_id: str) -> Model:
    try:
        return session.scalars(
            select(Model).where(Model.id == model_id, Model.tenant == tenant, Model.deleted_at.is_(None))
        ).one()
    except NoResultFound:
        raise NotFound(f"No model {model_id}.", code="model_not_found", param="model") from None


def describe(session: Session, models: Sequence[Model]) -> list[Described]:
    """The models, in their order, with what their jobs know."""
    query = select(Job.id, Job.result, Job.resolved).where(Job.id.in_({model.job for model in models}))
    known = {id_: (result or {}, resolved or {}) for id_, result, resolved in session.execute(query)}
    return [_described(model, *known[model.job]) for model in models]


def _described(model: Model, result: dict[str, Any], resolved: dict[str, Any]) -> Described:
    columns = sorted(resolved.get("towers", {}))
    return Described(model, result.get("metrics", {}), resolved.get("classes", []), columns)


def all_of(session: Session, tenant: str) -> Sequence[Model]:
    """Every model of the tenant, newest first."""
    query = select(Model).where(Model.tenant == tenant, Model.deleted_at.is_(None))
    return session.scalars(query.order_by(Model.created_at.desc(), Model.id)).all()


def delete(session: Session, tenant: str, model_id: str) -> Model:
    """Nobody finds the model any more; its job still tells what it was. Its bytes are left to upkeep."""
    model = get(session, tenant, model_id)
    model.deleted_at = session.scalar(select(now()))
    return model


def deleted(session: Session, *, before_s: float) -> Sequence[str]:
    """The folders of models that were deleted more than `before_s` seconds ago."""
    return session.scalars(select(Model.ref).where(Model.deleted_at < now() - before_s)).all()
