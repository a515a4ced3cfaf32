"""What a job's success means, by kind and stage: the rows that its last transaction writes, under its fence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import files, jobs
from db.artifacts import Artifacts
from db.session import now
from db.tables import File, Job, Model
from domain.ids import model_id
from domain.job import Kind, Lane, Stage
from domain.specs import family_of

ISSUES_IN_EVENT = 20


@dataclass(frozen=True)
class Claimed:
    """A job as its claim found it, and the folder of that claim."""

    job: Job
    folder: Path
    artifacts: Artifacts

    def move(self, session: Session, name: str, message: str, **more: Any) -> None:
        """A move under the fence of this claim; raises Conflict when another holds the job."""
        jobs.move(session, self.job.id, name, fence=self.job.fence, message=message, **more)

    def publish(self, session: Session, published: list[File]) -> None:
        """Names the result files, whose bytes are stored, behind those of an earlier stage."""
        already = len(files.results_of(session, self.job.id))
        for position, file in enumerate(published, start=already):
            files.add_result(session, self.job.id, _copy(file), position)


def _copy(file: File) -> File:
    """A row object belongs to one session: a transaction that is tried again needs a fresh one."""
    names = ("id", "tenant", "filename", "purpose", "bytes", "sha256", "blob", "status")
    return File(**{name: getattr(file, name) for name in names})


def validated(claim: Claimed, session: Session, verdict: dict[str, Any], published: list[File]) -> Lane:
    """A fine-tune whose files are in order waits for a worker that trains it."""
    claim.publish(session, published)
    skipped, masked = verdict["skipped"], verdict["masked"]
    without = (
        f", {skipped} bad rows left out, {masked} rows with bad cells masked" if skipped or masked else ""
    )
    claim.move(
        session,
        "job.validated",
        f"The files are in order{without}; the job waits for a worker to train it.",
        level="warn" if without else "info",
        data={
            "warnings": verdict["issues"][:ISSUES_IN_EVENT],
            "warnings_total": verdict["issues_total"],
            "skipped": skipped,
            "masked": masked,
        },
        left_lane=Lane(claim.job.lane),
        stage=Stage.RUN,
        lane=Lane.TRAIN,
        attempt=0,
        available_at=now(),
        resolved=verdict["resolved"],
        progress=None,
    )
    return Lane.TRAIN


def trained(claim: Claimed, session: Session, verdict: dict[str, Any], published: list[File]) -> None:
    """A model's row needs its job's success in the same transaction: both or neither."""
    job = claim.job
    claim.publish(session, published)
    family = family_of(job.spec)
    name = model_id(family, job.tenant, job.spec.get("suffix"), job.id)
    ref = claim.artifacts.ref(claim.folder / verdict["model"])
    claim.move(
        session,
        "job.succeeded",
        "The job succeeded; the model is ready.",
        data={"fine_tuned_model": name, "metrics": verdict["metrics"]},
        result_ref=ref,
        result={"model": name, "metrics": verdict["metrics"], "steps": verdict["steps"]},
        resolved=(job.resolved or {}) | verdict["resolved"],
    )
    session.add(Model(id=name, tenant=job.tenant, job=job.id, family=family, ref=ref))


def predicted(claim: Claimed, session: Session, verdict: dict[str, Any], _: list[File]) -> None:
    """A prediction's answers lie in its row; a row that has an error is an answer too."""
    result = verdict["result"]
    rows, bad = len(result["predictions"]), sum(p["error"] is not None for p in result["predictions"])
    claim.move(
        session,
        "job.succeeded",
        f"The prediction is ready: {rows} rows, {bad} of them with an error.",
        data={"rows": rows, "errors": bad},
        result=result,
    )


def checked(claim: Claimed, session: Session, verdict: dict[str, Any], published: list[File]) -> None:
    """A check succeeds whatever it found: it was asked to look."""
    claim.publish(session, published)
    found = verdict["result"]
    message = f"The file was checked: {found['errors']} errors, {found['warnings']} warnings."
    data = {"errors": found["errors"], "warnings": found["warnings"]}
    claim.move(session, "job.succeeded", message, data=data, result=found)


Succeed = Callable[[Claimed, Session, dict[str, Any], list[File]], Lane | None]

#: Returns the lane that has work now, if any.
SUCCESS: Mapping[tuple[Kind, Stage], Succeed] = {
    (Kind.FINE_TUNE, Stage.VALIDATE): validated,
    (Kind.FINE_TUNE, Stage.RUN): trained,
    (Kind.PREDICT, Stage.RUN): predicted,
    (Kind.CHECK, Stage.RUN): checked,
}
