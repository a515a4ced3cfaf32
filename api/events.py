"""A job's events over HTTP: as pages, newest first, or as a stream that goes on to the job's end."""

from flask import Response, request

from api import requests, shapes
from api.listener import Listener
from api.routes import Parameter, Routes, page_query
from api.services import Services
from api.stream import EVENT_STREAM, Streamed
from db import events, jobs, tables
from domain.access import Principal, Scope
from domain.errors import NotFound
from domain.job import Kind

routes = Routes()

_STREAM = Parameter(
    "stream",
    "Server-sent events, oldest first, until the job is final; so does `Accept: text/event-stream`. "
    "`after` is then the id or the number of the last event that is known.",
    {"type": "boolean", "default": False},
)
_LAST_EVENT = Parameter(
    "Last-Event-ID",
    "For a stream: the number of the last event that is known. A browser sends it by itself.",
    {"type": "string"},
    place="header",
)


@routes.get(
    "/v1/fine_tuning/jobs/<job_id>/events",
    needs=Scope.JOBS_READ,
    query=(*page_query(), _STREAM, _LAST_EVENT),
    answer=shapes.EventPage,
    media=(EVENT_STREAM,),
    errors=(400, 404, 429),
)
def list_events(plait: Services, who: Principal, job_id: str) -> shapes.EventPage | Response:
    """Lists what happened to a job, newest first; or streams it."""
    wants_stream, limit = _wants_stream(), requests.limit()
    with plait.database.reading() as session:
        job = jobs.get(session, who.tenant, job_id, kind=Kind.FINE_TUNE)
        if not wants_stream:
            rows, more = events.page(session, job.id, after=requests.after(), limit=limit)
            return shapes.page(shapes.EventPage, [shapes.event(row) for row in rows], more)
    return _stream(plait, who, job)


def _wants_stream() -> bool:
    asked = requests.one_of("stream", ("true", "1", "false", "0"))
    if asked is not None:
        return asked in ("true", "1")
    return request.accept_mimetypes.best_match(("application/json", EVENT_STREAM)) == EVENT_STREAM


def _stream(plait: Services, who: Principal, job: tables.Job) -> Response:
    listener = Listener(job.tenant, who.key_id, job.id, _seen(job))
    plait.listeners.refuse_if_full(job.tenant)
    return Streamed(listener, plait.listeners.add)


def _seen(job: tables.Job) -> int:
    """What the caller knows already. The header wins: a browser repeats the address as it was at first."""
    name = "Last-Event-ID" if request.headers.get("Last-Event-ID") else "after"
    cursor = request.headers.get("Last-Event-ID") or requests.after()
    seen = events.number(job.id, cursor, param=name) if cursor is not None else 0
    if seen > job.event_seq:
        raise NotFound(f"There is no event {seen} in this job yet.", code="event_not_found", param=name)
    return seen
