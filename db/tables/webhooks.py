"""Who is told of jobs, what was to be told, and each try to do so."""

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.session import now
from db.tables.base import Document, Instant, Table, words
from domain.targets import LONGEST_URL
from domain.webhooks import LONGEST_NAME, DeliveryState


class WebhookEndpoint(Table):
    """An address of a tenant's. Its secrets are kept as they are: a hash could sign nothing."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key"),
        Index(
            "ix_webhook_endpoints_live",
            "tenant",
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    url: Mapped[str] = mapped_column(String(LONGEST_URL))
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    event_types: Mapped[list[str]] = mapped_column(Document)
    secret: Mapped[str] = mapped_column(String(100))
    #: The secret before it, and until when it signs as well.
    old_secret: Mapped[str | None] = mapped_column(String(100))
    old_secret_until: Mapped[float | None] = mapped_column(Instant)
    disabled_at: Mapped[float | None] = mapped_column(Instant)
    disabled_reason: Mapped[str | None] = mapped_column(String(300))
    #: Since when every try has failed; none after one that did not.
    failing_since: Mapped[float | None] = mapped_column(Instant)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_hash: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
    updated_at: Mapped[float] = mapped_column(Instant, server_default=now())
    deleted_at: Mapped[float | None] = mapped_column(Instant)


class WebhookDelivery(Table):
    """One message to one endpoint. Its id is the `webhook-id` of every try."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        words("state", DeliveryState),
        Index(
            "ix_webhook_deliveries_due",
            "endpoint",
            "next_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_webhook_deliveries_list", "endpoint", "created_at", "id"),
        Index("ix_webhook_deliveries_finished_at", "finished_at"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    endpoint: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    tenant: Mapped[str] = mapped_column(String(64))
    type: Mapped[str] = mapped_column(String(64))
    #: The job that it tells of; that may be gone before the message is.
    job: Mapped[str | None] = mapped_column(String(64))
    #: The very text that is signed and sent, the same at every try.
    payload: Mapped[str] = mapped_column(Text)
    #: A test is tried once.
    is_test: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.PENDING)
    #: Goes up when a sender takes the message; what it then writes carries the number that it was given.
    attempts: Mapped[int] = mapped_column(default=0)
    #: Failures since the message was made or sent again: what the next wait is chosen by.
    failures: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float] = mapped_column(Instant, server_default=now())
    #: While a sender has it. Who falls silent loses it to the next.
    lease_until: Mapped[float | None] = mapped_column(Instant)
    #: No try is made after this.
    give_up_at: Mapped[float] = mapped_column(Instant)
    #: Of the last try.
    status_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
    finished_at: Mapped[float | None] = mapped_column(Instant)


class WebhookAttempt(Table):
    """One try: an answer's status, or the reason why there is none."""

    __tablename__ = "webhook_attempts"

    delivery: Mapped[str] = mapped_column(
        ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    status_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(String(300))
    #: The beginning of what the receiver answered.
    answer: Mapped[str] = mapped_column(Text)
    duration_s: Mapped[float] = mapped_column(Instant)
    started_at: Mapped[float] = mapped_column(Instant)
