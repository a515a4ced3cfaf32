"""The job's row and all that hangs on it."""

from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text, true
from sqlalchemy.orm import Mapped, mapped_column

from db.session import now
from db.tables.base import Big, Document, Instant, Table, words
from domain.job import Kind, Lane, Stage, State, Want


class Job(Table):
    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key"),
        words("state", State),
        words("stage", Stage),
        words("lane", Lane),
        words("want", Want),
        words("kind", Kind),
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
        Index(
            "ix_jobs_finished",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"),
            postgresql_where=text("finished_at IS NOT NULL"),
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
    #: Its bytes are kept: a job may go on from it. They go after this turned false, never before.
    available: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())


class JobStart(Table):
    """The checkpoint of another job that a job starts from. Its bytes stay until the job is final."""

    __tablename__ = "job_starts"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), index=True)


class Model(Table):
    """A finished model: what `fine_tuned_model` names."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    family: Mapped[str] = mapped_column(String(64))
    ref: Mapped[str] = mapped_column(String(300))
    created_at: Mapped[float] = mapped_column(Instant, server_default=now())
    deleted_at: Mapped[float | None] = mapped_column(Instant)
