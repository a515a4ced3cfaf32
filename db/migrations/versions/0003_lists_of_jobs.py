"""Lists of jobs by status and metadata read an index; keys that may make models may delete them"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    columns = ["tenant", "kind", "state", "stage", "created_at", "id"]
    op.create_index("ix_jobs_status", "jobs", columns, unique=False)
    op.create_index(
        "ix_jobs_ahead",
        "jobs",
        ["lane", "priority", "available_at"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "job_labels",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_labels_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "name", name=op.f("pk_job_labels")),
    )
    op.create_index(
        "ix_job_labels_find", "job_labels", ["tenant", "name", "value", "created_at", "job"], unique=False
    )
    _copy_metadata()
    _let_models_be_deleted()


def _copy_metadata() -> None:
    # A job without metadata holds SQL's NULL or JSON's.
    sqlite = op.get_bind().dialect.name == "sqlite"
    pairs, kind = ("json_each", "json_type") if sqlite else ("jsonb_each_text", "jsonb_typeof")
    op.execute(
        "INSERT INTO job_labels (job, name, value, tenant, created_at) "
        "SELECT jobs.id, pair.key, pair.value, jobs.tenant, jobs.created_at FROM jobs, "
        f"{pairs}(CASE WHEN {kind}(jobs.metadata) = 'object' THEN jobs.metadata ELSE '{{}}' END) AS pair"
    )


def _let_models_be_deleted() -> None:
    """Who may submit jobs makes models; until now nobody could delete one."""
    connection = op.get_bind()
    for key in connection.execute(sa.text("SELECT id, scopes FROM api_keys")).all():
        scopes = json.loads(key.scopes) if isinstance(key.scopes, str) else key.scopes
        if "jobs:write" in scopes:
            wider = json.dumps(sorted({*scopes, "models:write"}))
            change = "UPDATE api_keys SET scopes = :s WHERE id = :i"
            if connection.dialect.name == "postgresql":
                change = change.replace(":s", "CAST(:s AS JSONB)")
            connection.execute(sa.text(change), {"s": wider, "i": key.id})
