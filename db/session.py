"""One engine a process, two kinds of transaction, and the database's own clock."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, Float, create_engine, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.functions import FunctionElement

log = logging.getLogger(__name__)


class now(FunctionElement[float]):
    """Seconds since 1970 by the database's clock. No worker's clock decides anything."""

    type = Float(53)
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(*_: Any, **__: Any) -> str:
    return "cast(extract(epoch from clock_timestamp()) as double precision)"


class Database:
    """The process's engine. `transaction()` writes, `reading()` only reads.

    On SQLite a writing transaction takes the write lock at its start (BEGIN IMMEDIATE), so that it
    never fails half-way for having read first; keep it short and never wait inside.
    """

    def __init__(self, url: str, *, timeout_s: float = 3.0, pool: int = 10) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self.engine = _sqlite(url) if self.sqlite else _postgresql(url, timeout_s, pool)
        self._session = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with self._session() as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._session() as session:
            session.connection(execution_options={"reading": True})
            yield session

    def close(self) -> None:
        self.engine.dispose()


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": 10, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str, timeout_s: float, pool: int) -> Engine:
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.split("://", 1)[1]
    milliseconds = int(timeout_s * 1000)
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=pool,
        pool_timeout=timeout_s,
        connect_args={
            "connect_timeout": max(1, int(timeout_s)),
            "tcp_user_timeout": milliseconds,
            "options": f"-c statement_timeout={milliseconds * 5} -c lock_timeout={milliseconds * 3}",
        },
    )
