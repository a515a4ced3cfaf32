"""The checkpoint that a new job starts from: found by what the user calls it, and kept while it is needed."""

import re
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from db import checkpoints
from db.tables import Checkpoint, Job, JobStart
from domain.errors import BadRequest
from domain.ids import checkpoint_id
from domain.job import ID_PREFIX, Kind
from domain.specs import family_of

FIELD = "resume_from_checkpoint"

_NAME = re.compile(r"ft:.*:([a-z2-7]{8}):ckpt-step-(\d{1,18})")
#: Of the characters of a job's id that a checkpoint's name leaves out.
_LEFT_OUT = 16


@dataclass(frozen=True)
class Start:
    checkpoint: Checkpoint
    job: Job

    @property
    def words(self) -> str:
        return f"step {self.checkpoint.step} of {self.job.id} ({self.checkpoint.id})"


def find(session: Session, tenant: str, name: str, *, model: str) -> Start:
    """The tenant's checkpoint that `name` means, locked until the job that needs it is there.

    `name` is a checkpoint's id or name, or a job's id, which means its last one. Raises BadRequest; another
    tenant's is as absent as one that never was.
    """
    meant = [start for start in _meant(session, tenant, name) if _is(start, name)]
    if not meant:
        raise _missing(
            f"There is no checkpoint {name}; a job's are listed at /v1/fine_tuning/jobs/<id>/checkpoints."
        )
    family = family_of(meant[0].job.spec)
    if family != model:
        message = f"{name} is of the family {family}, and the new job's is {model}."
        raise BadRequest(message, code="checkpoint_mismatch", param=FIELD)
    for start in meant:
        # Locked, so that its worker cannot retire it before the new job's row is there.
        query = select(Checkpoint).where(Checkpoint.id == start.checkpoint.id).with_for_update(read=True)
        locked = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
        if locked is not None and locked.available:
            return start
    raise _missing(_gone(session, meant[0]))


def of(session: Session, job_id: str) -> str | None:
    """The folder of the checkpoint that a job starts from; None for a job that starts anew."""
    query = select(Checkpoint.ref).join(JobStart, JobStart.checkpoint == Checkpoint.id)
    return session.scalar(query.where(JobStart.job == job_id))


def _meant(session: Session, tenant: str, name: str) -> list[Start]:
    """Newest first; of a job, the last one and what could take its place."""
    query = (
        select(Checkpoint, Job)
        .join(Job, Job.id == Checkpoint.job)
        .where(Job.tenant == tenant, Job.kind == Kind.FINE_TUNE)
        .order_by(Checkpoint.available.desc(), Checkpoint.fence.desc(), Checkpoint.step.desc())
        .limit(100)
    )
    narrowed = _narrowed(query, name)
    return [Start(row, job) for row, job in session.execute(narrowed)] if narrowed is not None else []


def _narrowed(query: Select[Checkpoint, Job], name: str) -> Select[Checkpoint, Job] | None:
    """None where `name` is no name of a checkpoint at all."""
    if name.startswith(ID_PREFIX[Kind.FINE_TUNE]):
        return query.where(Job.id == name)
    if name.startswith("ftckpt_"):
        return query.where(Checkpoint.id == name)
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    prefix, step = ID_PREFIX[Kind.FINE_TUNE] + parts[1], int(parts[2])
    # The name tells the beginning of the job's id: a range, which the primary key's index finds.
    first, last = prefix + "2" * _LEFT_OUT, prefix + "z" * _LEFT_OUT
    return query.where(Job.id.between(first, last), Checkpoint.step == step)


def _is(start: Start, name: str) -> bool:
    """A name is more than the part of it that was looked for."""
    job, step = start.job, start.checkpoint.step
    full = checkpoint_id(family_of(job.spec), job.tenant, job.spec.get("suffix"), job.id, step)
    return name in (start.checkpoint.id, job.id, full)


def _gone(session: Session, start: Start) -> str:
    kept = session.scalars(checkpoints.available(start.job.id)).all()
    steps = ", ".join(f"{row.id} (step {row.step})" for row in kept)
    instead = f"there are still: {steps}" if steps else "none of this job's are"
    return f"The bytes of {start.words} are no longer kept; {instead}."


def _missing(message: str) -> BadRequest:
    return BadRequest(message, code="checkpoint_not_found", param=FIELD)
