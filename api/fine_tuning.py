"""Fine-tuning jobs over HTTP: submitted, listed, watched, paused, cancelled. Knows no state of a job; `db.jobs` does."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Response, request
from sqlalchemy.orm import Session

from api import fine_tune_shapes, requests, waiting, watched
from api.job_shapes import polled
from api.jobs import BY_METADATA, BY_STATUS, asked_for
from api.routes import Routes, page_query
from api.services import Services
from api.shapes import page
from db import at_once, files, glances, job_pages, jobs, queues, readers, registry, starts, tables
from db.glances import Glance
from domain.access import Principal, Scope
from domain.errors import BadRequest, NotFound
from domain.job import Kind, Lane
from domain.shapes import parse
from domain.specs import FineTune, family_of, start_of

routes = Routes()


@routes.post(
    "/v1/fine_tuning/jobs",
    needs=Scope.JOBS_WRITE,
    body=FineTune,
    answer=fine_tune_shapes.Job,
    errors=(400, 404, 413, 415, 422, 429),
    takes_key=True,
)
def create(plait: Services, who: Principal) -> Response:
    """Submits a fine-tuning job. Its files are checked first; the answer does not wait for that."""
    new = _submission(who, requests.json_body())
    if (model := start_of(new.spec)) is not None:
        with plait.database.reading() as session:
            registry.get(session, who.tenant, model)
    made = None if new.spec.get(starts.FIELD) else plait.submitted(who, new)
    return polled(_new(plait, made) if made is not None else _step_by_step(plait, who, new))


@routes.get(
    "/v1/fine_tuning/jobs",
    needs=Scope.JOBS_READ,
    query=(*page_query(), BY_STATUS, BY_METADATA),
    answer=fine_tune_shapes.JobPage,
    errors=(400, 404),
    tagged=True,
)
def index(plait: Services, who: Principal) -> fine_tune_shapes.JobPage:
    """Lists the fine-tuning jobs, newest first."""
    wanted, limit = asked_for([Kind.FINE_TUNE]), requests.limit()
    with plait.database.reading() as session:
        rows, more = job_pages.page(session, who.tenant, wanted, after=requests.after(), limit=limit)
        results = files.results_of_all(session, [row.id for row in rows])
        found = [_shape(session, row, results.get(row.id, [])) for row in rows]
    return page(fine_tune_shapes.JobPage, found, more)


@routes.get(
    "/v1/fine_tuning/jobs/<job_id>",
    needs=Scope.JOBS_READ,
    query=waiting.QUERY,
    answer=fine_tune_shapes.Job,
    errors=(400, 404),
    tagged=True,
)
def retrieve(plait: Services, who: Principal, job_id: str) -> Response:
    """Tells how a fine-tuning job stands; with `wait`, once that has changed."""
    watched.until_it_changes(plait, who.tenant, job_id, kind=Kind.FINE_TUNE)
    glance = glances.take(plait.database, who.tenant, job_id, kind=Kind.FINE_TUNE)
    return waiting.applied(
        plait.rendered.answer(glance, seen, request.headers.get("If-None-Match")).response()
    )


@routes.post(
    "/v1/fine_tuning/jobs/<job_id>/cancel",
    needs=Scope.JOBS_WRITE,
    answer=fine_tune_shapes.Job,
    errors=(404, 409),
)
def cancel(plait: Services, who: Principal, job_id: str) -> Response:
    """Cancels a waiting job at once; asks a running one to stop and keep its last checkpoint."""
    with plait.change(who) as session:
        row = jobs.cancel(session, who.tenant, job_id, kind=Kind.FINE_TUNE)
        job = _shape(session, row, files.results_of(session, row.id))
    plait.bells.poke(job.worker)
    plait.bells.wake(job.id)
    return polled(job)


@routes.post(
    "/v1/fine_tuning/jobs/<job_id>/pause",
    needs=Scope.JOBS_WRITE,
    answer=fine_tune_shapes.Job,
    errors=(404, 409),
)
def pause(plait: Services, who: Principal, job_id: str) -> Response:
    """Pauses a waiting job at once; asks a running one for a checkpoint and pauses it with that."""
    with plait.change(who) as session:
        row = jobs.pause(session, who.tenant, job_id, kind=Kind.FINE_TUNE)
        job = _shape(session, row, files.results_of(session, row.id))
    plait.bells.poke(job.worker)
    plait.bells.wake(job.id)
    return polled(job)


@routes.post(
    "/v1/fine_tuning/jobs/<job_id>/resume",
    needs=Scope.JOBS_WRITE,
    answer=fine_tune_shapes.Job,
    errors=(404, 409),
)
def resume(plait: Services, who: Principal, job_id: str) -> Response:
    """Lets a paused job go on from its last checkpoint, on the same attempt."""
    with plait.change(who) as session:
        row = jobs.resume(session, who.tenant, job_id, kind=Kind.FINE_TUNE)
        job = _shape(session, row, files.results_of(session, row.id))
    plait.bells.ring(Lane(job.queue.lane))
    plait.bells.wake(job.id)
    return polled(job)


def _submission(who: Principal, body: dict[str, Any]) -> jobs.Submission:
    asked = parse(FineTune, body)
    # Stored with its defaults written out: a job means tomorrow what it meant when it was accepted.
    spec = asked.model_copy(update={"multimodal": asked.merged()}).model_dump(mode="json", by_alias=True)
    return jobs.Submission(
        tenant=who.tenant,
        spec=spec,
        files=readers.fields_of(spec),
        priority=asked.priority,
        labels=asked.metadata,
        key=requests.idempotency_key(),
        body_hash=requests.body_hash(body),
        is_retry=requests.is_retry(),
    )


def _new(plait: Services, made: at_once.Made) -> fine_tune_shapes.Job:
    plait.bells.ring(Lane(made.job.lane))
    return fine_tune_shapes.job(made.job, position=made.position, result_files=[])


def _step_by_step(plait: Services, who: Principal, new: jobs.Submission) -> fine_tune_shapes.Job:
    with plait.change(who) as session:
        row = _submitted(session, _started(session, new))
    plait.bells.ring(Lane(row.lane))
    # Read afterwards: other submits of the tenant need not wait for what only the answer shows.
    return seen(glances.take(plait.database, who.tenant, row.id))


def _submitted(session: Session, new: jobs.Submission) -> tables.Job:
    try:
        return jobs.submit(session, new)
    except NotFound as error:
        # The address exists and the body is wrong: OpenAI, too, answers 400 here.
        raise BadRequest(error.message, code=error.code, param=error.param) from None


def _started(session: Session, new: jobs.Submission) -> jobs.Submission:
    """`new` with the checkpoint that it starts from, if it names one."""
    name = new.spec.get(starts.FIELD)
    if name is None:
        return new
    start = starts.find(session, new.tenant, name, model=family_of(new.spec))
    return replace(
        new, start=start.checkpoint.id, message=f"{new.message} Training goes on from {start.words}."
    )


def _shape(session: Session, row: tables.Job, result_files: Sequence[str]) -> fine_tune_shapes.Job:
    return fine_tune_shapes.job(row, position=queues.position(session, row), result_files=result_files)


def seen(glance: Glance) -> fine_tune_shapes.Job:
    """The job as this route shows it."""
    return fine_tune_shapes.job(glance.job(), position=glance.position, result_files=glance.result_files)
