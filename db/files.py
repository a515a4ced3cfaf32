"""Uploaded and resulting files: their rows. The bytes are in `db.blobs`."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db import audit, readers, room
from db.prepared import Prepared
from db.session import now
from db.tables import File, ResultFile
from domain.errors import Conflict, NotFound, Unprocessable

#: The purpose of files that jobs make.
RESULTS = "fine-tune-results"


def add(session: Session, file: File) -> File:
    """The stored row: `file`, or the one that the same Idempotency-Key made before.

    Bytes that the tenant has already are kept once: the row then names another blob than `file` did, and the
    new one is for the caller to delete, after the commit.
    """
    quota = room.locked(session, file.tenant)
    earlier = _same_key(session, file)
    if earlier is not None:
        return earlier
    room.refuse_over(session, quota, file.bytes)
    file.blob = _same_bytes(session, file) or file.blob
    session.add(file)
    session.flush()
    audit.made(session, file.id)
    return file


def _same_bytes(session: Session, file: File) -> str | None:
    """The blob of another upload of this tenant's with the same bytes. Never of another tenant's: nobody may
    learn what others have. Nor of a job's result, which goes with its job."""
    same = select(File.blob).where(
        File.tenant == file.tenant,
        File.sha256 == file.sha256,
        File.bytes == file.bytes,
        File.purpose != RESULTS,
        File.deleted_at.is_(None),
    )
    return session.scalar(same.limit(1))


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


def get(session: Session, tenant: str, file_id: str, *, param: str = "id", lock: bool = False) -> File:
    query = select(File).where(File.id == file_id, File.tenant == tenant, File.deleted_at.is_(None))
    try:
        return session.scalars(query.with_for_update() if lock else query).one()
    except NoResultFound:
        raise NotFound(f"No file {file_id}.", code="file_not_found", param=param) from None


def readable(session: Session, tenant: str, ids: Collection[str]) -> Sequence[File]:
    """Those of the files that a table of the tenant's may name: its uploads, not what jobs made, which goes with them."""
    mine = (File.tenant == tenant, File.deleted_at.is_(None), File.purpose != RESULTS)
    return session.scalars(select(File).where(File.id.in_(ids), *mine)).all()


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


def delete(session: Session, tenant: str, file_id: str) -> str | None:
    """Takes a file away; a Conflict while an unfinished job reads it.

    Returns the key of its blob, to be deleted after the commit; None while another file has the same.
    """
    room.locked(session, tenant)
    # Submits that are about to read it are waited for, and then seen.
    file = get(session, tenant, file_id, lock=True)
    reader = readers.one_of(session, file_id)
    if reader is not None:
        raise Conflict(f"Job {reader} still reads {file_id}; cancel it or wait.", code="file_in_use")
    file.deleted_at = session.scalar(select(now()))
    # The same key may bring the same file again.
    file.idempotency_key = None
    session.flush()
    return next(iter(unnamed(session, [file.blob])), None)


def unnamed(session: Session, blobs: Collection[str]) -> list[str]:
    """Those of the keys that no file names. Nobody can come to share them: only the blob of a file is shared."""
    named = set(session.scalars(select(File.blob).where(File.blob.in_(blobs), File.deleted_at.is_(None))))
    return [key for key in blobs if key not in named]


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
