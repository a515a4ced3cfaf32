"""The JSON shape of a job of any kind, as `/v1/jobs` shows it. A fine-tune's own shape is in `api.fine_tune_shapes`."""

from collections.abc import Sequence
from typing import Any, Literal

from flask import Response

from api.fine_tune_shapes import Job
from api.routes import respond
from api.shapes import JobError, Listed, Page, Queue
from db import tables
from domain.job import FINAL, Kind, Stage, State, public_status


class AnyJob(Listed):
    object: Literal["job"] = "job"
    kind: Kind
    status: str
    #: The family or model that the job is about, and the file that a check reads.
    model: str | None
    file: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    error: JobError | None
    progress: dict[str, Any] | None
    queue: Queue
    attempt: int
    deaths: int
    worker: str | None
    metadata: dict[str, str] | None
    #: What came of it. Predictions are read at `/v1/predictions/{id}`.
    result: dict[str, Any] | None
    result_files: list[str]


class AnyJobPage(Page[AnyJob]):
    """Jobs of all kinds."""


def any_job(row: tables.Job, *, position: int | None, result_files: Sequence[str]) -> AnyJob:
    return AnyJob(
        id=row.id,
        kind=Kind(row.kind),
        status=public_status(State(row.state), Stage(row.stage)),
        model=row.spec.get("model"),
        file=row.spec.get("file"),
        created_at=int(row.created_at),
        started_at=int(row.started_at) if row.started_at is not None else None,
        finished_at=int(row.finished_at) if row.finished_at is not None and row.state in FINAL else None,
        error=JobError.model_validate(row.error) if row.error else None,
        progress=row.progress,
        queue=Queue(lane=row.lane, position=position, priority=row.priority),
        attempt=row.attempt,
        deaths=row.deaths,
        worker=row.lease_owner,
        metadata=row.labels,
        result=None if row.kind == Kind.PREDICT else row.result,
        result_files=list(result_files),
    )


def polled(job: AnyJob | Job) -> Response:
    """An answer that says when to ask again, until there is nothing to ask for."""
    response = respond(job)
    if job.status not in FINAL:
        response.headers["Retry-After"] = "1"
    return response
