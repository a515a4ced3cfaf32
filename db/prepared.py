"""Statements that are built once and run by the thousand: what is asked at every submit, move and look.

SQLAlchemy builds, hashes and looks up a statement each time it runs, which takes ten times as long as SQLite takes
to run it. Here the driver is given the words that were compiled at the first run; values are those of the driver,
so a document is given as JSON text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Dialect, literal_column
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import Executable


def literal(word: str) -> ColumnElement[str]:
    """A word of ours, written out: of a bound value no planner knows whether a partial index serves.

    SQLite then plans the statement anew at each run, and PostgreSQL, once it keeps a plan, reads the table.
    """
    written: ColumnElement[str] = literal_column(f"'{word}'")
    return written


@dataclass(frozen=True)
class Words:
    """A statement in the words of one driver, with the values that are always the same."""

    sql: str
    fixed: Mapping[str, Any]
    #: The names in their places, for a driver that counts instead of naming.
    places: Sequence[str] | None

    def arguments(self, values: Mapping[str, Any]) -> Any:
        named = {**self.fixed, **values}
        return named if self.places is None else tuple(named[name] for name in self.places)


class Prepared:
    """A statement with `bindparam`s; of an INSERT, the `columns` that are given."""

    def __init__(self, statement: Executable, columns: Sequence[str] | None = None) -> None:
        self.statement, self._columns = statement, columns
        self._words: dict[str, Words] = {}

    def on(self, dialect: Dialect) -> Words:
        return self._words.get(dialect.name) or self._compile(dialect)

    def run(self, session: Session, **values: Any) -> CursorResult[Any]:
        """In the session's transaction. What waits in the session to be written is not written first."""
        connection = session.connection()
        words = self.on(connection.dialect)
        return connection.exec_driver_sql(words.sql, words.arguments(values))

    def drive(self, session: Session, **values: Any) -> Any:
        """The same, by the driver itself: its cursor. For what runs in every submit and every change."""
        connection = session.connection()
        words = self.on(connection.dialect)
        driver: Any = connection.connection.dbapi_connection
        try:
            return driver.execute(words.sql, words.arguments(values))
        except connection.dialect.loaded_dbapi.Error as error:
            raise told_by_driver(connection, words, error) from error

    def _compile(self, dialect: Dialect) -> Words:
        compiled: Any = self.statement.compile(dialect=dialect, column_keys=self._columns)  # type: ignore[attr-defined]
        if getattr(compiled, "insert_prefetch", ()):
            raise ValueError(f"{compiled.insert_prefetch} have defaults of Python's; give them")
        words = Words(str(compiled), compiled.params, compiled.positiontup)
        self._words[dialect.name] = words
        return words


def told_by_driver(connection: Connection, words: Words, error: Exception) -> BaseException:
    """The driver's error as SQLAlchemy's; a connection that was lost is given up."""
    dialect: Any = connection.dialect
    is_lost = dialect.is_disconnect(error, connection.connection, None)
    if is_lost:
        connection.invalidate(error)
    kind = dialect.loaded_dbapi.Error
    return DBAPIError.instance(words.sql, None, error, kind, dialect=dialect, connection_invalidated=is_lost)
