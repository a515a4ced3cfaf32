"""T12: rows of jobs that were over long ago, and how jobs stand whose folders are looked through."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, delete, exists, or_, select
from sqlalchemy.orm import Session

from db import checkpoints
from db.session import now
from db.tables import Checkpoint, File, Job, JobFile, Model, Quota, ResultFile
from domain.job import FINAL, State

#: A prediction or a download that was begun before the deletion of a model may still read it.
_STILL_READ_S = 86_400.0


@dataclass(frozen=True)
class Standing:
    """What decides which of a job's folders stay."""

    is_final: bool
    fence: int
    #: Folders that a row names.
    refs: frozenset[str]


def expired(session: Session, *, older_than_s: float, limit: int = 50) -> Sequence[str]:
    """Jobs that ended so long ago. One whose model is still there stays with it: it tells how that was made.

    So does one from whose checkpoint an unfinished job starts, or whose result such a job reads. A submit that
    takes either at this instant is waited for and then seen: until the commit none can.
    """
    query = _expired(older_than_s)
    found = session.scalars(query.order_by(Job.finished_at).limit(limit)).all()
    # In the order in which a submit locks them; see `starts.find` and `readers.add`.
    points = select(Checkpoint.id).where(Checkpoint.job.in_(found)).order_by(Checkpoint.id)
    session.execute(points.with_for_update())
    owners = select(Job.tenant).where(Job.id.in_(found))
    quotas = select(Quota.tenant).where(Quota.tenant.in_(owners)).order_by(Quota.tenant)
    session.execute(quotas.with_for_update(key_share=True))
    results = select(ResultFile.file).where(ResultFile.job.in_(found))
    session.execute(select(File.id).where(File.id.in_(results)).order_by(File.id).with_for_update())
    return session.scalars(query.where(Job.id.in_(found))).all()


def _expired(older_than_s: float) -> Select[str]:
    is_there = or_(Model.deleted_at.is_(None), Model.deleted_at > now() - _STILL_READ_S)
    has_model = exists().where(Model.job == Job.id, is_there)
    is_over = Job.state.in_(FINAL) & (Job.finished_at < now() - older_than_s)
    # Only jobs that are not over have rows there.
    read = select(ResultFile.job).join(JobFile, JobFile.file == ResultFile.file)
    return select(Job.id).where(
        is_over, ~has_model, Job.id.not_in(checkpoints.needed_jobs()), Job.id.not_in(read)
    )


def forget(session: Session, job_ids: Collection[str]) -> Sequence[str]:
    """Deletes the jobs with all that hangs on them; the keys of the blobs that their result files had."""
    results = select(ResultFile.file).where(ResultFile.job.in_(job_ids))
    files = session.execute(select(File.id, File.blob).where(File.id.in_(results))).all()
    session.execute(delete(Model).where(Model.job.in_(job_ids)))
    session.execute(delete(Job).where(Job.id.in_(job_ids)))
    session.execute(delete(File).where(File.id.in_([file.id for file in files])))
    return [file.blob for file in files]


def standings(session: Session, job_ids: Collection[str]) -> Mapping[str, Standing]:
    """How those of the jobs stand that have a row."""
    rows = session.execute(
        select(Job.id, Job.state, Job.fence, Job.result_ref).where(Job.id.in_(job_ids))
    ).all()
    kept = checkpoints.kept_of_all(session, job_ids)
    return {
        row.id: Standing(
            is_final=State(row.state) in FINAL,
            fence=row.fence,
            refs=frozenset([*kept.get(row.id, ()), *([row.result_ref] if row.result_ref else [])]),
        )
        for row in rows
    }
