"""Files: what was uploaded, and what jobs made."""

from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.session import now
from db.tables.base import Big, Document, Instant, Table


class File(Table):
    __tablename__ = "files"
    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key"),
        Index("ix_files_bytes", "tenant", "sha256"),
        Index("ix_files_blob", "blob"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    filename: Mapped[str] = mapped_column(String(1024))
    purpose: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(Big)
    sha256: Mapped[str] = mapped_column(String(64))
    #: Files of one tenant that hold the same bytes may share a blob; it goes with the last of them.
    blob: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16), default="uploaded", server_default="uploaded")
    status_details: Mapped[str | None] = mapped_column(Text)
    schema: Mapped[Any | None] = mapped_column(Document)
    #: What the last check found: rows, columns and the number of issues.
    rows: Mapped[int | None]
    columns: Mapped[Any | None] = mapped_column(Document)
    issues: Mapped[Any | None] = mapped_column(Document)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_hash: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
    #: When upkeep deletes it, if its sender wanted that.
    expires_at: Mapped[float | None] = mapped_column(Instant)
    deleted_at: Mapped[float | None] = mapped_column(Instant)


class ResultFile(Table):
    """Which files a job published, in order."""

    __tablename__ = "result_files"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    file: Mapped[str] = mapped_column(ForeignKey("files.id"), primary_key=True, index=True)
    position: Mapped[int] = mapped_column(default=0)


class JobFile(Table):
    """A file that a job reads which is not over: until then it cannot be deleted."""

    __tablename__ = "job_files"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    file: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
