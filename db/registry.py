"""Finished models: what `fine_tuned_model` names."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db.session import now
from db.tables import Model
from domain.errors import NotFound


def get(session: Session, tenant: str, model_id: str) -> Model:
    try:
        return session.scalars(
            select(Model).where(Model.id == model_id, Model.tenant == tenant, Model.deleted_at.is_(None))
        ).one()
    except NoResultFound:
        raise NotFound(f"No model {model_id}.", code="model_not_found", param="model") from None


def all_of(session: Session, tenant: str) -> Sequence[Model]:
    """Every model of the tenant, newest first."""
    query = select(Model).where(Model.tenant == tenant, Model.deleted_at.is_(None))
    return session.scalars(query.order_by(Model.created_at.desc(), Model.id)).all()


def delete(session: Session, tenant: str, model_id: str) -> Model:
    model = get(session, tenant, model_id)
    model.deleted_at = session.scalar(select(now()))
    return model
