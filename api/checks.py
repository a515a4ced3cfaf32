"""Checks of a file over HTTP: what a fine-tune would find wrong with it, without a fine-tune."""

from flask import Response
from sqlalchemy.orm import Session

from api import requests, waiting
from api.job_shapes import AnyJob, any_job, polled
from api.routes import Routes
from api.services import Services
from db import files, jobs, queues, tables
from domain.access import Principal, Scope
from domain.checks import Check
from domain.job import FINAL, Kind, Lane, Stage
from domain.shapes import parse

routes = Routes()


@routes.post(
    "/v1/files/<file_id>/validate",
    needs=Scope.JOBS_WRITE,
    body=Check,
    body_is_optional=True,
    query=(waiting.PREFER,),
    answer=AnyJob,
    errors=(400, 404, 413, 415, 422, 429),
    takes_key=True,
    statuses=(200, 202),
)
def validate(plait: Services, who: Principal, file_id: str) -> Response:
    """Checks a file on the cpu lane; its result lists the issues. Nothing is trained, whatever is found."""
    new = _submission(who, file_id, parse(Check, requests.optional_json_body()))
    made = plait.submitted(who, new)
    job_id = made.job.id if made is not None else _step_by_step(plait, who, new)
    plait.bells.ring(Lane.CPU)
    return _answer(plait, who, job_id)


def _step_by_step(plait: Services, who: Principal, new: jobs.Submission) -> str:
    with plait.change(who) as session:
        for file_id in new.files:
            files.get(session, who.tenant, file_id)
        return jobs.submit(session, new).id


def _submission(who: Principal, file_id: str, asked: Check) -> jobs.Submission:
    # A check reads one file: what else a spec names is another check's.
    spec = asked.multimodal.model_copy(update={"test_file": None})
    stored = {
        "file": file_id,
        "multimodal": spec.model_dump(mode="json", by_alias=True),
        "role": asked.role,
        **({"timeout_s": asked.timeout_s} if asked.timeout_s else {}),
    }
    return jobs.Submission(
        tenant=who.tenant,
        spec=stored,
        kind=Kind.CHECK,
        files={file_id: "file_id"},
        stage=Stage.RUN,
        lane=Lane.CPU,
        message="The check was accepted.",
        key=requests.idempotency_key(),
        body_hash=requests.body_hash(stored),
        is_retry=requests.is_retry(),
    )


def _answer(plait: Services, who: Principal, job_id: str) -> Response:
    """The job once it is final: 200; as it is when the caller's time is up: 202."""

    def read(session: Session) -> tables.Job:
        return jobs.get(session, who.tenant, job_id, kind=Kind.CHECK)

    plait.waiting.hold(plait, read, lambda job: job.state in FINAL, job_id, waiting.asked())
    with plait.database.reading() as session:
        row = read(session)
        shape = any_job(
            row, position=queues.position(session, row), result_files=files.results_of(session, row.id)
        )
    response = polled(shape)
    if shape.status not in FINAL:
        response.status_code = 202
        response.headers["Location"] = f"/v1/jobs/{job_id}"
    return waiting.applied(response)
