"""The keeper: claim -> lease -> child -> outcome, until nothing is ready. Loads no torch.

On the infer lane the child stays between jobs, and so do the models that it has loaded; elsewhere each job has
a child of its own. No child is started before there is a job for it.
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

import settings as configuration
from bus.bells import Bells, heard
from db import claims
from db.artifacts import Artifacts
from db.blobs import open_blobs
from db.logs import Logs
from db.session import Database
from db.tables import Job
from domain.errors import PlaitError
from domain.job import Lane
from worker import gpus
from worker.assignment import make_assignment
from worker.hold import Ending, Hold
from worker.outcome import Outcome
from worker.process import ChildProcess
from worker.warming import warm_up

log = logging.getLogger(__name__)

#: Whoever waits for a prediction waits for this long at most before another worker gets it.
INFER_LEASE_S = 15.0


class Keeper:
    """One a process. `work()` may be called from any thread; one job is held at a time."""

    def __init__(self, settings: configuration.Settings, lane: Lane) -> None:
        self.settings, self.lane = settings, lane
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.database = Database(settings.database, timeout_s=settings.database_timeout_s, pool=2)
        self.bells = Bells(settings.redis_url)
        self.blobs = open_blobs(settings)
        self.artifacts = Artifacts(settings.data.absolute() / "artifacts")
        self.logs = Logs(settings.data.absolute())
        self.lease_s = min(settings.lease_s, INFER_LEASE_S) if lane is Lane.INFER else settings.lease_s
        self.draining = threading.Event()
        self._stays = lane is Lane.INFER
        self._warmed = False
        self._child: ChildProcess | None = None
        self._busy = threading.Lock()
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)

    def listen(self) -> None:
        """Starts hearing cancels by bell; without it they come with the next renewal."""
        if self.settings.redis_url:
            threading.Thread(target=self._hear, name="bells", daemon=True).start()

    def _hear(self) -> None:
        for _ in heard(self.settings.redis_url, self.name, self.draining):
            self.poke()

    def poke(self) -> None:
        """Makes a running hold look at its job now. Safe in a signal handler."""
        # A full rope means that the bell is ringing already.
        with contextlib.suppress(BlockingIOError):
            self._rope.send(b".")

    def drain(self) -> None:
        """No further claim; the job in hand makes a checkpoint and goes back. Safe in a signal handler."""
        self.draining.set()
        self.poke()

    def warm_up(self) -> None:
        """Compiles the kernels, once, if there is a GPU that jobs of this lane use; nothing is claimed meanwhile."""
        with self._busy:
            self._warm_up()

    def _warm_up(self) -> None:
        if self._warmed:
            return
        self._warmed = True
        wanted = self.lane is not Lane.CPU and self.settings.kernels != "torch"
        if wanted and gpus.visible(gpus.installed(), configuration.visible_gpus()):
            warm_up(self.draining)

    def work(self) -> int:
        """Claims and runs until nothing is ready; how many ran. At once 0 while another thread works."""
        if not self._busy.acquire(blocking=False):
            return 0
        ran = 0
        try:
            self._warm_up()
            while not self.draining.is_set() and self._one():
                ran += 1
        except DBAPIError as error:
            log.warning("the database does not answer (%s); trying again soon", type(error).__name__)
        except Exception:
            # The thread that polls must go on, whatever this is; the job's lease ends, and another worker gets it.
            log.exception("work on a job ended early")
        finally:
            self._busy.release()
        return ran

    def close(self) -> None:
        """Ends an idle child, after the job in hand. For the thread that outlives all that started children."""
        self.drain()
        with self._busy:
            self._end_child()

    def _one(self) -> bool:
        taken = time.monotonic()
        job = claims.claim(self.database, self.lane, self.name, self.lease_s)
        if job is None:
            return False
        log.info("claimed %s (%s, fence %d)", job.id, job.stage, job.fence)
        self.bells.wake(job.id)
        try:
            folder = self.artifacts.create(job.id, job.fence)
            ending = self._run(job, folder, taken)
        except OSError as error:
            log.exception("no work on %s", job.id)
            folder, ending = self.artifacts.root, self._unable(error, taken)
        next_lane = Outcome(self.database, self.blobs, self.artifacts, self.logs, job, folder).settle(ending)
        if next_lane is not None:
            self.bells.ring(next_lane)
        self.bells.wake(job.id)
        return True

    def _run(self, job: Job, folder: Path, taken: float) -> Ending:
        try:
            assignment = make_assignment(job, folder, self.settings, self.database, self.artifacts)
        except PlaitError as error:
            # What the job needs is gone since it was accepted.
            said = {"code": error.code, "message": error.message, "param": error.param}
            return self._failed(said, taken, retryable=False)
        stayed = self._child is not None
        ending = self._hold(job, assignment, taken)
        if stayed and ending.never_began:
            # The child that had stayed was dying when it was told, of what is no fault of this job.
            ending = self._hold(job, assignment, taken)
        return ending

    def _hold(self, job: Job, assignment: dict[str, Any], taken: float) -> Ending:
        child = self._child_for(self.logs.make(job.id, job.fence))
        try:
            return Hold(
                database=self.database,
                job=job,
                lease_s=self.lease_s,
                bell=self._bell,
                child=child,
                taken=taken,
                draining=self.draining,
                changed=lambda: self.bells.wake(job.id),
                discard=self.artifacts.remove,
                stays=self._stays,
            ).run(assignment)
        finally:
            if not child.is_alive:
                self._end_child()

    def _unable(self, error: OSError, taken: float) -> Ending:
        """A full disk, mostly, or no memory for a child: another worker may do better, or this one later."""
        message = f"The worker could not start on the job ({error.strerror or type(error).__name__})."
        return self._failed(
            {"code": "worker_unable", "message": message, "param": None}, taken, retryable=True
        )

    def _failed(self, error: dict[str, Any], taken: float, *, retryable: bool) -> Ending:
        """An end without a child."""
        verdict = {"say": "failed", "error": error, "retryable": retryable}
        return Ending(verdict, writable_until=taken + self.lease_s * 0.75)

    def _child_for(self, log_file: Path) -> ChildProcess:
        """The one that stayed, or a new one: what ended it while it was idle is no fault of the next job."""
        if self._child is not None and not self._child.is_alive:
            self._end_child()
        if self._child is None:
            self._child = ChildProcess(log_file)
        else:
            self._child.print_to(log_file)
        return self._child

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
