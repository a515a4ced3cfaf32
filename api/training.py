"""What a fine-tuning job tells of its training over HTTP: checkpoints, curves and what its process printed."""

from api import requests, training_shapes
from api.routes import Parameter, Routes, page_query
from api.services import Services
from api.shapes import page
from db import checkpoints, jobs, metrics
from db.logs import Logs
from domain.access import Principal, Scope
from domain.job import Kind

routes = Routes()

_POINTS, _MOST_POINTS = 500, 10_000
_LINES, _MOST_LINES = 200, 10_000
_NAMES = Parameter("names", "Only these metrics, separated by commas.", {"type": "string"})
_MAX_POINTS = Parameter(
    "max_points",
    "How many points a curve has at most; its first and its last are always among them.",
    {"type": "integer", "minimum": 2, "maximum": _MOST_POINTS, "default": _POINTS},
)
_TAIL = Parameter(
    "tail",
    "How many lines from the end.",
    {"type": "integer", "minimum": 1, "maximum": _MOST_LINES, "default": _LINES},
)


@routes.get(
    "/v1/fine_tuning/jobs/<job_id>/checkpoints",
    needs=Scope.JOBS_READ,
    query=page_query(default=10),
    answer=training_shapes.CheckpointPage,
    errors=(400, 404),
    tagged=True,
)
def list_checkpoints(plait: Services, who: Principal, job_id: str) -> training_shapes.CheckpointPage:
    """Lists the checkpoints that a job published, newest first."""
    limit = requests.limit(default=10)
    with plait.database.reading() as session:
        job = jobs.get(session, who.tenant, job_id, kind=Kind.FINE_TUNE)
        rows, more = checkpoints.page(session, job.id, after=requests.after(), limit=limit)
    found = [training_shapes.checkpoint(job, row) for row in rows]
    return page(training_shapes.CheckpointPage, found, more)


@routes.get(
    "/v1/fine_tuning/jobs/<job_id>/metrics",
    needs=Scope.JOBS_READ,
    query=(_NAMES, _MAX_POINTS),
    answer=training_shapes.Metrics,
    errors=(400, 404),
    tagged=True,
)
def list_metrics(plait: Services, who: Principal, job_id: str) -> training_shapes.Metrics:
    """Gives a job's metrics as curves by step, thinned where they have more points than asked for."""
    names, most = requests.words("names"), requests.number("max_points", _POINTS, least=2, most=_MOST_POINTS)
    with plait.database.reading() as session:
        job = jobs.get(session, who.tenant, job_id, kind=Kind.FINE_TUNE)
        found = metrics.series(session, job.id, names=names, max_points=most)
    return training_shapes.curves(job, found)


@routes.get(
    "/v1/fine_tuning/jobs/<job_id>/logs",
    needs=Scope.JOBS_READ,
    query=(_TAIL,),
    answer=training_shapes.LogsOfJob,
    errors=(400, 404),
)
def list_logs(plait: Services, who: Principal, job_id: str) -> training_shapes.LogsOfJob:
    """Gives the last lines that a job's processes printed, one text for each worker that had it."""
    lines = requests.number("tail", _LINES, least=1, most=_MOST_LINES)
    with plait.database.reading() as session:
        job = jobs.get(session, who.tenant, job_id, kind=Kind.FINE_TUNE)
    return training_shapes.logs(job, Logs(plait.settings.data).tail(job.id, lines))
