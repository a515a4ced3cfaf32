"""Webhook endpoints: who is told of jobs, and the log of what was sent to them.

What arrives is verified with `openai.OpenAI().webhooks.unwrap` or the package `standardwebhooks`; nothing here is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from plait import paging
from plait.transport import Transport

_PATH = "/webhook_endpoints"


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    id: str
    url: str
    name: str
    #: `["*"]` stands for all.
    event_types: list[str]
    #: enabled or disabled
    status: str
    #: Why the server, or its owner, disabled it.
    disabled_reason: str | None
    created_at: int | None
    #: Where it was just made or rotated; the server shows it once.
    secret: str | None = field(repr=False)
    #: The server's whole answer.
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "WebhookEndpoint":
        return cls(
            id=raw["id"],
            url=raw.get("url") or "",
            name=raw.get("name") or "",
            event_types=raw.get("event_types") or [],
            status=raw.get("status") or "enabled",
            disabled_reason=raw.get("disabled_reason"),
            created_at=raw.get("created_at"),
            secret=raw.get("signing_secret"),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """A message to an endpoint; its id is the header `webhook-id` of each try."""

    id: str
    event_type: str
    #: The job that it tells of; None for a test.
    job: str | None
    #: pending, delivered or failed
    status: str
    attempts: int
    next_attempt_at: int | None
    #: Of the last try.
    status_code: int | None
    error: str | None
    created_at: int | None
    #: Each try, where one message was asked for.
    tries: list[dict[str, Any]] = field(repr=False)
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "WebhookDelivery":
        return cls(
            id=raw["id"],
            event_type=raw.get("event_type") or "",
            job=raw.get("job"),
            status=raw.get("status") or "",
            attempts=raw.get("attempts") or 0,
            next_attempt_at=raw.get("next_attempt_at"),
            status_code=raw.get("status_code"),
            error=raw.get("error"),
            created_at=raw.get("created_at"),
            tries=raw.get("tries") or [],
            raw=raw,
        )


class Webhooks:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        url: str,
        event_types: Sequence[str] = ("*",),
        *,
        name: str = "",
        idempotency_key: str | None = None,
    ) -> WebhookEndpoint:
        """A new endpoint, with its secret."""
        body = {"url": url, "event_types": list(event_types), "name": name}
        return WebhookEndpoint.of(self._transport.post(_PATH, body, idempotency_key=idempotency_key))

    def list(self, *, limit: int | None = None) -> Iterator[WebhookEndpoint]:
        """Newest first."""
        return map(WebhookEndpoint.of, paging.walk(self._transport, _PATH, limit=limit))

    def get(self, endpoint_id: str) -> WebhookEndpoint:
        return WebhookEndpoint.of(self._transport.get(_one(endpoint_id)))

    def update(self, endpoint_id: str, **changes: Any) -> WebhookEndpoint:
        """Changes what is given: url, event_types, name, enabled."""
        return WebhookEndpoint.of(self._transport.post(_one(endpoint_id), changes))

    def delete(self, endpoint_id: str) -> None:
        self._transport.delete(_one(endpoint_id))

    def rotate(self, endpoint_id: str, *, keep_old: bool = True) -> WebhookEndpoint:
        """A new secret; with `keep_old`, messages are signed with the old one as well for 24 hours."""
        body = {"keep_old_secret_active_for_24_hours": keep_old}
        return WebhookEndpoint.of(self._transport.post(f"{_one(endpoint_id)}/rotate_secret", body))

    def test(self, endpoint_id: str, event_type: str | None = None) -> dict[str, Any]:
        """Sends a message that tells of nothing: {success, status_code, error, delivery, ...}."""
        body = {"event_type": event_type} if event_type else {}
        return self._transport.post(f"{_one(endpoint_id)}/test", body)

    def deliveries(
        self, endpoint_id: str, *, status: str | None = None, limit: int | None = None
    ) -> Iterator[WebhookDelivery]:
        """Newest first; `status` is pending, delivered or failed."""
        params = {"status": status} if status else None
        pages = paging.walk(self._transport, f"{_one(endpoint_id)}/deliveries", limit=limit, params=params)
        return map(WebhookDelivery.of, pages)

    def delivery(self, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
        """One message with its payload and each try."""
        return WebhookDelivery.of(self._transport.get(_sent(endpoint_id, delivery_id)))

    def redeliver(self, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
        """Sends a message again, at once and under the same id."""
        return WebhookDelivery.of(self._transport.post(f"{_sent(endpoint_id, delivery_id)}/redeliver"))


def _one(endpoint_id: str) -> str:
    return paging.one(_PATH, endpoint_id)


def _sent(endpoint_id: str, delivery_id: str) -> str:
    return paging.one(f"{_one(endpoint_id)}/deliveries", delivery_id)
