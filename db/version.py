"""Which schema this code needs, told without alembic so that the web process stays small."""

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from db.session import Database

#: The newest revision in `db/migrations/versions` (a test compares).
SCHEMA = "0012"


def is_current(database: Database) -> bool:
    """Whether the database has exactly this code's schema."""
    try:
        with database.reading() as session:
            return session.scalar(text("SELECT version_num FROM alembic_version")) == SCHEMA
    except DatabaseError:
        return False
