"""One engine a process, two kinds of transaction, and the database's own clock."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Float, Select, create_engine, event
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


@dataclass(frozen=True)
class _Prepared:
    """A statement in the words of its driver, with the values that are always the same."""

    sql: str
    fixed: Mapping[str, Any]
    #: The names in their places, for a driver that counts instead of naming.
    places: list[str] | None

    def arguments(self, values: Mapping[str, Any]) -> Any:
        named = {**self.fixed, **values}
        return named if self.places is None else [named[name] for name in self.places]


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
        self.engine = _sqlite(url, longest_s) if self.sqlite else _postgresql(url, timeout_s, longest_s, pool)
        self._session = sessionmaker(self.engine, expire_on_commit=False)
        self._prepared: dict[Any, _Prepared] = {}
        self._driver_error: Any = self.engine.dialect.loaded_dbapi.Error
        self._alone = self.engine.execution_options(
            **({"alone": True} if self.sqlite else {"isolation_level": "AUTOCOMMIT"})
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with self._session() as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._session() as session:
            session.connection(execution_options={"reading": True})
            yield session

    def one(self, statement: Select[*tuple[Any, ...]], values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The one row of a single statement as the driver gives it, without a transaction around it.

        It skips all that SQLAlchemy does for each run of a statement, which takes several times as long as the run.
        """
        with self._alone.connect() as connection:
            prepared = self._prepared.get(statement) or self._prepare(statement)
            try:
                driver: Any = connection.connection.dbapi_connection
                row: tuple[Any, ...] | None = driver.execute(
                    prepared.sql, prepared.arguments(values)
                ).fetchone()
                return row
            except self._driver_error:
                # Once more by SQLAlchemy, which knows what an error means and what becomes of its connection.
                return connection.execute(statement, values).one_or_none()

    def _prepare(self, statement: Select[*tuple[Any, ...]]) -> "_Prepared":
        compiled: Any = statement.compile(self.engine)
        self._prepared[statement] = prepared = _Prepared(str(compiled), compiled.params, compiled.positiontup)
        return prepared

    def close(self) -> None:
        self.engine.dispose()


def _sqlite(url: str, longest_s: float) -> Engine:
    engine = create_engine(url, connect_args={"timeout": longest_s, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
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
