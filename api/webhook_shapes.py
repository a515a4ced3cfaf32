"""The JSON shapes of webhooks: endpoints in OpenAI's words, and our log of what was sent to them."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from api.shapes import Listed, Page, Shape
from db import tables
from domain.webhooks import DeliveryState


class WebhookEndpoint(Listed):
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    name: str
    event_types: list[str]
    created_at: int
    updated_at: int
    signing_secret_hint: str
    status: Literal["enabled", "disabled"]
    #: Why it is disabled, and since when.
    disabled_reason: str | None
    disabled_at: int | None
    #: Since when every try has failed; null after one that did not.
    failing_since: int | None


class WebhookEndpointWithSecret(WebhookEndpoint):
    """The secret is shown here and nowhere else."""

    signing_secret: str = Field(repr=False)


class WebhookEndpointDeleted(Shape):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookEndpointPage(Page[WebhookEndpoint]):
    """Webhook endpoints."""


class WebhookTypes(Shape):
    object: Literal["list"] = "list"
    data: list[str]


class WebhookDelivery(Listed):
    """A message; its id is the header `webhook-id` of each try."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    webhook_endpoint_id: str
    event_type: str
    #: The job that it tells of; null for a test.
    job: str | None
    status: DeliveryState
    attempts: int
    #: When it is tried next; null when it is not.
    next_attempt_at: int | None
    #: Of the last try.
    status_code: int | None
    error: str | None
    created_at: int
    finished_at: int | None


class WebhookAttempt(Shape):
    number: int
    started_at: int
    duration_ms: int
    status_code: int | None
    error: str | None
    message: str | None
    #: The beginning of what the receiver answered.
    answer: str


class WebhookDeliveryDetail(WebhookDelivery):
    #: The text that is signed and sent.
    payload: str
    tries: list[WebhookAttempt]


class WebhookDeliveryPage(Page[WebhookDelivery]):
    """What was sent to one endpoint."""


class WebhookTest(Shape):
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    #: Whether the receiver answered at all; what it answered is `status_code`.
    success: bool
    status_code: int | None
    error: str | None
    delivery: str


def endpoint(row: tables.WebhookEndpoint) -> WebhookEndpoint:
    return WebhookEndpoint(**_fields(row))


def endpoint_with_secret(row: tables.WebhookEndpoint) -> WebhookEndpointWithSecret:
    return WebhookEndpointWithSecret(**_fields(row), signing_secret=row.secret)


def _fields(row: tables.WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.url,
        "name": row.name,
        "event_types": row.event_types,
        "created_at": int(row.created_at),
        "updated_at": int(row.updated_at),
        "signing_secret_hint": f"whsec_…{row.secret[-4:]}",
        "status": "enabled" if row.disabled_at is None else "disabled",
        "disabled_reason": row.disabled_reason,
        "disabled_at": _seconds(row.disabled_at),
        "failing_since": _seconds(row.failing_since),
    }


def delivery(row: tables.WebhookDelivery) -> WebhookDelivery:
    return WebhookDelivery(**_message(row))


def delivery_detail(
    row: tables.WebhookDelivery, tries: Sequence[tables.WebhookAttempt]
) -> WebhookDeliveryDetail:
    return WebhookDeliveryDetail(
        **_message(row), payload=row.payload, tries=[_attempt(attempt) for attempt in tries]
    )


def test(row: tables.WebhookDelivery) -> WebhookTest:
    return WebhookTest(
        webhook_endpoint_id=row.endpoint,
        event_type=row.type,
        success=row.status_code is not None,
        status_code=row.status_code,
        error=row.error,
        delivery=row.id,
    )


def _message(row: tables.WebhookDelivery) -> dict[str, Any]:
    is_pending = row.state == DeliveryState.PENDING
    return {
        "id": row.id,
        "webhook_endpoint_id": row.endpoint,
        "event_type": row.type,
        "job": row.job,
        "status": row.state,
        "attempts": row.attempts,
        "next_attempt_at": int(row.next_at) if is_pending else None,
        "status_code": row.status_code,
        "error": row.error,
        "created_at": int(row.created_at),
        "finished_at": _seconds(row.finished_at),
    }


def _attempt(row: tables.WebhookAttempt) -> WebhookAttempt:
    return WebhookAttempt(
        number=row.number,
        started_at=int(row.started_at),
        duration_ms=round(1000 * row.duration_s),
        status_code=row.status_code,
        error=row.error,
        message=row.message,
        answer=row.answer,
    )


def _seconds(instant: float | None) -> int | None:
    return int(instant) if instant is not None else None
