"""What a child is given with a job: all that it needs, as plain values. It has no database.

Raises the PlaitError of whatever the job names and is no longer there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import settings as configuration
from db import files, registry
from db.artifacts import Artifacts
from db.blobs import Blobs
from db.session import Database
from db.tables import Job
from domain.errors import NotFound
from domain.job import Kind


def make_assignment(
    job: Job,
    folder: Path,
    settings: configuration.Settings,
    database: Database,
    blobs: Blobs,
    artifacts: Artifacts,
) -> dict[str, Any]:
    """`folder` is the one that this claim writes into."""
    return {
        "job": job.id,
        "spec": job.spec,
        "resolved": job.resolved,
        "files": _files(job, database, blobs),
        "folder": str(folder),
        "store": str(artifacts.root),
        "checkpoint": str(artifacts.path(job.checkpoint_ref)) if job.checkpoint_ref else None,
        "place": {
            "kind": job.kind,
            "stage": job.stage,
            "encoders": str(settings.encoders_dir.absolute()),
            "local_roots": [str(p) for p in settings.local_roots],
            "allow_hub": settings.allow_hub,
            "cache": str(settings.data.absolute() / "cache"),
            "cache_bytes": settings.cache_bytes,
            "kernels": settings.kernels,
        },
        **(_prediction(job, database, blobs, artifacts) if job.kind == Kind.PREDICT else {}),
    }


def _files(job: Job, database: Database, blobs: Blobs) -> dict[str, dict[str, Any]]:
    """Field of the spec -> the file's id, name, path and declared schema."""
    with database.reading() as session:
        rows = {
            field: files.get(session, job.tenant, file_id, param=field)
            for file_id, field in files.files_of(job.spec).items()
        }
    return {
        field: {
            "id": row.id,
            "filename": row.filename,
            "path": _local(blobs, row.blob, field),
            "schema": row.schema,
        }
        for field, row in rows.items()
    }


def _prediction(job: Job, database: Database, blobs: Blobs, artifacts: Artifacts) -> dict[str, Any]:
    """The model may have been deleted since the prediction was accepted: `model_not_found`."""
    with database.reading() as session:
        model = registry.get(session, job.tenant, job.spec["model"])
    keys = [cell["blob"] for cell in _stored(job.spec)]
    return {
        "model": {"id": model.id, "folder": str(artifacts.path(model.ref))},
        "blobs": {key: _local(blobs, key, "inputs") for key in keys},
    }


def _local(blobs: Blobs, key: str, param: str) -> str:
    try:
        with blobs.local(key) as path:
            return str(path)
    except FileNotFoundError:
        raise NotFound("The bytes of a file are gone.", code="file_not_found", param=param) from None


def own_blobs(job: Job) -> list[str]:
    """Keys of the media that were sent with a prediction and belong to nothing else."""
    if job.kind != Kind.PREDICT:
        return []
    return [cell["blob"] for cell in _stored(job.spec) if not cell.get("file")]


def _stored(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells of a prediction whose bytes lie in the blob store."""
    for row in spec["inputs"]:
        for cell in row["values"].values():
            if isinstance(cell, dict) and "blob" in cell:
                yield cell
