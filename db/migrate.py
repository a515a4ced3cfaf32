"""Brings a database to the newest schema. The only module that imports alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from db.session import Database

#: Any number, the same in every process: two that migrate at once wait for one another.
_LOCK = 7_411_001


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return made


def upgrade(database: Database) -> str | None:
    """Runs what is missing, in one transaction; returns the revision that the database now has."""
    with database.engine.begin() as connection:
        if not database.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": _LOCK})
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, "head")
        return MigrationContext.configure(connection).get_current_revision()
