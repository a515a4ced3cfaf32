"""The log of an endpoint's messages, as its owner reads it; a sample to try it with; messages sent again, or forgotten."""

from collections.abc import Sequence

from sqlalchemy import delete, exists, func, or_, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db import pages, webhooks
from db.outbox import LIVE, PENDING, is_free
from db.session import now
from db.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from domain.errors import Conflict, NotFound
from domain.ids import new_id
from domain.webhooks import GIVE_UP_S, Code, DeliveryState, payload


def sample(session: Session, tenant: str, endpoint_id: str, type_: str) -> WebhookDelivery:
    """A message of this type that tells of nothing, to try an endpoint with."""
    endpoint = webhooks.get(session, tenant, endpoint_id)
    _refuse_disabled(endpoint)
    instant = session.scalars(select(now())).one()
    delivery = WebhookDelivery(
        id=new_id("msg_"),
        endpoint=endpoint.id,
        tenant=tenant,
        type=type_,
        payload=payload(new_id("evt_"), type_, instant, {"id": endpoint.id, "test": True}),
        is_test=True,
        give_up_at=instant + GIVE_UP_S,
    )
    session.add(delivery)
    session.flush()
    return delivery


def _refuse_disabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.disabled_at is not None:
        raise Conflict(
            f"{endpoint.id} is disabled: {endpoint.disabled_reason} Enable it first.",
            code="webhook_endpoint_disabled",
            param="id",
        )


def get(
    session: Session, tenant: str, endpoint_id: str, delivery_id: str, *, param: str = "id"
) -> WebhookDelivery:
    """A message to the tenant's endpoint."""
    endpoint = webhooks.get(session, tenant, endpoint_id)
    try:
        return session.scalars(
            select(WebhookDelivery).where(
                WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint == endpoint.id
            )
        ).one()
    except NoResultFound:
        raise NotFound(
            f"No delivery {delivery_id} to this endpoint.", code="webhook_delivery_not_found", param=param
        ) from None


def attempts_of(session: Session, delivery_id: str) -> Sequence[WebhookAttempt]:
    """The tries, the first first."""
    query = select(WebhookAttempt).where(WebhookAttempt.delivery == delivery_id)
    return session.scalars(query.order_by(WebhookAttempt.number)).all()


def page(
    session: Session,
    tenant: str,
    endpoint_id: str,
    *,
    state: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> tuple[Sequence[WebhookDelivery], bool]:
    """The endpoint's messages, newest first, from behind `after`; and whether there are more."""
    endpoint = webhooks.get(session, tenant, endpoint_id)
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint == endpoint.id)
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    mark = get(session, tenant, endpoint_id, after, param="after") if after is not None else None
    return pages.newest_first(session, query, WebhookDelivery, mark, limit)


def redeliver(session: Session, tenant: str, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
    """Sends a message again, now and under its id, with another day of tries; a Conflict while it is being sent."""
    _refuse_disabled(webhooks.get(session, tenant, endpoint_id))
    delivery = get(session, tenant, endpoint_id, delivery_id)
    again = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery.id, is_free())
        .values(
            state=DeliveryState.PENDING,
            failures=0,
            next_at=now(),
            give_up_at=now() + GIVE_UP_S,
            finished_at=None,
        )
        .returning(WebhookDelivery)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if again is None:
        message = f"{delivery_id} is being sent at this moment; look again in a few seconds."
        raise Conflict(message, code="delivery_in_progress", param="id")
    return again


def expire(session: Session) -> int:
    """Gives up what nobody may try any more, as messages to a disabled endpoint; of how many.

    One that was never tried because no sender was there, as in a long outage, is left to be tried once.
    """
    can_go = exists().where(WebhookEndpoint.id == WebhookDelivery.endpoint, *LIVE)
    given_up = (
        update(WebhookDelivery)
        .where(PENDING, WebhookDelivery.give_up_at < now(), is_free())
        .where(or_(WebhookDelivery.attempts > 0, ~can_go))
        .values(
            state=DeliveryState.FAILED,
            error=func.coalesce(WebhookDelivery.error, str(Code.EXPIRED)),
            finished_at=now(),
        )
        .execution_options(synchronize_session=False)
    )
    return int(session.execute(given_up).rowcount)  # type: ignore[attr-defined]


def forget(session: Session, *, before_s: float, limit: int = 1_000) -> int:
    """Deletes messages, with their tries, that were final for `before_s` seconds; at most `limit` at once."""
    old = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.finished_at < now() - before_s)
        .order_by(WebhookDelivery.finished_at)
        .limit(limit)
    )
    ids = session.scalars(old).all()
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(ids)))
    return len(ids)
