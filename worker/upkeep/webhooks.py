"""Sends the messages that wait in `db.outbox`: many at once, and a receiver that is slow keeps only its own waiting.

Any number of processes may do this. One that dies in the middle loses its messages to another when the lease is over.
"""

import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version

from sqlalchemy.exc import DBAPIError, TimeoutError
from standardwebhooks import Webhook

import settings as configuration
from db import deliveries, outbox
from db.outbox import Outgoing, Tried
from db.session import Database
from domain.errors import BadRequest
from domain.webhooks import Code
from egress.guard import Guard, Unresolved
from egress.post import Answer, NoAnswer, post

log = logging.getLogger(__name__)

MOST_AT_ONCE = 32
#: A tenant whose receivers all hang holds no more than these, and one receiver no more than those.
MOST_OF_TENANT = 8
MOST_OF_ENDPOINT = 4
#: Seconds between two looks when there was nothing to send.
LOOK_S = 1.0
#: Seconds between two looks for what is given up.
_EXPIRE_S = 60.0
#: Seconds without a database until it is asked again.
_OUTAGE_S = 3.0
#: Rounds of one sweep; what is left waits for the next.
_ROUNDS = 100
#: A lease outlives a try, and a database that takes its time to hear of it.
_SETTLE_S = 30.0


class Sender:
    """Takes messages and sends them until it is told to stop; what is under way then is still settled."""

    def __init__(self, database: Database, guard: Guard, *, timeout_s: float) -> None:
        self._database, self._guard, self._timeout_s = database, guard, timeout_s
        self._trust = ssl.create_default_context()
        self._busy: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._stirred = threading.Event()

    def stir(self) -> None:
        """There may be something to do: a message has left room for another, or all is over."""
        self._stirred.set()

    def run(self, over: threading.Event) -> None:
        expire_at = 0.0
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="webhook") as pool:
            while not over.is_set():
                self._stirred.clear()
                found = False
                try:
                    for message in self.take():
                        found = True
                        pool.submit(self.send, message).add_done_callback(_unforeseen)
                    if time.monotonic() >= expire_at:
                        expire_at = time.monotonic() + _EXPIRE_S
                        self._expire()
                except (DBAPIError, TimeoutError) as error:
                    log.warning("no webhooks: the database does not answer (%s)", type(error).__name__)
                    over.wait(_OUTAGE_S)
                if not found:
                    self._stirred.wait(LOOK_S)

    def take(self) -> Iterator[Outgoing]:
        """Messages that are due, for as many as there is room; each endpoint gets its turn."""
        with self._database.reading() as session:
            waiting = outbox.waiting(session)
        for endpoint, tenant in waiting:
            room = self._room_for(endpoint, tenant)
            if room > 0:
                ttl = 2 * self._timeout_s + _SETTLE_S
                taken = outbox.take(self._database, endpoint, ttl, room)
                # At once: what was taken must be sent, whatever the next look meets.
                self._count(taken, 1)
                yield from taken

    def _room_for(self, endpoint: str, tenant: str) -> int:
        with self._counting:
            busy = self._busy
            return min(
                MOST_AT_ONCE - busy[""],
                MOST_OF_TENANT - busy[f"tenant {tenant}"],
                MOST_OF_ENDPOINT - busy[endpoint],
            )

    def _count(self, messages: list[Outgoing], by: int) -> None:
        with self._counting:
            for message in messages:
                for what in ("", f"tenant {message.tenant}", message.endpoint):
                    self._busy[what] += by
                    if not self._busy[what]:
                        del self._busy[what]

    def send(self, message: Outgoing) -> None:
        """One try, and what came of it is written down."""
        try:
            tried = self._try(message)
            if not outbox.settle(self._database, message, tried):
                log.info(
                    "%s is no longer this sender's: taken by another, or its endpoint is gone", message.id
                )
        except (DBAPIError, TimeoutError) as error:
            log.warning(
                "%s was sent and could not be settled; it will be again (%s)",
                message.id,
                type(error).__name__,
            )
        finally:
            self._count([message], -1)
            self.stir()

    def _try(self, message: Outgoing) -> Tried:
        began = time.monotonic()
        try:
            way = self._guard.admit(message.url, timeout_s=self._timeout_s)
            left = self._timeout_s - (time.monotonic() - began)
            answer = post(way, signed(message), message.payload.encode(), timeout_s=left, trust=self._trust)
        except BadRequest as error:
            return Tried(time.monotonic() - began, error=Code.URL_REFUSED, message=error.message)
        except Unresolved as error:
            return Tried(time.monotonic() - began, error=Code.NO_ADDRESS, message=_short(str(error)))
        except NoAnswer as error:
            return Tried(time.monotonic() - began, error=error.code, message=_short(str(error)))
        return _judged(answer, time.monotonic() - began)

    def _expire(self) -> None:
        with self._database.transaction() as session:
            gone = deliveries.expire(session)
        if gone:
            log.info("%d messages to endpoints that are disabled were given up", gone)


def signed(message: Outgoing) -> dict[str, str]:
    """The headers of a message: its id, the time of this try, and a signature by each secret that is valid."""
    instant = datetime.fromtimestamp(int(message.taken_at), UTC)
    signatures = [Webhook(secret).sign(message.id, instant, message.payload) for secret in message.secrets]
    return {
        "content-type": "application/json",
        "user-agent": f"plait-server/{version('plait-server')}",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(message.taken_at)),
        "webhook-signature": " ".join(signatures),
    }


def _judged(answer: Answer, duration_s: float) -> Tried:
    text = _short(answer.body.decode(errors="replace"), most=1_000)
    if 200 <= answer.status < 300:
        return Tried(duration_s, answer.status, answer=text)
    if answer.status == 410:
        code, message = Code.GONE, "The receiver wants no more messages."
    elif 300 <= answer.status < 400:
        code, message = Code.REDIRECTED, "Redirects are not followed; give the endpoint its final URL."
    else:
        code, message = Code.BAD_STATUS, f"The receiver answered {answer.status}; only 2xx is a success."
    return Tried(duration_s, answer.status, code, message, text)


def _short(text: str, *, most: int = 300) -> str:
    """A stranger's words as a database and a terminal can take them."""
    return "".join(c if c.isprintable() else " " for c in text)[:most].strip()


def _unforeseen(done: "Future[None]") -> None:
    if done.exception() is not None:
        log.error("unforeseen", exc_info=done.exception())


def sweep(database: Database, days: float) -> int:
    """Forgets messages that were over `days` ago, with their tries; of how many. 0 days keeps all."""
    gone = 0
    for _ in range(_ROUNDS if days > 0 else 0):
        with database.transaction() as session:
            some = deliveries.forget(session, before_s=days * 86_400)
        gone += some
        if not some:
            break
    if gone:
        log.info("%d messages that were over for %g days went", gone, days)
    return gone


@contextmanager
def sending(settings: configuration.Settings, over: threading.Event) -> Iterator[None]:
    """A sender in a thread of its own until `over`; should it fail, `over` ends the process, which is started anew."""
    database = Database(settings.database, timeout_s=settings.database_timeout_s, pool=4)
    sender = Sender(database, Guard(settings.webhook_hosts), timeout_s=settings.webhook_timeout_s)

    def run() -> None:
        try:
            sender.run(over)
        finally:
            over.set()

    thread = threading.Thread(target=run, name="webhooks")
    thread.start()
    try:
        yield
    finally:
        over.set()
        sender.stir()
        thread.join()
        database.close()
