"""Blobs that several files share, and a list of the files that unfinished jobs read"""

import sqlalchemy as sa
from alembic import op

from db.readers import named_by
from db.tables.base import Document

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

#: Specs in memory at once: one of a prediction may hold megabytes.
_AT_ONCE = 50


def upgrade() -> None:
    op.create_index("ix_files_bytes", "files", ["tenant", "sha256"])
    op.create_index("ix_files_blob", "files", ["blob"])
    op.create_table(
        "job_files",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("file", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_files_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "file", name=op.f("pk_job_files")),
    )
    op.create_index(op.f("ix_job_files_file"), "job_files", ["file"])
    _list_the_files_of_unfinished_jobs()


def _list_the_files_of_unfinished_jobs() -> None:
    jobs = sa.table("jobs", sa.column("id"), sa.column("state"), sa.column("spec", Document))
    job_files = sa.table("job_files", sa.column("job"), sa.column("file"))
    unfinished = jobs.c.state.not_in(("succeeded", "failed", "cancelled"))
    connection = op.get_bind()
    ids = connection.scalars(sa.select(jobs.c.id).where(unfinished)).all()
    for first in range(0, len(ids), _AT_ONCE):
        some = jobs.c.id.in_(ids[first : first + _AT_ONCE])
        found = connection.execute(sa.select(jobs.c.id, jobs.c.spec).where(some)).all()
        rows = [{"job": id_, "file": file} for id_, spec in found for file in named_by(spec)]
        if rows:
            connection.execute(sa.insert(job_files), rows)
