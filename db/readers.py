"""Which jobs that are not over read which files: what keeps a file from being deleted.

Whoever adds a reader shares the file's row until it has committed, and whoever deletes a file locks that row before
it looks for readers: so the two cannot cross. Several files are locked in the order of their ids.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.orm import Session

from db.prepared import Prepared
from db.tables import File, Job, JobFile
from domain.errors import NotFound

_THERE = Prepared(
    select(File.id)
    .where(File.id == bindparam("file"), File.tenant == bindparam("tenant"), File.deleted_at.is_(None))
    .with_for_update(read=True, key_share=True)
)
_INSERT = Prepared(insert(JobFile.metadata.tables[JobFile.__tablename__]), columns=("job", "file"))


def fields_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """File id -> field, for each file that a field of a stored spec names."""
    named = {
        "training_file": spec.get("training_file"),
        "validation_file": spec.get("validation_file"),
        "multimodal.test_file": spec.get("multimodal", {}).get("test_file"),
        # Of a check.
        "file": spec.get("file"),
    }
    return {id_: field for field, id_ in named.items() if id_}


def named_by(spec: Mapping[str, Any]) -> dict[str, str]:
    """The same, with the files that stand in the cells of a prediction."""
    return dict.fromkeys(spec.get("files", ()), "inputs") | fields_of(spec)


def add(session: Session, job: Job, fields: Mapping[str, str]) -> None:
    """The job reads these files (id -> field) from now on; NotFound if one was deleted since it was looked for."""
    for id_, field in sorted(fields.items()):
        if _THERE.drive(session, file=id_, tenant=job.tenant).fetchone() is None:
            raise NotFound(f"No file {id_}.", code="file_not_found", param=field)
        _INSERT.drive(session, job=job.id, file=id_)


def drop(session: Session, job: Job) -> None:
    """The job is over. Most predictions name no file, and cost no statement."""
    if named_by(job.spec):
        session.execute(delete(JobFile).where(JobFile.job == job.id))


def one_of(session: Session, file_id: str) -> str | None:
    """A job that reads the file, if there is one."""
    return session.scalar(select(JobFile.job).where(JobFile.file == file_id).limit(1))
