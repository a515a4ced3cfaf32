"""The job protocol: nothing to change, its tables were there"""

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Databases that have this number are to keep it."""
