"""All open streams of the process. One thread reads the database for them and writes their connections.

Every event is read by its number, which is taken under the job's row lock: so none is left out and none told
twice, whoever commits meanwhile. A wake only says which job to look at; what no wake told is found within a second,
by one query for all jobs that are listened to. No session is held in between.
"""

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, TimeoutError

from api import stream
from api.listener import Listener
from api.waiting import Waiter
from bus.wakes import LOOK_EVERY_S
from db import events, tenants
from db.session import Database
from domain.errors import OverQuota

log = logging.getLogger(__name__)

#: Events of a job that are read at once.
_PAGE = 1_000
#: At the process's end the last bytes get this long.
_FAREWELL_S = 3.0


@dataclass(frozen=True)
class Limits:
    """An open stream is a connection and a little memory; of these one tenant has a quarter at most."""

    most: int = 1_000
    most_each: int = 250
    #: Proxies cut a connection that is silent for a minute, some sooner.
    heartbeat_s: float = 15.0


class Listeners:
    """`add` and `note` are safe in any thread, `end` in a signal handler; all else belongs to the one thread."""

    def __init__(self, database: Database, wakes: Waiter, limits: Limits) -> None:
        self._database, self._wakes, self._limits = database, wakes, limits
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._new: list[Listener] = []
        self._woken: set[str] = set()
        self._by_job: dict[str, set[Listener]] = defaultdict(set)
        self._rope: socket.socket | None = None
        self._selector: selectors.BaseSelector
        self._over_since: float | None = None

    def refuse_if_full(self, tenant: str) -> None:
        """OverQuota when there are as many streams as may be."""
        if self._open[tenant] >= self._limits.most_each or self._open.total() >= self._limits.most:
            message = "As many streams are open as the server keeps; close some, or list the events instead."
            raise OverQuota(message, code="too_many_streams")

    def add(self, listener: Listener, over: Callable[[bool], None]) -> None:
        """The stream is written from now on, until `over` hears of its end; so long the connection is ours."""
        listener.over = over
        listener.wire.setblocking(False)
        with self._lock:
            self._open[listener.tenant] += 1
            self._new.append(listener)
            if self._rope is None:
                self._start()
        self._poke()

    def note(self, job_id: str) -> None:
        """The job changed."""
        if job_id in self._by_job and job_id not in self._woken:
            with self._lock:
                self._woken.add(job_id)
            self._poke()

    def end(self) -> None:
        """The process is about to stop: every stream ends, as one that was not cut."""
        self._over_since = time.monotonic()
        self._poke()

    def _start(self) -> None:
        """The thread lives as long as there are streams."""
        self._wakes.listen(self.note)
        bell, self._rope = socket.socketpair()
        self._rope.setblocking(False)
        threading.Thread(target=self._run, args=(bell,), name="listeners", daemon=True).start()

    def _poke(self) -> None:
        rope = self._rope
        # A full rope means that the thread is on its way, a closed one that nobody listens.
        with contextlib.suppress(OSError):
            if rope is not None:
                rope.send(b".")

    def _run(self, bell: socket.socket) -> None:
        with bell, selectors.DefaultSelector() as self._selector:
            self._selector.register(bell, selectors.EVENT_READ)
            try:
                look_at = 0.0
                while self._welcome():
                    look_at = self._turn(look_at)
                    self._hear(bell, look_at)
            except Exception:
                log.exception("all streams end; their clients come back and go on where they were")
                self._abandon()

    def _welcome(self) -> bool:
        """New listeners come in. False when there are none at all: the thread ends, the next one starts another."""
        with self._lock:
            new, self._new = self._new, []
            if not new and not self._by_job:
                self._drop_rope()
                return False
        for listener in new:
            self._selector.register(listener.wire, selectors.EVENT_READ, listener)
            self._by_job[listener.job_id].add(listener)
            self._woken.add(listener.job_id)
        return True

    def _turn(self, look_at: float) -> float:
        """Tells what there is to tell; when all jobs are looked at the next time."""
        with self._lock:
            woken, self._woken = self._woken, set()
        now = time.monotonic()
        if now < look_at and self._over_since is None:
            self._tell_news(woken)
            return look_at
        self._send_away()
        self._tell_news(list(self._by_job))
        for listener in self._all():
            self._care_for(listener, now)
        return now + min(LOOK_EVERY_S, self._limits.heartbeat_s)

    def _send_away(self) -> None:
        """Who listens with a key that was revoked or has expired is told no more."""
        listeners = self._all()
        try:
            with self._database.reading() as session:
                live = tenants.live(session, {one.key_id for one in listeners})
        except (DBAPIError, TimeoutError):
            # Nothing can be told either.
            return
        for one in listeners:
            if one.key_id not in live:
                one.end()

    def _care_for(self, listener: Listener, now: float) -> None:
        if self._over_since is not None:
            listener.end()
        listener.beat(self._limits.heartbeat_s)
        is_late = self._over_since is not None and now - self._over_since > _FAREWELL_S
        if listener.is_stuck or is_late:
            self._close(listener, is_whole=False)
        else:
            self._send(listener)

    def _hear(self, bell: socket.socket, look_at: float) -> None:
        """Waits for wakes, for connections that take bytes again, and for those that were closed."""
        timeout = 0.0 if self._woken else max(0.0, look_at - time.monotonic())
        for key, ready in self._selector.select(timeout):
            listener: Listener | None = key.data
            if listener is None:
                bell.recv(4096)
            elif ready & selectors.EVENT_READ and listener.is_gone():
                self._close(listener, is_whole=False)
            else:
                self._send(listener)

    def _tell_news(self, jobs: Iterable[str]) -> None:
        """Each job's news are read once for all who listen to it."""
        reading = {job: at for job in jobs if (at := self._reading(job))}
        if not reading:
            return
        try:
            with self._database.reading() as session:
                seen = {job: min(listener.seen for listener in at) for job, at in reading.items()}
                news = events.news(session, seen, limit=_PAGE)
        except (DBAPIError, TimeoutError) as error:
            # The events are still there afterwards.
            log.warning("streams wait for the database (%s)", type(error).__name__)
            return
        for job, told in news.items():
            for row in told.rows:
                words = stream.block(row)
                for listener in reading[job]:
                    listener.tell(row.seq, words)
            if len(told.rows) == _PAGE:
                self._woken.add(job)
            for listener in reading[job]:
                if told.is_all:
                    listener.end()
                self._send(listener)

    def _reading(self, job: str) -> list[Listener]:
        return [one for one in self._by_job.get(job, ()) if not (one.is_ending or one.is_full)]

    def _send(self, listener: Listener) -> None:
        try:
            listener.send()
        except OSError:
            self._close(listener, is_whole=False)
            return
        if listener.is_ending and not listener.has_more:
            self._close(listener, is_whole=True)
            return
        interest = selectors.EVENT_WRITE if listener.has_more else 0
        interest |= selectors.EVENT_READ if listener.is_watched else 0
        self._watch(listener, interest)

    def _watch(self, listener: Listener, interest: int) -> None:
        known = self._selector.get_map().get(listener.wire)
        if known is None and interest:
            self._selector.register(listener.wire, interest, listener)
        elif known is not None and not interest:
            self._selector.unregister(listener.wire)
        elif known is not None and known.events != interest:
            self._selector.modify(listener.wire, interest, listener)

    def _close(self, listener: Listener, *, is_whole: bool) -> None:
        """The connection goes back to where it came from."""
        self._watch(listener, 0)
        at = self._by_job[listener.job_id]
        at.discard(listener)
        if not at:
            del self._by_job[listener.job_id]
        with self._lock:
            self._open[listener.tenant] -= 1
        listener.over(is_whole)

    def _all(self) -> list[Listener]:
        return [listener for at in self._by_job.values() for listener in at]

    def _abandon(self) -> None:
        with self._lock:
            new, self._new = self._new, []
            self._drop_rope()
        for listener in new:
            self._by_job[listener.job_id].add(listener)
        for listener in self._all():
            self._close(listener, is_whole=False)

    def _drop_rope(self) -> None:
        if self._rope is not None:
            self._rope.close()
            self._rope = None
