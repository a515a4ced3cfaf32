"""Limits, keys and audit"""

import sqlalchemy as sa
from alembic import op

from db.session import now

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Keys of before keep the scopes that they have: no migration hands out the power over keys.
    for name in ("requests_per_minute", "request_burst"):
        op.add_column("quota", sa.Column(name, sa.Integer(), server_default="0", nullable=False))
    op.add_column("api_keys", sa.Column("last_used_at", sa.Float(precision=53), nullable=True))
    op.add_column("api_keys", sa.Column("successor", sa.String(length=64), nullable=True))
    op.create_table(
        "audit",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=100), nullable=False),
        sa.Column("object_id", sa.String(length=500), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), server_default=now(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_audit_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_list", "audit", ["tenant", "created_at", "id"], unique=False)
