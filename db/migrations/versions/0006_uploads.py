"""Uploads in parts, and files that expire"""

import sqlalchemy as sa
from alembic import op

from db.session import now
from db.tables.base import Document

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INSTANT = sa.Float(precision=53)


def upgrade() -> None:
    op.add_column("files", sa.Column("expires_at", INSTANT, nullable=True))
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("filename", sa.String(length=1024), nullable=False),
        sa.Column("purpose", sa.String(length=64), nullable=False),
        sa.Column("mime_type", sa.String(length=255), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("schema", Document, nullable=True),
        sa.Column("status", sa.String(length=16), server_default="pending", nullable=False),
        sa.Column("received", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("parts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("file_life_s", sa.Integer(), nullable=True),
        sa.Column("joining", sa.String(length=64), nullable=True),
        sa.Column("joining_until", INSTANT, nullable=True),
        sa.Column("file", sa.String(length=64), nullable=True),
        sa.Column("completed_as", sa.String(length=64), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("body_hash", sa.String(length=64), nullable=True),
        sa.Column("completion_key", sa.String(length=255), nullable=True),
        sa.Column("created_at", INSTANT, server_default=now(), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'completed', 'cancelled', 'expired')", name=op.f("ck_uploads_status")
        ),
        sa.ForeignKeyConstraint(["file"], ["files.id"], name=op.f("fk_uploads_file"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_uploads_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("tenant", "idempotency_key", name=op.f("uq_uploads_tenant_idempotency_key")),
    )
    op.create_index("ix_uploads_tenant", "uploads", ["tenant", "status"])
    op.create_index("ix_uploads_expires_at", "uploads", ["status", "expires_at"])
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("upload", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", INSTANT, server_default=now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload"], ["uploads.id"], name=op.f("fk_upload_parts_upload"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_parts")),
    )
    op.create_index(op.f("ix_upload_parts_upload"), "upload_parts", ["upload"])
