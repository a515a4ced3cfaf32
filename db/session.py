"""One engine a process, two kinds of transaction, and the database's own clock."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, Engine, Float, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.functions import FunctionElement

from db.prepared import Prepared
from db.together import Together

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

    def __init__(
        self, url: str, *, timeout_s: float = 3.0, longest_s: float | None = None, pool: int = 10
    ) -> None:
        """Connects within `timeout_s`; a statement may take `longest_s` (five times that, if not said), also
        for a lock that another holds."""
        longest_s = longest_s or timeout_s * 5
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self.engine = (
            _sqlite(url, longest_s, pool) if self.sqlite else _postgresql(url, timeout_s, longest_s, pool)
        )
        self._session = sessionmaker(self.engine, expire_on_commit=False)
        self._together = Together(self.engine, self._session, longest_s) if self.sqlite else None
        self._driver_error: Any = self.engine.dialect.loaded_dbapi.Error
        self._alone = self.engine.execution_options(
            **({"alone": True} if self.sqlite else {"isolation_level": "AUTOCOMMIT"})
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        if self._together is not None:
            with self._together.transaction() as session:
                yield session
        else:
            with self._session() as session, session.begin():
                yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._session() as session:
            session.connection(execution_options={"reading": True})
            yield session

    def one(self, prepared: Prepared, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The one row of a single statement as the driver gives it, without a transaction around it."""
        words = prepared.on(self.engine.dialect)
        try:
            with self._autocommitting() as driver:
                row: tuple[Any, ...] | None = driver.execute(words.sql, words.arguments(values)).fetchone()
                return row
        except self._driver_error:
            # Once more by SQLAlchemy, which knows what an error means and what becomes of its connection.
            with self._alone.connect() as connection:
                found = connection.exec_driver_sql(words.sql, words.arguments(values)).one_or_none()
            return tuple(found) if found is not None else None

    def write_one(self, prepared: Prepared, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The same for a statement that writes, on PostgreSQL: it is a transaction of its own, and never run twice."""
        words = prepared.on(self.engine.dialect)
        try:
            with self._autocommitting() as driver:
                row: tuple[Any, ...] | None = driver.execute(words.sql, words.arguments(values)).fetchone()
                return row
        except self._driver_error as error:
            raise DBAPIError.instance(
                words.sql, None, error, self._driver_error, dialect=self.engine.dialect
            ) from error

    @contextmanager
    def _autocommitting(self) -> Iterator[Any]:
        """The driver's connection, outside of any transaction. One that saw an error is not used again."""
        held = self.engine.raw_connection()
        driver: Any = held.dbapi_connection
        try:
            if not self.sqlite:
                driver.autocommit = True
            yield driver
            if not self.sqlite:
                driver.autocommit = False
        except BaseException:
            held.invalidate()
            raise
        finally:
            held.close()

    @contextmanager
    def driving(self) -> Iterator["Driver"]:
        """A writing transaction on SQLite without a session."""
        assert self._together is not None
        try:
            with self._together.driving() as driver:
                yield Driver(driver, self.engine.dialect)
        except self._driver_error as error:
            raise DBAPIError.instance(
                None, None, error, self._driver_error, dialect=self.engine.dialect
            ) from error

    def close(self) -> None:
        self.engine.dispose()


@dataclass(frozen=True)
class Driver:
    """The driver's own connection, which is given prepared statements."""

    connection: Any
    dialect: Dialect

    def run(self, prepared: Prepared, values: Mapping[str, Any]) -> Any:
        """Its cursor."""
        words = prepared.on(self.dialect)
        return self.connection.execute(words.sql, words.arguments(values))


def _sqlite(url: str, longest_s: float, pool: int) -> Engine:
    arguments = {"timeout": longest_s, "check_same_thread": False}
    engine = create_engine(url, pool_size=pool, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        # A checkpoint writes pages into place and waits for the disk twice; seldom, it finds each page changed often.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=8000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        options = connection.get_execution_options()
        if not options.get("alone"):
            connection.exec_driver_sql("BEGIN" if options.get("reading") else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str, timeout_s: float, longest_s: float, pool: int) -> Engine:
    # Loading psycopg takes as long as starting the rest of a process that only needs SQLite.
    from db.postgresql import postgresql

    return postgresql(url, timeout_s=timeout_s, longest_s=longest_s, pool=pool)
