"""PostgreSQL, asked with patience that ends: no thread waits for ever for a server that is silent.

TCP notices a dead peer after minutes, and a frozen server not at all. So each wait has an end of its own, and while
a server is silent one caller at a time tries it again; the others are told at once.
"""

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

#: After a server was silent, nobody asks it again for this long.
SILENT_S = 0.5


class Impatient(psycopg.Connection[Any]):
    """A connection that gives up: whatever takes longer than `patience_s` ends it, for its state is unknown."""

    #: When it was made, by `time.monotonic`.
    made_at = 0.0

    #: Seconds for one answer; None waits for ever (a migration may take its time).
    patience_s: float | None = None
    #: Hears of a server that was silent for so long.
    gave_up: Callable[[], object] = staticmethod(lambda: None)

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's own. Raises OperationalError when there is no answer in time; the connection is then closed."""
        if timeout is not None or self.patience_s is None:
            return super().wait(gen, interval, timeout)
        until = time.monotonic() + self.patience_s
        try:
            return super().wait(gen, interval, self.patience_s)
        except psycopg.OperationalError as error:
            if self.closed or time.monotonic() < until:
                raise
            self.pgconn.finish()
            self.gave_up()
            message = f"the server gave no answer within {self.patience_s:g} s"
            raise psycopg.OperationalError(message) from error


class Silence:
    """Whether the server was silent lately. One thread at a time finds out whether it still is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        #: When the server was last found silent, by `time.monotonic`.
        self.last_at = 0.0
        self._probing = False
        self._silent = False

    @contextmanager
    def probe(self) -> Iterator[None]:
        """For one try to connect. Raises OperationalError at once where another try would only cost time."""
        is_mine, began = self._take(), time.monotonic()
        try:
            yield
            self._silent = False
        except psycopg.OperationalError:
            # A server that is down refuses at once, and may be asked as often as one likes.
            if time.monotonic() - began > SILENT_S:
                self.note()
            raise
        finally:
            if is_mine:
                self._probing = False

    def _take(self) -> bool:
        with self._lock:
            if not self._silent:
                return False
            if self._probing or time.monotonic() < self._until:
                raise psycopg.OperationalError("the server does not answer; it is asked again soon")
            self._probing = True
            return True

    def note(self) -> None:
        """The server did not answer."""
        self.last_at = time.monotonic()
        self._silent, self._until = True, self.last_at + SILENT_S


def postgresql(url: str, *, timeout_s: float, longest_s: float, pool: int) -> Engine:
    """An engine whose connections are made within `timeout_s`, and whose statements end within `longest_s`."""
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.split("://", 1)[1]
    # The server is asked to give up first: its own refusal leaves the connection usable.
    limits = {
        "statement_timeout": int(longest_s * 900),
        "lock_timeout": int(longest_s * 800),
        # A process that freezes within a transaction would keep its locks, and nobody could take its job over.
        "idle_in_transaction_session_timeout": int(longest_s * 1000),
    }
    engine = create_engine(
        url,
        pool_size=pool,
        pool_timeout=timeout_s,
        connect_args={
            "tcp_user_timeout": int(timeout_s * 1000),
            "options": " ".join(f"-c {name}={milliseconds}" for name, milliseconds in limits.items()),
        },
    )
    silence = Silence()

    @event.listens_for(engine, "checkout")
    def _checkout(connection: Any, _record: Any, _proxy: Any) -> None:
        # What is older than a silence would be silent too, one patience after the other: all are made anew.
        if connection.made_at < silence.last_at or _is_dead(connection):
            raise InvalidatePoolError

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> Impatient:
        began = time.monotonic()
        with silence.probe():
            # libpq knows whole seconds only, and at least two of them.
            connection = Impatient.connect(*arguments, **options, connect_timeout=max(2, int(timeout_s)))
        connection.patience_s, connection.gave_up, connection.made_at = longest_s, silence.note, began
        return connection

    return engine


def _is_dead(connection: Any) -> bool:
    """Whether the server has closed it, as it does when it restarts.

    A server that closes says so first: an idle connection on which something has arrived is over. To see that
    costs a microsecond; to ask the server, as `pool_pre_ping` does, costs as much as a small query.
    """
    if connection.closed:
        return True
    arrived = select.poll()
    arrived.register(connection.fileno(), select.POLLIN)
    return bool(arrived.poll(0))
