"""Jobs of all kinds over HTTP: found, watched, paused, cancelled. What each kind is about, its own routes tell."""

from collections.abc import Sequence

from flask import Response, request
from sqlalchemy.orm import Session

from api import requests, waiting, watched
from api.job_shapes import AnyJob, AnyJobPage, any_job, polled
from api.routes import Parameter, Routes, page_query
from api.services import Services
from api.shapes import page
from db import files, glances, job_pages, jobs, queues, tables
from db.glances import Glance
from domain.access import Principal, Scope
from domain.job import PUBLIC_STATUSES, Kind, Lane

routes = Routes()

BY_STATUS = Parameter(
    "status", "Only jobs with this status.", {"type": "string", "enum": list(PUBLIC_STATUSES)}
)
BY_METADATA = Parameter(
    "metadata",
    "Only jobs that carry these pairs: `metadata[k]=v`.",
    {"type": "object", "additionalProperties": {"type": "string"}},
)
_BY_KIND = Parameter("kind", "Only jobs of this kind.", {"type": "string", "enum": list(Kind)})


@routes.get(
    "/v1/jobs",
    needs=Scope.JOBS_READ,
    query=(*page_query(), _BY_KIND, BY_STATUS, BY_METADATA),
    answer=AnyJobPage,
    errors=(400, 404),
    tagged=True,
)
def index(plait: Services, who: Principal) -> AnyJobPage:
    """Lists jobs of all kinds, newest first; what is asked for by kind, status and metadata must all hold."""
    kind = requests.one_of("kind", list(Kind))
    wanted, limit = asked_for([Kind(kind)] if kind else list(Kind)), requests.limit()
    with plait.database.reading() as session:
        rows, more = job_pages.page(session, who.tenant, wanted, after=requests.after(), limit=limit)
        results = files.results_of_all(session, [row.id for row in rows])
        found = [_shape(session, row, results.get(row.id, [])) for row in rows]
    return page(AnyJobPage, found, more)


@routes.get(
    "/v1/jobs/<job_id>",
    needs=Scope.JOBS_READ,
    query=waiting.QUERY,
    answer=AnyJob,
    errors=(400, 404),
    tagged=True,
)
def retrieve(plait: Services, who: Principal, job_id: str) -> Response:
    """Tells how a job of any kind stands; with `wait`, once that has changed."""
    watched.until_it_changes(plait, who.tenant, job_id)
    glance = glances.take(plait.database, who.tenant, job_id)
    return waiting.applied(
        plait.rendered.answer(glance, seen, request.headers.get("If-None-Match")).response()
    )


@routes.post("/v1/jobs/<job_id>/cancel", needs=Scope.JOBS_WRITE, answer=AnyJob, errors=(404, 409))
def cancel(plait: Services, who: Principal, job_id: str) -> Response:
    """Cancels a waiting job at once; asks a running one to stop."""
    with plait.change(who) as session:
        row = jobs.cancel(session, who.tenant, job_id)
        job = _shape(session, row, files.results_of(session, row.id))
    plait.bells.poke(job.worker)
    plait.bells.wake(job.id)
    return polled(job)


@routes.post("/v1/jobs/<job_id>/pause", needs=Scope.JOBS_WRITE, answer=AnyJob, errors=(404, 409))
def pause(plait: Services, who: Principal, job_id: str) -> Response:
    """Pauses a waiting job at once; asks a running one to stop where it can go on later."""
    with plait.change(who) as session:
        row = jobs.pause(session, who.tenant, job_id)
        job = _shape(session, row, files.results_of(session, row.id))
    plait.bells.poke(job.worker)
    plait.bells.wake(job.id)
    return polled(job)


@routes.post("/v1/jobs/<job_id>/resume", needs=Scope.JOBS_WRITE, answer=AnyJob, errors=(404, 409))
def resume(plait: Services, who: Principal, job_id: str) -> Response:
    """Lets a paused job go on, from its last checkpoint if it has one."""
    with plait.change(who) as session:
        row = jobs.resume(session, who.tenant, job_id)
        job = _shape(session, row, files.results_of(session, row.id))
    plait.bells.ring(Lane(job.queue.lane))
    plait.bells.wake(job.id)
    return polled(job)


def asked_for(kinds: list[Kind]) -> job_pages.Wanted:
    """What the query's `status` and `metadata` ask for, among jobs of these kinds."""
    status = requests.one_of("status", PUBLIC_STATUSES)
    return job_pages.Wanted(kinds=kinds, status=status, labels=requests.metadata_filter())


def _shape(session: Session, row: tables.Job, result_files: Sequence[str]) -> AnyJob:
    return any_job(row, position=queues.position(session, row), result_files=result_files)


def seen(glance: Glance) -> AnyJob:
    """The job as this route shows it."""
    return any_job(glance.job(), position=glance.position, result_files=glance.result_files)
