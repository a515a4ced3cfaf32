"""The JSON shapes of predictions, built from rows and from what the worker answered."""

from typing import Any, Literal

from pydantic import Field

from api.shapes import JobError, Listed, Page, Shape
from db.predictions import Standing
from domain.job import State


class Scored(Shape):
    label: str
    score: float


class Modalities(Shape):
    """The model's columns in this row; `weights` says how much each used one moved the answer (they sum to 1)."""

    used: list[str] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)
    failed: list[str] = Field(default_factory=list)
    weights: dict[str, float] | None = None
    weights_by: Literal["gates", "leave_one_out"] | None = None


class Predicted(Shape):
    """What is predicted for one row, or its `error`; the fields that the model's task has not are null."""

    id: str
    label: str | None = None
    #: Of a multilabel model: those with a probability of at least one half.
    labels: list[str] | None = None
    #: Of a regression.
    value: float | None = None
    #: The probability of `label`.
    score: float | None = None
    top: list[Scored] = Field(default_factory=list)
    probabilities: dict[str, float] | None = None
    #: The fused vector before the head, if it was asked for; of a contrastive model always.
    embedding: list[float] | None = None
    #: Of a contrastive model: each used column's own vector, if they were asked for.
    embeddings: dict[str, list[float]] | None = None
    #: What a model that writes has written, and whether it ended (stop) or was cut (length).
    text: str | None = None
    finish_reason: Literal["stop", "length"] | None = None
    modalities: Modalities = Modalities()
    warnings: list[str] = Field(default_factory=list)
    error: JobError | None = None


class Usage(Shape):
    """Milliseconds in the queue, reading media and on the device, and the rows computed together."""

    queue_ms: float
    decode_ms: float
    gpu_ms: float
    batch_size: int


class Prediction(Listed):
    object: Literal["prediction"] = "prediction"
    status: State
    model: str
    created_at: int
    finished_at: int | None
    #: Why all of it failed; a row that cannot be predicted has an error of its own.
    error: JobError | None
    #: In the order of the inputs, once it has succeeded. A list of predictions leaves it out.
    predictions: list[Predicted] | None
    usage: Usage | None
    metadata: dict[str, str] | None


class PredictionPage(Page[Prediction]):
    """Predictions, without what was predicted."""


def prediction(row: Standing) -> Prediction:
    result = row.result if row.state is State.SUCCEEDED else None
    return Prediction(
        id=row.id,
        status=row.state,
        model=row.model,
        created_at=int(row.created_at),
        finished_at=int(row.finished_at) if row.finished_at is not None and row.is_final else None,
        error=JobError.model_validate(row.error) if row.error else None,
        predictions=[Predicted.model_validate(item) for item in result["predictions"]] if result else None,
        usage=_usage(row, result["usage"]) if result else None,
        metadata=row.labels,
    )


def _usage(row: Standing, told: dict[str, Any]) -> Usage:
    waited = (row.started_at or row.created_at) - row.created_at
    return Usage(queue_ms=round(max(0.0, waited) * 1000, 3), **told)
