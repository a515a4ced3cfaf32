"""What a child is given with a job: all that it needs, as plain values. It has no database.

Raises the PlaitError of whatever the job names and is no longer there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import settings as configuration
from db import checkpoints, files, readers, registry, starts
from db.artifacts import Artifacts
from db.session import Database
from db.tables import Job
from domain.job import Kind
from domain.specs import start_of
from worker.fetching import storage_of


def make_assignment(
    job: Job,
    folder: Path,
    settings: configuration.Settings,
    database: Database,
    artifacts: Artifacts,
) -> dict[str, Any]:
    """`folder` is the one that this claim writes into."""
    return {
        "job": job.id,
        "spec": job.spec,
        "resolved": job.resolved,
        "files": _files(job, database),
        "folder": str(folder),
        "store": str(artifacts.root),
        "storage": storage_of(settings),
        "place": {
            "kind": job.kind,
            "stage": job.stage,
            "encoders": str(settings.encoders_dir.absolute()),
            "local_roots": [str(p) for p in settings.local_roots],
            "allow_hub": settings.allow_hub,
            "cache": str(settings.data.absolute() / "cache"),
            "cache_bytes": settings.cache_bytes,
            "decode_timeout_s": settings.decode_timeout_s,
            "kernels": settings.kernels,
            "gpu_locks": str(settings.gpu_locks_dir.absolute()),
        },
        **(_checkpoints(job, database, artifacts) if job.kind == Kind.FINE_TUNE else {}),
        **(_start(job, database, artifacts) if job.kind == Kind.FINE_TUNE else {}),
        **(_prediction(job, database, artifacts) if job.kind == Kind.PREDICT else {}),
    }


def _checkpoints(job: Job, database: Database, artifacts: Artifacts) -> dict[str, Any]:
    """Its own, newest first, and the one of another job that it starts from: whose bytes are sound, the child sees."""
    with database.reading() as session:
        own, start = checkpoints.kept(session, job.id), starts.of(session, job.id)
    return {
        "checkpoints": [str(artifacts.path(ref)) for ref in own],
        "start": str(artifacts.path(start)) if start else None,
    }


def _files(job: Job, database: Database) -> dict[str, dict[str, Any]]:
    """Field of the spec -> the file's id, name, declared schema, and where its bytes are."""
    with database.reading() as session:
        rows = {
            field: files.get(session, job.tenant, file_id, param=field)
            for file_id, field in readers.fields_of(job.spec).items()
        }
    return {
        field: {
            "id": row.id,
            "filename": row.filename,
            "blob": row.blob,
            "sha256": row.sha256,
            "schema": row.schema,
        }
        for field, row in rows.items()
    }


def _prediction(job: Job, database: Database, artifacts: Artifacts) -> dict[str, Any]:
    return {
        "model": _model(job, job.spec["model"], database, artifacts),
        "blobs": {cell["blob"]: cell["sha256"] for cell in _stored(job.spec)},
    }


def _start(job: Job, database: Database, artifacts: Artifacts) -> dict[str, Any]:
    """The model that a training starts from."""
    name = start_of(job.spec)
    return {"model": _model(job, name, database, artifacts)} if name else {}


def _model(job: Job, name: str, database: Database, artifacts: Artifacts) -> dict[str, str]:
    """It may have been deleted since the job was accepted: `model_not_found`."""
    with database.reading() as session:
        model = registry.get(session, job.tenant, name)
    return {"id": model.id, "folder": str(artifacts.path(model.ref))}


def own_blobs(job: Job) -> list[str]:
    """Keys of the media that were sent with a prediction and belong to nothing else."""
    if job.kind != Kind.PREDICT:
        return []
    return [cell["blob"] for cell in _stored(job.spec) if not cell.get("file")]


def _stored(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells of a prediction whose bytes lie in the blob store."""
    for row in spec["inputs"]:
        for cell in row["values"].values():
            several = cell.get("several") if isinstance(cell, dict) else None
            yield from (part for part in several or [cell] if isinstance(part, dict) and "blob" in part)
