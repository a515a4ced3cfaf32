"""One claimed job in hand: gives it to a child, renews the lease, listens, and ends the child for certain,
or, where children stay, whenever it did not come to a clean end of its job.

Decides nothing about the job: what it returns, `worker.outcome` carries out.
"""

import logging
import os
import random
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from db import checkpoints, claims, files, reports
from db.session import Database
from db.tables import Job
from domain.job import Kind, Want
from worker.process import ChildProcess
from worker.reporter import Reporter
from worker.wire import FILES_ASKED

log = logging.getLogger(__name__)

#: From asking a child to stop until it is killed. A cancel keeps the last checkpoint that there is,
#: so nothing is worth waiting for; a drain waits for a new one.
STOP_S = {"cancel": 1.2, "pause": 20.0, "drain": 20.0}
#: Of a prediction that says none: no medium takes so long, so something hangs, and others wait.
PREDICT_LIMIT_S = 600.0
_FOR_EVER = float("inf")
#: After a database error, until the next try.
_AGAIN_S = 1.0


@dataclass
class Ending:
    """How a hold ended. `verdict` is the child's last word (`done`, `stopped`, `failed`), if it had one."""

    verdict: dict[str, Any] | None = None
    #: The child has heard of the job.
    heard: bool = False
    #: Why the child was asked to stop.
    asked: str | None = None
    fenced: bool = False
    timed_out: bool = False
    #: Asked to stop, the child took too long, and was killed: its death is our doing.
    overdue: bool = False
    exit_code: int = 0
    #: Until when (monotonic) the outcome may still be written.
    writable_until: float = 0.0

    @property
    def never_began(self) -> bool:
        """The child was gone before it heard of the job, and nobody had asked it to be."""
        return not (self.heard or self.fenced or self.timed_out or self.asked)


def time_limit_s(job: Job) -> float | None:
    """How long one claim of the job may last."""
    default = PREDICT_LIMIT_S if job.kind == Kind.PREDICT else None
    limit: float | None = job.spec.get("timeout_s")
    return limit or default


def _kept(job: Job) -> int:
    """How many checkpoints the user wants kept."""
    return int(job.spec["multimodal"]["hyperparameters"]["save_total_limit"])


