"""Carries out how a hold ended: publishes bytes, then moves the job, in one transaction under its fence."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from db import checkpoints, claims, files, jobs
from db.artifacts import Artifacts
from db.blobs import Blobs
from db.logs import Logs
from db.session import Database, now
from db.tables import File, Job
from domain import retry
from domain.errors import Conflict, Unavailable
from domain.ids import new_id
from domain.job import Kind, Lane, Stage, Want
from worker.assignment import own_blobs
from worker.hold import Ending, time_limit_s
from worker.success import ISSUES_IN_EVENT, SUCCESS, Claimed

log = logging.getLogger(__name__)

#: Takes the place of a verdict that the database does not keep, such as one with a NUL character in it.
_REFUSED = {
    "say": "failed",
    "error": {
        "code": "result_not_stored",
        "message": "The database refused what the job found; tell the server's operator the job's id.",
        "param": None,
    },
    "retryable": False,
}


class Outcome:
    """Settles one claim. Returns the lane that has work now, if any."""

    def __init__(
        self, database: Database, blobs: Blobs, artifacts: Artifacts, logs: Logs, job: Job, folder: Path
    ) -> None:
        self.database, self.blobs, self.artifacts, self.logs = database, blobs, artifacts, logs
        self.job, self.folder = job, folder
        self.of_claim = Claimed(job, folder, artifacts)

    def settle(self, ending: Ending) -> Lane | None:
        """Nothing is written once fenced; a database that is away is asked again until the lease is over."""
        if ending.fenced:
            return None
        ending, published = self._stored(ending)
        try:
            lane = self._write(ending, published)
        except Conflict:
            # Ours was committed although its answer was lost, or another holds the job: either way, done.
            log.info("job %s had moved on from fence %d", self.job.id, self.job.fence)
            self._forget(published)
            return None
        except DBAPIError as error:
            log.warning("job %s: outcome not written (%s)", self.job.id, type(error).__name__)
            return None
        log.info("job %s settled under fence %d", self.job.id, self.job.fence)
        self._sweep()
        return lane

    def _stored(self, ending: Ending) -> tuple[Ending, list[File]]:
        """Bytes first. Without them there is no success: the job is tried again, from its checkpoint."""
        published: list[File] = []
        try:
            for name in (ending.verdict or {}).get("files", []):
                published.append(self._store_result(self.folder / name))
        except Unavailable as error:
            return self._unstored(ending, published, error.message)
        except OSError as error:
            # A full disk, mostly.
            why = error.strerror or type(error).__name__
            return self._unstored(ending, published, f"The job's results could not be stored ({why}).")
        return ending, published

    def _unstored(self, ending: Ending, published: list[File], message: str) -> tuple[Ending, list[File]]:
        self._delete([file.blob for file in published])
        said = {"code": "storage_unavailable", "message": message, "param": None}
        return replace(ending, verdict={"say": "failed", "error": said, "retryable": True}), []

    def _delete(self, keys: Sequence[str]) -> None:
        """What cannot be deleted now, upkeep finds."""
        try:
            for key in keys:
                self.blobs.delete(key)
        except (Unavailable, OSError) as error:
            log.warning("job %s: bytes are left to upkeep: %s", self.job.id, error)

    def _write(self, ending: Ending, published: list[File]) -> Lane | None:
        while True:
            try:
                with self.database.transaction() as session:
                    return self._move(session, ending, published)
            except (DataError, IntegrityError) as error:
                # It would refuse the same again, and the job would run again for nothing.
                if ending.verdict is _REFUSED:
                    raise
                log.error("job %s: the database refuses its outcome (%s)", self.job.id, type(error).__name__)
                self._forget(published)
                ending, published = replace(ending, verdict=_REFUSED), []
            except DBAPIError:
                if time.monotonic() >= ending.writable_until:
                    raise
                time.sleep(0.5)

    def _forget(self, published: list[File]) -> None:
        """The bytes of files that got no row. Those of a commit whose answer was lost have one."""
        with self.database.reading() as session:
            unnamed = files.unnamed(session, [file.blob for file in published])
        self._delete(unnamed)

    def _move(self, session: Session, ending: Ending, published: list[File]) -> Lane | None:
        now_held = claims.held(session, self.job.id, self.job.fence)
        verdict = ending.verdict or {"say": "died"}
        if now_held.want == Want.CANCEL:
            # A cancel that was accepted before the finish wins.
            return self._stopped(session)
        if ending.timed_out and verdict["say"] != "done":
            return self._fail(session, self._timeout(), published)
        pausing = now_held.want == Want.PAUSE
        if verdict["say"] == "done":
            return self._done(session, verdict, published, pausing=pausing)
        if verdict["say"] == "stopped" or (verdict["say"] == "died" and ending.overdue):
            return self._pause(session) if pausing else self._put_back(session, ending)
        if ending.asked == "drain" and not pausing:
            return self._put_back(session, ending)
        if verdict["say"] == "failed":
            return self._failed(session, verdict, published, pausing=pausing)
        return claims.lose(session, now_held, self._how_it_died(ending), self.logs.last_words)

    def _done(
        self, session: Session, verdict: dict[str, Any], published: list[File], *, pausing: bool
    ) -> Lane | None:
        """A finish wins over a pause; where only the first stage is over, the job is paused before the next."""
        self._note_checks(session, verdict)
        succeed = SUCCESS[Kind(self.job.kind), Stage(self.job.stage)]
        next_lane = succeed(self.of_claim, session, verdict, published)
        if next_lane is None or not pausing:
            return next_lane
        jobs.move(session, self.job.id, "job.paused", message="The job was paused before its next stage.")
        return None

    def _failed(
        self, session: Session, verdict: dict[str, Any], published: list[File], *, pausing: bool
    ) -> Lane | None:
        self._note_checks(session, verdict)
        error = verdict["error"]
        if verdict["retryable"] and retry.may_retry(self.job.attempt, self.job.max_attempts):
            if pausing:
                message = f"The job was paused; it had failed and would be tried again: {error['message']}"
                self.of_claim.move(session, "job.paused", message, level="warn", data=error)
                return None
            wait = retry.backoff_s(self.job.attempt)
            message = f"Tried again in {wait:.0f} s: {error['message']}"
            self.of_claim.move(
                session, "job.retried", message, level="warn", data=error, available_at=now() + wait
            )
            return None
        return self._fail(
            session, error, published, verdict.get("issues", []), verdict.get("issues_total", 0)
        )

    def _fail(
        self,
        session: Session,
        error: dict[str, Any],
        published: list[File],
        issues: Sequence[Any] = (),
        issues_total: int = 0,
    ) -> Lane | None:
        self.of_claim.publish(session, published)
        data = {"error": error, "issues": list(issues[:ISSUES_IN_EVENT]), "issues_total": issues_total}
        self.of_claim.move(session, "job.failed", error["message"], level="error", data=data, error=error)
        return None

    def _stopped(self, session: Session) -> Lane | None:
        kept = "; its last checkpoint is kept" if self.job.kind == Kind.FINE_TUNE else ""
        self.of_claim.move(session, "job.stopped", f"The job was cancelled{kept}.")
        return None

    def _pause(self, session: Session) -> Lane | None:
        """The attempt goes on after the pause: the next claim counts it again."""
        kept = " with its last checkpoint" if self.job.kind == Kind.FINE_TUNE else ""
        self.of_claim.move(session, "job.paused", f"The job was paused{kept}.", attempt=self.job.attempt - 1)
        return None

    def _put_back(self, session: Session, ending: Ending) -> Lane:
        """The child stopped because the worker ends, or for a pause that was taken back meanwhile."""
        message = (
            "The worker shuts down; the job goes on from its checkpoint elsewhere."
            if ending.asked == "drain"
            else "The pause was taken back after the job had stopped; it goes on from its checkpoint."
        )
        self.of_claim.move(session, "job.drained", message, attempt=self.job.attempt - 1, available_at=now())
        return Lane(self.job.lane)

    def _store_result(self, path: Path) -> File:
        file_id = new_id("file-")
        with path.open("rb") as stream:
            stored = self.blobs.write(file_id, stream)
        return File(
            id=file_id,
            tenant=self.job.tenant,
            filename=path.name,
            purpose=files.RESULTS,
            bytes=stored.bytes,
            sha256=stored.sha256,
            blob=file_id,
            status="processed",
        )

    def _note_checks(self, session: Session, verdict: dict[str, Any]) -> None:
        # In the order of the ids: two outcomes that note the same files must not wait for each other.
        for file_id, found in sorted(verdict.get("checked", {}).items()):
            files.note_check(session, file_id, **found)

    def _how_it_died(self, ending: Ending) -> str:
        code = ending.exit_code
        return (
            f"its process was killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
        )

    def _timeout(self) -> dict[str, Any]:
        message = (
            f"The job took longer than {time_limit_s(self.job):g} s, which is its limit for one attempt; "
            "ask for less, or send it again with a larger `timeout_s`."
        )
        return {"code": "timeout", "message": message, "param": "timeout_s"}

    def _sweep(self) -> None:
        """A final job keeps what its row names; other claims' folders go, and media that only it was given."""
        told = (Job.finished_at, Job.result_ref)
        with self.database.reading() as session:
            job = jobs.get(session, self.job.tenant, self.job.id, only=told)
            kept = checkpoints.kept(session, job.id)
        if job.finished_at is not None:
            self.artifacts.prune(job.id, keep=[job.result_ref, *kept])
            self._delete(own_blobs(self.job))
