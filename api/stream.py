"""Server-sent events: a job's history as it is written, from any place in it to its end.

Every event is read from the database by its number, which is taken under the job's row lock: so none is left out
and none told twice, whoever commits meanwhile. A wake only says when to look; no session is held in between.
"""

import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.exc import DBAPIError, TimeoutError

from api import shapes
from api.waiting import Waiter, Waiting
from db import events, tables
from db.session import Database
from domain.errors import OverQuota

log = logging.getLogger(__name__)

#: Proxies cut a connection that is silent for a minute, some sooner.
HEARTBEAT_S = 15.0
#: A browser that lost the stream asks again after this long.
_RETRY_MS = 1000
#: A client without power, or one that reads nothing, holds its thread no longer than this.
_UNANSWERED_MS = 30_000
# No blank line follows a comment: OpenAI's client would take it for an event without data.
_OPENING, _HEARTBEAT = b": listening\n", b": heartbeat\n"


class Behind(Protocol):
    """The part of `api.services.Services` that a stream needs."""

    @property
    def database(self) -> Database: ...

    @property
    def wakes(self) -> Waiter: ...

    @property
    def waiting(self) -> Waiting: ...


class Streams:
    """Bounds how many streams are open: each holds a thread. Half of them may, for one tenant a quarter."""

    def __init__(self, threads: int, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.heartbeat_s = heartbeat_s
        self._most, self._most_each = max(1, threads // 2), max(1, threads // 4)
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def place(self, waiting: Waiting, tenant: str) -> Iterator[None]:
        """One stream more; OverQuota when there are as many as may be."""
        with waiting.place() as is_free, self._counted(tenant, is_free):
            yield

    @contextlib.contextmanager
    def _counted(self, tenant: str, is_free: bool) -> Iterator[None]:
        with self._lock:
            if not is_free or self._open[tenant] >= self._most_each or self._open.total() >= self._most:
                message = (
                    "As many streams are open as the server keeps; close some, or list the events instead."
                )
                raise OverQuota(message, code="too_many_streams")
            self._open[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[tenant] -= 1


@dataclass(frozen=True)
class Listener:
    """Who listens to which job, and the last event that it knows."""

    job_id: str
    seen: int
    #: The connection, where the server gives it.
    wire: socket.socket | None = None


def told(plait: Behind, listener: Listener, heartbeat_s: float) -> Iterator[bytes]:
    """The stream's bytes. It ends after the job's last event, with the process, or when nobody listens."""
    seen, heard, is_over = listener.seen, 0, False
    _expect_answers(listener.wire)
    yield _OPENING
    head, due = f"retry: {_RETRY_MS}\n", time.monotonic() + heartbeat_s
    while not (plait.waiting.is_over or is_gone(listener.wire)):
        rows, is_over = _news(plait.database, listener.job_id, seen)
        for row in rows:
            yield (head + _block(row)).encode()
            seen, head, due = row.seq, "", time.monotonic() + heartbeat_s
        if is_over:
            return
        if time.monotonic() >= due:
            yield _HEARTBEAT
            due = time.monotonic() + heartbeat_s
        heard = plait.wakes.wait(listener.job_id, heard, max(0.0, due - time.monotonic()))


def _news(database: Database, job_id: str, seen: int) -> tuple[list[tables.Event], bool]:
    """A database that is away for a while does not end the stream: the events are still there afterwards."""
    try:
        with database.reading() as session:
            rows, is_over = events.news(session, job_id, seen)
            return list(rows), is_over
    except (DBAPIError, TimeoutError) as error:
        log.warning("a stream waits for the database (%s)", type(error).__name__)
        return [], False


def _block(row: tables.Event) -> str:
    """Without a name, so that a browser's `onmessage` hears it. JSON has no line breaks of its own."""
    return f"id: {row.seq}\ndata: {shapes.event(row).model_dump_json()}\n\n"


def is_gone(wire: socket.socket | None) -> bool:
    """Whether the other end was closed. Nothing that it sent is taken away."""
    if wire is None:
        return False
    try:
        return wire.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _expect_answers(wire: socket.socket | None) -> None:
    # Not on every system, and not on a unix socket.
    with contextlib.suppress(OSError, AttributeError):
        if wire is not None:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
