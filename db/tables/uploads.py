"""Uploads in parts, until a file comes of them."""

from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.session import now
from db.tables.base import Big, Document, Instant, Table, words
from domain.uploads import UploadStatus


class Upload(Table):
    __tablename__ = "uploads"
    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key"),
        words("status", UploadStatus),
        # The sum of what is promised to a tenant's uploads; and what upkeep looks for.
        Index("ix_uploads_tenant", "tenant", "status"),
        Index("ix_uploads_expires_at", "status", "expires_at"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    filename: Mapped[str] = mapped_column(String(1024))
    purpose: Mapped[str] = mapped_column(String(64))
    mime_type: Mapped[str] = mapped_column(String(255))
    #: As many as the whole will have, so said its sender.
    bytes: Mapped[int] = mapped_column(Big)
    schema: Mapped[Any | None] = mapped_column(Document)
    status: Mapped[str] = mapped_column(String(16), default="pending", server_default="pending")
    #: What has arrived, parts counted that were sent twice.
    received: Mapped[int] = mapped_column(Big, default=0, server_default="0")
    parts: Mapped[int] = mapped_column(default=0, server_default="0")
    #: Seconds that the file shall live, if not for good.
    file_life_s: Mapped[int | None]
    #: Under which id a request joins the parts into a file just now, and until when it is believed to be alive.
    joining: Mapped[str | None] = mapped_column(String(64))
    joining_until: Mapped[float | None] = mapped_column(Instant)
    #: The file that came of it, and the hash of what was asked for then.
    file: Mapped[str | None] = mapped_column(ForeignKey("files.id", ondelete="SET NULL"), index=True)
    completed_as: Mapped[str | None] = mapped_column(String(64))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_hash: Mapped[str | None] = mapped_column(String(64))
    completion_key: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
    expires_at: Mapped[float] = mapped_column(Instant)


class UploadPart(Table):
    """One part that arrived. Its bytes are a blob that belongs to the upload; row and bytes go when that is over."""

    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    upload: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    bytes: Mapped[int] = mapped_column(Big)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
