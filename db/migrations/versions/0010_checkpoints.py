"""Checkpoints tell whether their bytes are kept, and jobs may start from another job's"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    available = sa.Column("available", sa.Boolean(), nullable=False, server_default=sa.true())
    op.add_column("checkpoints", available)
    # Until now only what a job's own row names was sure to be kept.
    op.execute(
        "UPDATE checkpoints SET available = false WHERE NOT EXISTS "
        "(SELECT 1 FROM jobs WHERE jobs.id = checkpoints.job AND jobs.checkpoint_ref = checkpoints.ref)"
    )
    op.create_table(
        "job_starts",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("checkpoint", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_starts_job"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["checkpoint"], ["checkpoints.id"], name=op.f("fk_job_starts_checkpoint"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_job_starts")),
    )
    op.create_index("ix_job_starts_checkpoint", "job_starts", ["checkpoint"], unique=False)
