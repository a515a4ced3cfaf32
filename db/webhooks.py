"""A tenant's webhook endpoints: made, read, changed, disabled. What is sent to them is in `db.deliveries`."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db import audit, pages
from db.session import now
from db.tables import Quota, WebhookDelivery, WebhookEndpoint
from domain.errors import Conflict, NotFound, Unprocessable
from domain.ids import new_id
from domain.webhooks import (
    MOST_ENDPOINTS,
    OLD_SECRET_S,
    Code,
    DeliveryState,
    EndpointChange,
    NewEndpoint,
    new_secret,
)

BY_ITS_OWNER = "It was disabled by its owner."


def create(
    session: Session, tenant: str, new: NewEndpoint, *, key: str | None = None, body_hash: str | None = None
) -> WebhookEndpoint:
    """A new endpoint with a fresh secret, or the one that the same Idempotency-Key made before."""
    # Two that are made at once must not both be the last that the tenant may have.
    session.scalars(select(Quota).where(Quota.tenant == tenant).with_for_update(key_share=True)).one()
    earlier = _same_key(session, tenant, key, body_hash)
    if earlier is not None:
        return earlier
    live = (WebhookEndpoint.tenant == tenant, WebhookEndpoint.deleted_at.is_(None))
    if (session.scalar(select(func.count()).where(*live)) or 0) >= MOST_ENDPOINTS:
        raise Conflict(
            f"A tenant has at most {MOST_ENDPOINTS} webhook endpoints; delete one first.",
            code="too_many_webhook_endpoints",
        )
    endpoint = WebhookEndpoint(
        id=new_id("whe_"),
        tenant=tenant,
        url=new.url,
        name=new.name,
        event_types=new.event_types,
        secret=new_secret(),
        idempotency_key=key,
        body_hash=body_hash,
    )
    session.add(endpoint)
    session.flush()
    audit.made(session, endpoint.id)
    return endpoint


def _same_key(
    session: Session, tenant: str, key: str | None, body_hash: str | None
) -> WebhookEndpoint | None:
    if key is None:
        return None
    earlier = session.scalars(
        select(WebhookEndpoint).where(
            WebhookEndpoint.tenant == tenant, WebhookEndpoint.idempotency_key == key
        )
    ).one_or_none()
    if earlier is not None and earlier.body_hash != body_hash:
        raise Unprocessable(
            "This Idempotency-Key was used with another endpoint; send a new key.",
            code="idempotency_key_reused",
        )
    return earlier


def get(
    session: Session, tenant: str, endpoint_id: str, *, param: str = "id", lock: bool = False
) -> WebhookEndpoint:
    """The tenant's endpoint; another tenant's is as absent as one that never was."""
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id,
        WebhookEndpoint.tenant == tenant,
        WebhookEndpoint.deleted_at.is_(None),
    )
    try:
        return session.scalars(query.with_for_update(key_share=True) if lock else query).one()
    except NoResultFound:
        raise NotFound(
            f"No webhook endpoint {endpoint_id}.", code="webhook_endpoint_not_found", param=param
        ) from None


def page(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[WebhookEndpoint], bool]:
    """Newest first, from behind the endpoint `after`; and whether there are more."""
    mark = get(session, tenant, after, param="after") if after is not None else None
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.tenant == tenant, WebhookEndpoint.deleted_at.is_(None)
    )
    return pages.newest_first(session, query, WebhookEndpoint, mark, limit)


def change(session: Session, tenant: str, endpoint_id: str, asked: EndpointChange) -> WebhookEndpoint:
    """What `asked` gives is changed, the rest stays."""
    endpoint = get(session, tenant, endpoint_id, lock=True)
    given: dict[str, Any] = asked.model_dump(exclude_none=True)
    enabled = given.pop("enabled", None)
    for name, value in given.items():
        setattr(endpoint, name, value)
    if enabled:
        endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None
    elif enabled is False and endpoint.disabled_at is None:
        endpoint.disabled_at, endpoint.disabled_reason = _instant(session), BY_ITS_OWNER
    return _updated(session, endpoint)


def rotate(session: Session, tenant: str, endpoint_id: str, *, keep_old: bool) -> WebhookEndpoint:
    """A fresh secret; with `keep_old` the one before it signs as well for a day."""
    endpoint = get(session, tenant, endpoint_id, lock=True)
    endpoint.old_secret = endpoint.secret if keep_old else None
    endpoint.old_secret_until = _instant(session) + OLD_SECRET_S if keep_old else None
    endpoint.secret = new_secret()
    return _updated(session, endpoint)


def delete(session: Session, tenant: str, endpoint_id: str) -> None:
    """Nothing is sent there any more, and the secrets are forgotten."""
    endpoint = get(session, tenant, endpoint_id, lock=True)
    endpoint.deleted_at = _instant(session)
    # The same key may make the same endpoint again.
    endpoint.idempotency_key = endpoint.old_secret = None
    endpoint.secret = ""
    waiting = (WebhookDelivery.endpoint == endpoint_id, WebhookDelivery.state == DeliveryState.PENDING)
    session.execute(
        update(WebhookDelivery)
        .where(*waiting)
        .values(state=DeliveryState.FAILED, error=Code.ENDPOINT_DELETED, finished_at=now())
    )


def _updated(session: Session, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    endpoint.updated_at = _instant(session)
    session.flush()
    return endpoint


def _instant(session: Session) -> float:
    return session.scalars(select(now())).one()
