"""The keeper: claim -> lease -> child -> outcome, until nothing is ready. Loads no torch."""

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
from db import files, jobs
from db.artifacts import Artifacts
from db.blobs import Blobs
from db.logs import Logs
from db.session import Database
from db.tables import Job
from domain.job import Lane
from worker.hold import Hold
from worker.outcome import Outcome

log = logging.getLogger(__name__)


class Keeper:
    """One a process. `work()` may be called from any thread; one job is held at a time."""

    def __init__(self, settings: configuration.Settings, lane: Lane) -> None:
        self.settings, self.lane = settings, lane
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.database = Database(settings.database, timeout_s=settings.database_timeout_s, pool=2)
        self.bells = Bells(settings.redis_url)
        self.blobs = Blobs(settings.data / "blobs")
        self.artifacts = Artifacts(settings.data.absolute() / "artifacts")
        self.logs = Logs(settings.data.absolute())
        self.draining = threading.Event()
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

    def work(self) -> int:
        """Claims and runs until nothing is ready; how many ran. At once 0 while another thread works."""
        if not self._busy.acquire(blocking=False):
            return 0
        ran = 0
        try:
            while not self.draining.is_set() and self._one():
                ran += 1
        except DBAPIError as error:
            log.warning("the database does not answer (%s); trying again soon", type(error).__name__)
        finally:
            self._busy.release()
        return ran

    def _one(self) -> bool:
        taken = time.monotonic()
        job = jobs.claim(self.database, self.lane, self.name, self.settings.lease_s)
        if job is None:
            return False
        log.info("claimed %s (%s, fence %d)", job.id, job.stage, job.fence)
        self.bells.wake(job.id)
        folder = self.artifacts.create(job.id, job.fence)
        hold = Hold(
            database=self.database,
            job=job,
            lease_s=self.settings.lease_s,
            bell=self._bell,
            log_file=self.logs.make(job.id, job.fence),
            taken=taken,
            draining=self.draining,
            changed=lambda: self.bells.wake(job.id),
        )
        ending = hold.run(self._assignment(job, folder))
        next_lane = Outcome(self.database, self.blobs, self.artifacts, self.logs, job, folder).settle(ending)
        if next_lane is not None:
            self.bells.ring(next_lane)
        self.bells.wake(job.id)
        return True

    def _assignment(self, job: Job, folder: Path) -> dict[str, Any]:
        """All that the child needs, as plain values: it has no database."""
        s = self.settings
        return {
            "job": job.id,
            "spec": job.spec,
            "resolved": job.resolved,
            "files": self._files(job),
            "folder": str(folder),
            "store": str(self.artifacts.root),
            "checkpoint": str(self.artifacts.path(job.checkpoint_ref)) if job.checkpoint_ref else None,
            "place": {
                "kind": job.kind,
                "stage": job.stage,
                "encoders": str(s.encoders_dir.absolute()),
                "local_roots": [str(p) for p in s.local_roots],
                "allow_hub": s.allow_hub,
                "cache": str(s.data.absolute() / "cache"),
                "cache_bytes": s.cache_bytes,
                "kernels": s.kernels,
            },
        }

    def _files(self, job: Job) -> dict[str, dict[str, Any]]:
        """Field of the spec -> the file's id, name, path and declared schema."""
        with self.database.reading() as session:
            rows = {
                field: files.get(session, job.tenant, file_id, param=field)
                for file_id, field in files.files_of(job.spec).items()
            }
        return {
            field: {
                "id": row.id,
                "filename": row.filename,
                "path": str(self.blobs.path(row.blob).absolute()),
                "schema": row.schema,
            }
            for field, row in rows.items()
        }