@dataclass
class Hold:
    database: Database
    job: Job
    lease_s: float
    #: Readable when the keeper is to look at the job at once (a bell, a drain).
    bell: socket.socket
    child: ChildProcess
    taken: float
    draining: Any
    #: Removes a folder that no row names any more.
    discard: Callable[[str], object]
    #: Told after words of the child were stored.
    changed: Callable[[], object] = lambda: None
    #: The child is kept for the next job if this one ends cleanly.
    stays: bool = False
    ending: Ending = field(default_factory=Ending)

    def __post_init__(self) -> None:
        self.reporter = Reporter(self.database, self.job.id, self.job.fence)
        self.fence_at = self.taken + self.lease_s * 0.75
        self.renew_at = self.taken + self.lease_s / 4
        self.kill_at = _FOR_EVER
        self.deadline = self.taken + (time_limit_s(self.job) or _FOR_EVER)
        #: A checkpoint that the child waits to see published, and when it is tried again.
        self.unpublished: dict[str, Any] | None = None
        self.publish_at = _FOR_EVER
        #: Files that the child waits to be told of, and when they are looked for again.
        self.question: dict[str, Any] | None = None
        self.answer_at = _FOR_EVER

    def run(self, assignment: dict[str, Any]) -> Ending:
        """Has the child do the job, to whatever end that comes."""
        try:
            # One message: a keeper that freezes now leaves no child that works without a lease.
            if self.child.tell(**assignment, stay=self.stays, lease=self.fence_at):
                self._watch()
        finally:
            self._let_go()
        self.ending.writable_until = self.fence_at
        return self.ending

    def _watch(self) -> None:
        # A zombie's socket is closed, but a grandchild may hold the other end: so the exit is watched too.
        exited = os.pidfd_open(self.child.pid) if hasattr(os, "pidfd_open") else None
        watched: list[Any] = [self.child.sock, self.bell, *([exited] if exited is not None else [])]
        try:
            while self._goes_on():
                due = self.reporter.due if self.reporter.has_words else _FOR_EVER
                again = min(self.publish_at, self.answer_at)
                until = min(self.renew_at, self.fence_at, self.kill_at, self.deadline, due, again)
                ready, _, _ = select.select(watched, [], [], max(0.0, until - time.monotonic()))
                if not self._turn(ready) or (exited in ready):
                    return
        finally:
            if exited is not None:
                os.close(exited)

    def _goes_on(self) -> bool:
        """False when the time for the job, for stopping, or of the lease is up, or all is said."""
        if self.stays and self.ending.verdict is not None:
            return False
        instant = time.monotonic()
        self.ending.fenced |= instant >= self.fence_at
        self.ending.timed_out |= instant >= self.deadline
        self.ending.overdue |= instant >= self.kill_at
        return not (self.ending.fenced or self.ending.timed_out or self.ending.overdue)

    def _turn(self, ready: list[Any]) -> bool:
        """One turn of the watch; False when the hold is over."""
        rung = self.bell in ready and bool(self.bell.recv(4096))
        if self.draining.is_set():
            self._ask_stop("drain")
        if self.child.sock in ready and not self._listen():
            return False
        if rung or time.monotonic() >= self.renew_at:
            self._renew()
        if time.monotonic() >= self.publish_at:
            self._publish()
        if time.monotonic() >= self.answer_at:
            self._answer()
        if self.reporter.is_due:
            self._flush()
        return not self.ending.fenced

    def _listen(self) -> bool:
        """False at the child's end."""
        messages = self.child.listen()
        for message in messages or []:
            if not self.ending.fenced:
                self._hear(message)
        return messages is not None

    def _hear(self, message: dict[str, Any]) -> None:
        say = message["say"]
        self.ending.heard = True
        if say in ("done", "stopped", "failed"):
            self.ending.verdict = message
        elif say == "checkpoint":
            self.unpublished = message
            self._publish()
        elif say == "files":
            self.question = message
            self._answer()
        elif say != "heard":
            self.reporter.hear(message)

    def _publish(self) -> None:
        """Named by a row first; only then goes what came before, and the child hears that it may go on."""
        message = self.unpublished
        assert message is not None
        words = {name: message[name] for name in ("ref", "step", "metrics")}
        self.publish_at = time.monotonic() + _AGAIN_S

        def publish() -> Want | None:
            try:
                want, older = self._named_by_a_row(**words)
            except (DataError, IntegrityError) as error:
                # It would refuse them for ever, and the child would wait for ever.
                log.error("job %s: the database refuses metrics (%s)", self.job.id, type(error).__name__)
                want, older = self._named_by_a_row(**words | {"metrics": {}})
            for ref in older:
                self.discard(ref)
            self.unpublished, self.publish_at = None, _FOR_EVER
            self.child.tell(published=message["ref"])
            return want

        self._store(publish)

    def _answer(self) -> None:
        """Tells the child of files of the job's own tenant; a database that is away is asked again later."""
        asked = self.question
        assert asked is not None
        self.answer_at = time.monotonic() + _AGAIN_S
        try:
            with self.database.reading() as session:
                found = files.readable(session, self.job.tenant, asked["ids"][:FILES_ASKED])
        except DBAPIError as error:
            log.warning("job %s: no files are looked up (%s)", self.job.id, type(error).__name__)
            return
        self.question, self.answer_at = None, _FOR_EVER
        told = {row.id: {"blob": row.blob, "sha256": row.sha256, "bytes": row.bytes} for row in found}
        self.child.tell(ask=asked["ask"], files=told)

    def _named_by_a_row(self, **words: Any) -> tuple[Want | None, list[str]]:
        """What the user wants, and the folders that this checkpoint makes too many."""
        with self.database.transaction() as session:
            want = reports.checkpoint(session, self.job.id, self.job.fence, **words)
            return want, checkpoints.retire(session, self.job.id, keep=_kept(self.job)) if want else []

    def _renew(self) -> None:
        asked = time.monotonic()

        def renew() -> Want | None:
            with self.database.transaction() as session:
                want = claims.renew(session, self.job.id, self.job.fence, self.lease_s)
            if want is not None:
                # The instant is taken before the request: the lease is never believed longer than it is.
                self.fence_at = asked + self.lease_s * 0.75
                self.child.tell(lease=self.fence_at)
            return want

        self._store(renew)
        self.renew_at = asked + self.lease_s / 4 * random.uniform(0.8, 1.0)

    def _flush(self) -> None:
        self._store(self.reporter.flush)
        self.changed()

    def _store(self, write: Any) -> None:
        """Writes under the fence and obeys what comes back; a database that is away is asked again later."""
        try:
            want = write()
        except DBAPIError as error:
            log.warning("job %s: the database does not answer (%s)", self.job.id, type(error).__name__)
            self.reporter.due = time.monotonic() + _AGAIN_S
            return
        if want is None:
            log.warning("job %s is another's: fenced off at fence %d", self.job.id, self.job.fence)
            self.ending.fenced = True
        elif want is not Want.RUN:
            self._ask_stop(str(want))

    def _ask_stop(self, why: str) -> None:
        # A cancel overtakes a drain: nobody waits for the checkpoint of a job that is not wanted.
        if self.ending.asked is None or (why == "cancel" and self.ending.asked != "cancel"):
            self.ending.asked = why
            self.kill_at = time.monotonic() + STOP_S[why]
            # The job stops in time: what its last checkpoint takes is not held against it.
            self.deadline = _FOR_EVER
            self.child.tell(stop=why)

    def _let_go(self) -> None:
        """An idle child must not die of a lease that is over; one that is in doubt is ended, its group with it."""
        clean = self.ending.verdict is not None and not (self.ending.fenced or self.ending.timed_out)
        kept = self.stays and clean and self.child.is_alive and self.child.tell(lease=None)
        if not kept:
            self.ending.exit_code = self.child.end()
            self._last_words()
        if self.reporter.has_words and not self.ending.fenced:
            self._flush()

    def _last_words(self) -> None:
        """What the child said just before its end counts, unless the job is another's by now."""
        self.child.sock.setblocking(False)
        try:
            while not self.ending.fenced and self._listen():
                pass
        except BlockingIOError:
            pass
