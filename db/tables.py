"""The tables. Times are seconds since 1970 by the database's clock; ids are made in `domain.ids`."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Float,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.session import now
from domain.job import Kind, Lane, Stage, State, Want

Document = JSON().with_variant(JSONB(), "postgresql")
Big = BigInteger()
Instant = Float(53)


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _words(column: str, words: Any) -> CheckConstraint:
    listed = ", ".join(f"'{w}'" for w in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


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


class File(Table):
    __tablename__ = "files"
    __table_args__ = (UniqueConstraint("tenant", "idempotency_key"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    filename: Mapped[str] = mapped_column(String(1024))
    purpose: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(Big)
    sha256: Mapped[str] = mapped_column(String(64))
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
    deleted_at: Mapped[float | None] = mapped_column(Instant)


class Job(Table):
    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key"),
        _words("state", State),
        _words("stage", Stage),
        _words("lane", Lane),
        _words("want", Want),
        _words("kind", Kind),
        Index(
            "ix_jobs_ready",
            "lane",
            "tenant",
            text("priority DESC"),
            "available_at",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_jobs_lease",
            "lease_until",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_jobs_list", "tenant", "kind", "created_at", "id"),
        Index("ix_jobs_status", "tenant", "kind", "state", "stage", "created_at", "id"),
        Index(
            "ix_jobs_ahead",
            "lane",
            "priority",
            "available_at",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str] = mapped_column(String(16))
    lane: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(String(16), default=State.QUEUED)
    want: Mapped[str] = mapped_column(String(16), default=Want.RUN)
    #: Goes up at each claim and each reap; every write of a worker carries the one it was given.
    fence: Mapped[int] = mapped_column(Big, default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    deaths: Mapped[int] = mapped_column(default=0)
    max_deaths: Mapped[int]
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[float | None] = mapped_column(Instant)
    available_at: Mapped[float] = mapped_column(Instant, server_default=now())
    event_seq: Mapped[int] = mapped_column(Big, default=0)
    #: Folders of published bytes, relative to the artifact store.
    checkpoint_ref: Mapped[str | None] = mapped_column(String(300))
    result_ref: Mapped[str | None] = mapped_column(String(300))
    #: The request as it was understood; `resolved` is what the check made of it.
    spec: Mapped[Any] = mapped_column(Document)
    resolved: Mapped[Any | None] = mapped_column(Document)
    progress: Mapped[Any | None] = mapped_column(Document)
    result: Mapped[Any | None] = mapped_column(Document)
    error: Mapped[Any | None] = mapped_column(Document)
    labels: Mapped[Any | None] = mapped_column("metadata", Document)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_hash: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
    started_at: Mapped[float | None] = mapped_column(Instant)
    finished_at: Mapped[float | None] = mapped_column(Instant)


class JobLabel(Table):
    """One pair of a job's metadata, as it is searched for: the newest jobs that carry it are neighbours here."""

    __tablename__ = "job_labels"
    __table_args__ = (Index("ix_job_labels_find", "tenant", "name", "value", "created_at", "job"),)

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))
    #: The job's own.
    tenant: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant)


class Event(Table):
    """A job's history. Numbers are gap-free per job: they are taken under the job's row lock."""

    __tablename__ = "events"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(Big, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    level: Mapped[str] = mapped_column(String(8), default="info")
    type: Mapped[str] = mapped_column(String(16), default="message")
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[Any] = mapped_column(Document, default=dict)
    fence: Mapped[int] = mapped_column(Big)
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())


class Metric(Table):
    """One number at one step. A step that is run again after a crash overwrites its own."""

    __tablename__ = "metrics"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    step: Mapped[int] = mapped_column(Big, primary_key=True)
    value: Mapped[float] = mapped_column(Instant)
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())


class Checkpoint(Table):
    """A checkpoint that its worker published while it held the job."""

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    fence: Mapped[int] = mapped_column(Big)
    step: Mapped[int] = mapped_column(Big)
    ref: Mapped[str] = mapped_column(String(300))
    metrics: Mapped[Any] = mapped_column(Document)
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())


class Model(Table):
    """A finished model: what `fine_tuned_model` names."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    family: Mapped[str] = mapped_column(String(64))
    ref: Mapped[str] = mapped_column(String(300))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
    deleted_at: Mapped[float | None] = mapped_column(Instant)


class ResultFile(Table):
    """Which files a job published, in order."""

    __tablename__ = "result_files"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    file: Mapped[str] = mapped_column(ForeignKey("files.id"), primary_key=True)
    position: Mapped[int] = mapped_column(default=0)
