"""Uploaded and resulting files: their rows. The bytes are in `db.blobs`."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db import audit, predictions, room
from db.prepared import Prepared
from db.session import now
from db.tables import File, Job, ResultFile
from domain.errors import Conflict, NotFound, Unprocessable
from domain.job import UNFINISHED, Kind


def add(session: Session, file: File) -> File:
    """The stored row: `file`, or the one that the same Idempotency-Key made before."""
    quota = room.locked(session, file.tenant)
    earlier = _same_key(session, file)
    if earlier is not None:
        return earlier
    room.refuse_over(session, quota, file.bytes)
    session.add(file)
    session.flush()
    audit.made(session, file.id)
    return file


def _same_key(session: Session, file: File) -> File | None:
    if file.idempotency_key is None:
        return None
    earlier = session.scalars(
        select(File).where(File.tenant == file.tenant, File.idempotency_key == file.idempotency_key)
    ).one_or_none()
    if earlier is not None and earlier.body_hash != file.body_hash:
        raise Unprocessable(
            "This Idempotency-Key was used with another file; send a new key.", code="idempotency_key_reused"
        )
    return earlier


def get(session: Session, tenant: str, file_id: str, *, param: str = "id") -> File:
    try:
        return session.scalars(
            select(File).where(File.id == file_id, File.tenant == tenant, File.deleted_at.is_(None))
        ).one()
    except NoResultFound:
        raise NotFound(f"No file {file_id}.", code="file_not_found", param=param) from None


_EXISTS = Prepared(
    select(File.id).where(
        File.id == bindparam("file"), File.tenant == bindparam("tenant"), File.deleted_at.is_(None)
    )
)


def refuse_unknown(session: Session, tenant: str, file_id: str, *, param: str) -> None:
    """NotFound, as `get` raises it, where the tenant has no such file."""
    if _EXISTS.run(session, tenant=tenant, file=file_id).first() is None:
        raise NotFound(f"No file {file_id}.", code="file_not_found", param=param)


def page(
    session: Session,
    tenant: str,
    *,
    after: str | None = None,
    limit: int = 20,
    purpose: str | None = None,
    newest_first: bool = True,
) -> tuple[Sequence[File], bool]:
    """The tenant's files from behind `after`; and whether there are more."""
    query = select(File).where(File.tenant == tenant, File.deleted_at.is_(None))
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    if after is not None:
        mark = get(session, tenant, after, param="after")
        same = File.created_at == mark.created_at
        if newest_first:
            query = query.where((File.created_at < mark.created_at) | (same & (File.id < mark.id)))
        else:
            query = query.where((File.created_at > mark.created_at) | (same & (File.id > mark.id)))
    order = (
        (File.created_at.desc(), File.id.desc()) if newest_first else (File.created_at.asc(), File.id.asc())
    )
    rows = session.scalars(query.order_by(*order).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def delete(session: Session, tenant: str, file_id: str) -> File:
    """Takes a file away; a Conflict while an unfinished job reads it."""
    file = get(session, tenant, file_id)
    reader = _reader_of(session, tenant, file_id)
    if reader is not None:
        raise Conflict(f"Job {reader} still reads {file_id}; cancel it or wait.", code="file_in_use")
    file.deleted_at = session.scalar(select(now()))
    # The same key may bring the same file again.
    file.idempotency_key = None
    return file


def _reader_of(session: Session, tenant: str, file_id: str) -> str | None:
    """An unfinished job that reads the file. Predictions are many and large: the database looks for those."""
    kinds = set(Kind) - {Kind.PREDICT}
    others = select(Job).where(Job.tenant == tenant, Job.kind.in_(kinds), Job.state.in_(UNFINISHED))
    readers = (job.id for job in session.scalars(others) if file_id in files_of(job.spec))
    return next(readers, None) or predictions.reader_of(session, tenant, file_id)


def files_of(spec: dict[str, Any]) -> dict[str, str]:
    """Field -> file id for each file that a stored spec names."""
    named = {
        "training_file": spec.get("training_file"),
        "validation_file": spec.get("validation_file"),
        "multimodal.test_file": spec.get("multimodal", {}).get("test_file"),
        # Of a check.
        "file": spec.get("file"),
    }
    return {id_: field for field, id_ in named.items() if id_}


def note_check(session: Session, file_id: str, **found: Any) -> None:
    """Keeps what a check found on the file's row."""
    session.execute(update(File).where(File.id == file_id).values(**found))


_RESULTS = Prepared(
    select(ResultFile.file).where(ResultFile.job == bindparam("job")).order_by(ResultFile.position)
)


def results_of(session: Session, job_id: str) -> Sequence[str]:
    return _RESULTS.run(session, job=job_id).scalars().all()


def results_of_all(session: Session, job_ids: Collection[str]) -> dict[str, list[str]]:
    """Job -> its result files in their order, for the jobs that have any."""
    found: dict[str, list[str]] = {}
    query = select(ResultFile.job, ResultFile.file).where(ResultFile.job.in_(job_ids))
    for job, file in session.execute(query.order_by(ResultFile.job, ResultFile.position)):
        found.setdefault(job, []).append(file)
    return found


def add_result(session: Session, job_id: str, file: File, position: int) -> None:
    """A file that a job made; told once, however often its finish is tried."""
    session.add(file)
    session.flush()
    session.add(ResultFile(job=job_id, file=file.id, position=position))
