"""Who names a file or a job is found by an index when that is deleted"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, column in (("result_files", "file"), ("uploads", "file"), ("models", "job")):
        op.create_index(f"ix_{table}_{column}", table, [column], unique=False)
