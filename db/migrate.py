"""Brings a database to the newest schema. The only module that imports alembic."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from db.postgresql import Impatient
from db.session import Database

#: Any number, the same in every process: two that migrate at once wait for one another.
_LOCK = 7_411_001


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return made


def upgrade(database: Database) -> str | None:
    """Runs what is missing, in one transaction; returns the revision that the database now has."""
    with _without_cascades(database) as connection, connection.begin():
        if not database.sqlite:
            _take_time(connection)
            connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": _LOCK})
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, "head")
        return MigrationContext.configure(connection).get_current_revision()


def _take_time(connection: Connection) -> None:
    """A change of a large table takes as long as it takes; so the connection must not go back into the pool."""
    raw = connection.connection.driver_connection
    if isinstance(raw, Impatient):
        raw.patience_s = None
        connection.detach()
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL lock_timeout = 0"))


@contextmanager
def _without_cascades(database: Database) -> Iterator[Connection]:
    """SQLite changes a table by building it anew; with foreign keys on, dropping the old one would delete
    every row that refers to it. The setting holds for transactions that begin after it."""
    with database.engine.connect() as connection:
        raw = connection.connection.driver_connection
        if database.sqlite and raw is not None:
            raw.execute("PRAGMA foreign_keys=OFF")
        try:
            yield connection
        finally:
            if database.sqlite and raw is not None:
                raw.execute("PRAGMA foreign_keys=ON")
