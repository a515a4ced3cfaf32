"""Tenants, their limits and their keys."""

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from db.session import now
from db.tables.base import Big, Document, Instant, Table


class Tenant(Table):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())


class Quota(Table):
    """A tenant's limits. Submits lock this row; a claim never touches it."""

    __tablename__ = "quota"

    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    weight: Mapped[int] = mapped_column(default=1, server_default="1")
    max_running: Mapped[int] = mapped_column(default=1_000, server_default="1000")
    max_queued: Mapped[int] = mapped_column(default=10_000, server_default="10000")
    max_bytes: Mapped[int] = mapped_column(Big, default=10**12, server_default=str(10**12))


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
