"""One claimed job in hand: starts its child, renews the lease, listens, and ends the child for certain.

Decides nothing about the job: what it returns, `worker.outcome` carries out.
"""

import contextlib
import logging
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from db import jobs, reports
from db.session import Database
from db.tables import Job
from domain.job import Want
from worker.output import kept_in
from worker.reporter import Reporter
from worker.wire import Lines, Mouth

log = logging.getLogger(__name__)

#: From asking a child to stop until it is killed. A cancel keeps the last checkpoint that there is,
#: so nothing is worth waiting for; a drain waits for a new one.
STOP_S = {"cancel": 1.2, "pause": 20.0, "drain": 20.0}
_FOR_EVER = float("inf")
#: After a database error, until the next try.
_AGAIN_S = 1.0


@dataclass
class Ending:
    """How a hold ended. `verdict` is the child's last word (`done`, `stopped`, `failed`), if it had one."""

    verdict: dict[str, Any] | None = None
    #: Why the child was asked to stop.
    asked: str | None = None
    fenced: bool = False
    timed_out: bool = False
    exit_code: int = 0
    #: Until when (monotonic) the outcome may still be written.
    writable_until: float = 0.0


@dataclass
class Hold:
    database: Database
    job: Job
    lease_s: float
    #: Readable when the keeper is to look at the job at once (a bell, a drain).
    bell: socket.socket
    log_file: Path
    taken: float
    draining: Any
    #: Told after words of the child were stored.
    changed: Callable[[], object] = lambda: None
    ending: Ending = field(default_factory=Ending)

    def __post_init__(self) -> None:
        self.reporter = Reporter(self.database, self.job.id, self.job.fence)
        self.fence_at = self.taken + self.lease_s * 0.75
        self.renew_at = self.taken + self.lease_s / 4
        self.kill_at = _FOR_EVER
        limit = self.job.spec.get("timeout_s")
        self.deadline = self.taken + limit if limit else _FOR_EVER
        self.lines = Lines()
        #: A checkpoint that the child waits to see published, and when it is tried again.
        self.unpublished: dict[str, Any] | None = None
        self.publish_at = _FOR_EVER

    def run(self, assignment: dict[str, Any]) -> Ending:
        """Runs the child to its end, whatever end that is."""
        ours, theirs = socket.socketpair()
        with ours, kept_in(self.log_file) as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "worker.child", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=Path(__file__).parent.parent,
            )
            theirs.close()
            try:
                self.mouth = Mouth(ours)
                self._tell(**assignment)
                self._tell(lease=self.fence_at)
                self._watch(ours, child.pid)
            finally:
                self._end(child)
                self._last_words(ours)
        self.ending.writable_until = self.fence_at
        return self.ending

    def _watch(self, sock: socket.socket, pid: int) -> None:
        # A zombie's socket is closed, but a grandchild may hold the other end: so the exit is watched too.
        exited = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        watched: list[Any] = [sock, self.bell, *([exited] if exited is not None else [])]
        try:
            while self._goes_on():
                due = self.reporter.due if self.reporter.has_words else _FOR_EVER
                until = min(self.renew_at, self.fence_at, self.kill_at, self.deadline, due, self.publish_at)
                ready, _, _ = select.select(watched, [], [], max(0.0, until - time.monotonic()))
                if not self._turn(sock, ready) or (exited in ready):
                    return
        finally:
            if exited is not None:
                os.close(exited)

    def _goes_on(self) -> bool:
        """False when the time for the job, for stopping, or of the lease is up."""
        instant = time.monotonic()
        self.ending.fenced |= instant >= self.fence_at
        self.ending.timed_out |= instant >= self.deadline
        return not (self.ending.fenced or self.ending.timed_out or instant >= self.kill_at)

    def _turn(self, sock: socket.socket, ready: list[Any]) -> bool:
        """One turn of the watch; False when the hold is over."""
        rung = self.bell in ready and bool(self.bell.recv(4096))
        if self.draining.is_set():
            self._ask_stop("drain")
        if sock in ready and not self._listen(sock):
            return False
        if rung or time.monotonic() >= self.renew_at:
            self._renew()
        if time.monotonic() >= self.publish_at:
            self._publish()
        if self.reporter.is_due:
            self._flush()
        return not self.ending.fenced

    def _listen(self, sock: socket.socket) -> bool:
        try:
            data = sock.recv(1 << 20)
        except ConnectionError:
            return False  # a killed child with unread words: a reset, not an end
        for message in self.lines.feed(data):
            if not self.ending.fenced:
                self._hear(message)
        return bool(data)

    def _hear(self, message: dict[str, Any]) -> None:
        say = message["say"]
        if say in ("done", "stopped", "failed"):
            self.ending.verdict = message
        elif say == "checkpoint":
            self.unpublished = message
            self._publish()
        else:
            self.reporter.hear(message)

    def _publish(self) -> None:
        """The child hears `published` only after COMMIT, and only then removes what came before."""
        message = self.unpublished
        assert message is not None
        words = {name: message[name] for name in ("ref", "step", "metrics")}
        self.publish_at = time.monotonic() + _AGAIN_S

        def publish() -> Want | None:
            with self.database.transaction() as session:
                want = reports.checkpoint(session, self.job.id, self.job.fence, **words)
            self.unpublished, self.publish_at = None, _FOR_EVER
            self._tell(published=message["ref"])
            return want

        self._store(publish)

    def _renew(self) -> None:
        asked = time.monotonic()

        def renew() -> Want | None:
            with self.database.transaction() as session:
                want = jobs.renew(session, self.job.id, self.job.fence, self.lease_s)
            if want is not None:
                # The instant is taken before the request: the lease is never believed longer than it is.
                self.fence_at = asked + self.lease_s * 0.75
                self._tell(lease=self.fence_at)
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
            log.warning("job %s: fenced off, another worker has it", self.job.id)
            self.ending.fenced = True
        elif want is not Want.RUN:
            self._ask_stop(str(want))

    def _ask_stop(self, why: str) -> None:
        # A cancel overtakes a drain: nobody waits for the checkpoint of a job that is not wanted.
        if self.ending.asked is None or (why == "cancel" and self.ending.asked != "cancel"):
            self.ending.asked = why
            self.kill_at = time.monotonic() + STOP_S[why]
            self._tell(stop=why)

    def _tell(self, **message: Any) -> None:
        # A child that is gone hears nothing; its exit is about to be seen.
        with contextlib.suppress(OSError):
            self.mouth.tell(**message)

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        """The whole group goes: leftovers of the child too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        self.ending.exit_code = child.wait()

    def _last_words(self, sock: socket.socket) -> None:
        """What the child said just before its end counts, unless the job is another's by now."""
        sock.setblocking(False)
        try:
            while not self.ending.fenced and self._listen(sock):
                pass
        except BlockingIOError:
            pass
        if self.reporter.has_words and not self.ending.fenced:
            self._flush()
