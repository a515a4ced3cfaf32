"""Tenants, their limits and their keys."""

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.session import now
from db.tables.base import Big, Document, Instant, Table


class Tenant(Table):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())


class Quota(Table):
    """A tenant's limits. Who adds to its files locks this row; a claim never touches it."""

    __tablename__ = "quota"

    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    weight: Mapped[int] = mapped_column(default=1, server_default="1")
    max_running: Mapped[int] = mapped_column(default=1_000, server_default="1000")
    max_queued: Mapped[int] = mapped_column(default=10_000, server_default="10000")
    max_bytes: Mapped[int] = mapped_column(Big, default=10**12, server_default=str(10**12))
    #: 0: as many as it likes.
    requests_per_minute: Mapped[int] = mapped_column(server_default="0")
    #: How many of them at once; 0: all of a minute's.
    request_burst: Mapped[int] = mapped_column(server_default="0")


class TenantLoad(Table):
    """How many jobs of a tenant run in a lane: what the fair claim orders by."""

    __tablename__ = "tenant_load"

    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    lane: Mapped[str] = mapped_column(String(16), primary_key=True)
    running: Mapped[int] = mapped_column(default=0, server_default="0")


class ApiKey(Table):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    #: SHA-256 of the key. The key itself is shown once and never stored.
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    last4: Mapped[str] = mapped_column(String(4))
    scopes: Mapped[list[str]] = mapped_column(Document)
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
    expires_at: Mapped[float | None] = mapped_column(Instant)
    revoked_at: Mapped[float | None] = mapped_column(Instant)
    #: Right to a minute: it is not written at every use.
    last_used_at: Mapped[float | None] = mapped_column(Instant)
    #: The key that took this one's place; this one lives on for the grace of its rotation.
    successor: Mapped[str | None] = mapped_column(String(64))


class Audit(Table):
    """One use of a key that changed something, written in the transaction of the change."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_list", "tenant", "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    key: Mapped[str] = mapped_column(String(64))
    #: The route's name, as in the OpenAPI document: `fine_tuning.create`.
    action: Mapped[str] = mapped_column(String(100))
    #: What was made or changed.
    object_id: Mapped[str | None] = mapped_column(String(500))
    request_id: Mapped[str] = mapped_column(String(128))
    address: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
