"""Predictions over HTTP: submitted, waited for, listed, cancelled. Opens no model and decodes no picture."""

from collections.abc import Mapping
from typing import Any

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api import prediction_shapes as shapes
from api import requests, waiting
from api.inputs import Intake, received
from api.routes import Routes, page_query, respond
from api.services import Services
from api.shapes import page
from db import jobs, predictions, registry
from db.predictions import Standing
from db.tables import File
from domain.access import Principal, Scope
from domain.errors import BadRequest, PlaitError
from domain.ids import new_id
from domain.job import ID_PREFIX, Kind, Lane, Stage
from domain.predictions import Predict

routes = Routes()

#: Most predictions take less than a second; a model that is loaded first takes a few.
_PATIENCE_S = 30


class PredictForm(BaseModel):
    """The same as a form: `json` holds the body (or each of its fields is a part of that name), a part with a
    file name is the media of its column: `image` of the first row, `image[3]` of the fourth."""

    model_config = ConfigDict(
        json_schema_extra={"additionalProperties": {"contentMediaType": "application/octet-stream"}}
    )

    json_: Predict | None = Field(default=None, alias="json")


@routes.post(
    "/v1/predictions",
    needs=Scope.PREDICTIONS_WRITE,
    body=Predict,
    form=PredictForm,
    query=(waiting.PREFER,),
    answer=shapes.Prediction,
    statuses=(200, 202),
    errors=(400, 404, 413, 415, 422, 429),
    takes_key=True,
)
def create(plait: Services, who: Principal) -> Response:
    """Predicts up to 256 rows with a fine-tuned model; waits for the answer up to `Prefer: wait=30` seconds."""
    seconds = waiting.asked(_PATIENCE_S)
    with received(plait.settings.max_upload_bytes) as asked:
        prediction_id = _submit(plait, who, asked)
    plait.bells.ring(Lane.INFER)
    row = _held(plait, who, prediction_id, 0 if asked.background else seconds)
    return waiting.applied(_answer(row, later=202))


@routes.get(
    "/v1/predictions",
    needs=Scope.PREDICTIONS_READ,
    query=page_query(),
    answer=shapes.PredictionPage,
    errors=(400, 404),
)
def index(plait: Services, who: Principal) -> shapes.PredictionPage:
    """Lists how the predictions stand, newest first; what was predicted is read one by one."""
    limit = requests.limit()
    with plait.database.reading() as session:
        rows, more = predictions.page(session, who.tenant, after=requests.after(), limit=limit)
    return page(shapes.PredictionPage, [shapes.prediction(row) for row in rows], more)


@routes.get(
    "/v1/predictions/<prediction_id>",
    needs=Scope.PREDICTIONS_READ,
    query=waiting.QUERY,
    answer=shapes.Prediction,
    errors=(400, 404),
)
def retrieve(plait: Services, who: Principal, prediction_id: str) -> Response:
    """Tells how a prediction stands and, once it has succeeded, what was predicted; waits if asked to."""
    row = _held(plait, who, prediction_id, waiting.asked())
    return waiting.applied(_answer(row))


@routes.post(
    "/v1/predictions/<prediction_id>/cancel",
    needs=Scope.PREDICTIONS_WRITE,
    answer=shapes.Prediction,
    errors=(404, 409),
)
def cancel(plait: Services, who: Principal, prediction_id: str) -> Response:
    """Cancels a waiting prediction at once; asks the worker of a running one to stop."""
    with plait.change(who) as session:
        predictions.get(session, who.tenant, prediction_id)
        job = jobs.cancel(session, who.tenant, prediction_id, kind=Kind.PREDICT)
        row = predictions.get(session, who.tenant, prediction_id)
    plait.bells.poke(job.lease_owner)
    plait.bells.wake(prediction_id)
    return _answer(row)


def _submit(plait: Services, who: Principal, asked: Predict) -> str:
    """The id of the job: a new one, or the one that the same request made before. Bytes first, row second."""
    with plait.database.reading() as session:
        model = registry.get(session, who.tenant, asked.model)
        for field, reason in asked.misfits(model.family):
            raise BadRequest(f"{field}: {reason}.", param=field)
        files = predictions.files_named(session, who.tenant, asked.file_ids())
    new = new_id(ID_PREFIX[Kind.PREDICT])
    try:
        submission = _submission(who, asked, new, Intake(plait.blobs, new, files), files)
        quick = plait.submitted(who, submission)
        made = quick.job.id if quick is not None else _step_by_step(plait, who, submission)
    except (PlaitError, OSError):
        plait.drop_of(new)
        raise
    if made != new:
        plait.drop_of(new)
    return made


def _step_by_step(plait: Services, who: Principal, submission: jobs.Submission) -> str:
    with plait.change(who) as session:
        return jobs.submit(session, submission).id


def _submission(
    who: Principal, asked: Predict, new: str, intake: Intake, files: Mapping[str, File]
) -> jobs.Submission:
    key, both = requests.idempotency_key(), [intake.row(n, row) for n, row in enumerate(asked.inputs)]
    options = asked.model_dump(include={"model", "top_k", "return_embeddings", "on_bad_input"})
    options |= asked.writing
    options |= {"timeout_s": asked.timeout_s} if asked.timeout_s else {}
    told: dict[str, Any] = {**options, "kind": Kind.PREDICT, "metadata": asked.metadata}
    return jobs.Submission(
        id=new,
        tenant=who.tenant,
        kind=Kind.PREDICT,
        stage=Stage.RUN,
        lane=Lane.INFER,
        message="The prediction was accepted; it waits for a worker.",
        spec={**options, "inputs": [kept for kept, _ in both], "files": sorted(asked.file_ids())},
        files=dict.fromkeys(files, "inputs"),
        labels=asked.metadata,
        key=key,
        body_hash=requests.body_hash({**told, "inputs": [row for _, row in both]}),
        is_retry=requests.is_retry(),
    )


def _held(plait: Services, who: Principal, prediction_id: str, seconds: int) -> Standing:
    """The prediction once it is final, or as it stands when the time is up."""
    return plait.waiting.hold(
        plait,
        lambda session: predictions.get(session, who.tenant, prediction_id),
        lambda row: row.is_final,
        prediction_id,
        seconds,
    )


def _answer(row: Standing, *, later: int = 200) -> Response:
    response = respond(shapes.prediction(row))
    if not row.is_final:
        response.status_code = later
        response.headers["Location"] = f"/v1/predictions/{row.id}"
        response.headers["Retry-After"] = "1"
    return response
