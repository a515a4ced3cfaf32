"""Jobs of two more kinds: checks of a file and predictions"""

from alembic import op

from db.migrations.rebuild import rebuild

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BEFORE, AFTER = "kind IN ('fine_tune')", "kind IN ('fine_tune', 'check', 'predict')"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        rebuild("jobs", lambda created: created.replace(BEFORE, AFTER))
    else:
        op.drop_constraint("kind", "jobs", type_="check")
        op.create_check_constraint("kind", "jobs", AFTER)
