"""Writers of SQLite, one after the other; those who stand in line are committed together.

SQLite has one writer at a time, and each commit waits for the disk. So while several threads of a process want to
write, each writes inside a savepoint of one transaction, hands it on and waits: the last one commits for all.
Nobody is told that his change is stored before the disk has it, and one who fails takes back his own alone.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

#: No more than so many are committed together.
MOST = 32
#: A transaction that was left to one who then gave up is finished by those who wait for it.
_RESCUE_S = 0.2


class _Shared:
    """A transaction in which several threads write, one after the other."""

    def __init__(self, engine: Engine) -> None:
        self.connection = engine.connect()
        try:
            self._transaction = self.connection.begin()
        except BaseException:
            self.connection.close()
            raise
        self.members = 0
        self.over = threading.Event()
        self.error: Exception | None = None

    @contextmanager
    def savepoint(self) -> Iterator[Any]:
        """The driver's connection; what is written in the block is taken back alone if it fails."""
        driver: Any = self.connection.connection.dbapi_connection
        driver.execute("SAVEPOINT one")
        try:
            yield driver
            driver.execute("RELEASE one")
        except BaseException:
            if driver.in_transaction:
                self._take_back(driver)
            raise

    def _take_back(self, driver: Any) -> None:
        try:
            driver.execute("ROLLBACK TO one")
            driver.execute("RELEASE one")
        except Exception as error:
            # A part of it may still be there: nobody of this transaction is told that anything is stored.
            self.error = error

    def look(self) -> None:
        """After some errors, as of a full disk, SQLite has taken everything back."""
        driver: Any = self.connection.connection.dbapi_connection
        if not driver.in_transaction:
            self.error = RuntimeError("what others wrote in the same transaction was lost with it")

    def finish(self) -> None:
        """Commits for all; what goes wrong here is everybody's error."""
        try:
            if self.error is None:
                self._transaction.commit()
        except Exception as error:
            self.error = error
        finally:
            self._put_away()
            self.over.set()

    def _put_away(self) -> None:
        if self.error is not None:
            # Nobody knows what this connection is in the middle of.
            self.connection.invalidate()
        self.connection.close()


class Together:
    """The line of one process's writers."""

    def __init__(self, engine: Engine, sessions: "sessionmaker[Session]", longest_s: float) -> None:
        self._engine, self._sessions, self._longest_s = engine, sessions, longest_s
        self._turn, self._count = threading.Lock(), threading.Lock()
        #: How many stand in line.
        self.standing = 0
        self._shared: _Shared | None = None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session to write in. What was written is stored when the block has been left."""
        with self._in_turn() as shared:
            bound: dict[str, Any] = {}
            if shared is not None:
                bound = {"bind": shared.connection, "join_transaction_mode": "create_savepoint"}
            with self._sessions(**bound) as session, session.begin():
                yield session

    @contextmanager
    def driving(self) -> Iterator[Any]:
        """The same with the driver's own connection, for what is written by the thousand."""
        with self._in_turn() as shared, shared.savepoint() if shared else self._alone() as driver:
            yield driver

    @contextmanager
    def _alone(self) -> Iterator[Any]:
        held = self._engine.raw_connection()
        try:
            driver: Any = held.dbapi_connection
            driver.execute("BEGIN IMMEDIATE")
            yield driver
            driver.execute("COMMIT")
        except BaseException:
            # A transaction that is still open is rolled back with it.
            held.invalidate()
            raise
        finally:
            held.close()

    @contextmanager
    def _in_turn(self) -> Iterator[_Shared | None]:
        """The turn of this thread, with the transaction that it writes in if that is not its own."""
        self._stand_in_line()
        shared = None
        try:
            shared = self._joined()
            yield shared
        finally:
            try:
                if shared is not None:
                    self._hand_on(shared)
            finally:
                self._turn.release()
        if shared is not None:
            self._await(shared)

    def _stand_in_line(self) -> None:
        with self._count:
            self.standing += 1
        has_turn = self._turn.acquire(timeout=self._longest_s)
        with self._count:
            self.standing -= 1
        if not has_turn:
            raise TimeoutError("another thread has been writing for too long")

    def _joined(self) -> _Shared | None:
        """The transaction of those before, or a new one for those behind; None for one who is alone."""
        if self._shared is None and self.standing:
            self._shared = _Shared(self._engine)
        if self._shared is not None:
            self._shared.members += 1
        return self._shared

    def _hand_on(self, shared: _Shared) -> None:
        shared.look()
        if shared.error is not None or shared.members >= MOST or not self.standing:
            self._finish(shared)

    def _finish(self, shared: _Shared) -> None:
        self._shared = None
        shared.finish()

    def _await(self, shared: _Shared) -> None:
        while not shared.over.wait(_RESCUE_S):
            if self._turn.acquire(blocking=False):
                try:
                    if self._shared is shared:
                        self._finish(shared)
                finally:
                    self._turn.release()
        if shared.error is not None:
            raise OperationalError("COMMIT", None, shared.error) from shared.error
