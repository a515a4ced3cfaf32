"""Fine-tuning jobs over HTTP: submitted, listed, watched, cancelled. Knows no state of a job; `db.jobs` does."""

from typing import Any

from flask import Response
from sqlalchemy.orm import Session

from api import requests, shapes
from api.routes import Parameter, Routes, page_query, respond
from api.services import Services
from db import events, files, jobs, tables
from domain.access import Principal, Scope
from domain.errors import BadRequest, NotFound
from domain.job import Kind, Lane
from domain.specs import FineTune, parse

routes = Routes()

_BY_METADATA = Parameter(
    "metadata",
    "Only jobs that carry these pairs: `metadata[k]=v`.",
    {"type": "object", "additionalProperties": {"type": "string"}},
)


@routes.post(
    "/v1/fine_tuning/jobs",
    needs=Scope.JOBS_WRITE,
    body=FineTune,
    answer=shapes.Job,
    errors=(400, 413, 415, 422, 429),
    takes_key=True,
)
def create(plait: Services, who: Principal) -> Response:
    """Submits a fine-tuning job. Its files are checked first; the answer does not wait for that."""
    new = _submission(who, requests.json_body())
    with plait.database.transaction() as session:
        _refuse_missing_files(session, who.tenant, new.spec)
        job = _shape(session, jobs.submit(session, new))
    plait.bells.ring(Lane(job.queue.lane))
    return _polled(job)


@routes.get(
    "/v1/fine_tuning/jobs",
    needs=Scope.JOBS_READ,
    query=(*page_query(), _BY_METADATA),
    answer=shapes.JobPage,
    errors=(400, 404),
)
def index(plait: Services, who: Principal) -> shapes.JobPage:
    """Lists the fine-tuning jobs, newest first."""
    limit, labels = requests.limit(), requests.metadata_filter()
    with plait.database.reading() as session:
        rows, more = jobs.page(session, who.tenant, after=requests.after(), limit=limit, labels=labels)
        return shapes.page(shapes.JobPage, [_shape(session, row) for row in rows], more)


@routes.get("/v1/fine_tuning/jobs/<job_id>", needs=Scope.JOBS_READ, answer=shapes.Job, errors=(404,))
def retrieve(plait: Services, who: Principal, job_id: str) -> Response:
    """Tells how a fine-tuning job stands."""
    with plait.database.reading() as session:
        job = _shape(session, jobs.get(session, who.tenant, job_id, kind=Kind.FINE_TUNE))
    return _polled(job)


@routes.post(
    "/v1/fine_tuning/jobs/<job_id>/cancel", needs=Scope.JOBS_WRITE, answer=shapes.Job, errors=(404, 409)
)
def cancel(plait: Services, who: Principal, job_id: str) -> Response:
    """Cancels a waiting job at once; asks a running one to stop and keep its last checkpoint."""
    with plait.database.transaction() as session:
        job = _shape(session, jobs.cancel(session, who.tenant, job_id, kind=Kind.FINE_TUNE))
    plait.bells.poke(job.worker)
    plait.bells.wake(job.id)
    return _polled(job)


@routes.get(
    "/v1/fine_tuning/jobs/<job_id>/events",
    needs=Scope.JOBS_READ,
    query=page_query(),
    answer=shapes.EventPage,
    errors=(400, 404),
)
def list_events(plait: Services, who: Principal, job_id: str) -> shapes.EventPage:
    """Lists what happened to a job, newest first."""
    limit = requests.limit()
    with plait.database.reading() as session:
        job = jobs.get(session, who.tenant, job_id, kind=Kind.FINE_TUNE)
        rows, more = events.page(session, job.id, after=requests.after(), limit=limit)
    return shapes.page(shapes.EventPage, [shapes.event(row) for row in rows], more)


def _submission(who: Principal, body: dict[str, Any]) -> jobs.Submission:
    asked = parse(FineTune, body)
    # Stored with its defaults written out: a job means tomorrow what it meant when it was accepted.
    spec = asked.model_copy(update={"multimodal": asked.merged()})
    return jobs.Submission(
        tenant=who.tenant,
        spec=spec.model_dump(mode="json", by_alias=True),
        priority=asked.priority,
        labels=asked.metadata,
        key=requests.idempotency_key(),
        body_hash=requests.body_hash(body),
        is_retry=requests.is_retry(),
    )


def _refuse_missing_files(session: Session, tenant: str, spec: dict[str, Any]) -> None:
    for file_id, field in files.files_of(spec).items():
        try:
            files.get(session, tenant, file_id, param=field)
        except NotFound as error:
            # The address exists and the body is wrong: OpenAI, too, answers 400 here.
            raise BadRequest(error.message, code=error.code, param=error.param) from None


def _shape(session: Session, row: tables.Job) -> shapes.Job:
    return shapes.job(
        row, position=jobs.position(session, row), result_files=files.results_of(session, row.id)
    )


def _polled(job: shapes.Job) -> Response:
    """An answer that says when to ask again."""
    response = respond(job)
    if not shapes.is_final(job):
        response.headers["Retry-After"] = "1"
    return response
