"""The JSON shape of a fine-tuning job: OpenAI's, with what Plait adds. `api.job_shapes` has the one of any job."""

import time
from collections.abc import Sequence
from typing import Any, Literal

from api.shapes import JobError, Listed, Page, Queue, Shape, seconds
from db import tables
from domain.job import FINAL, Stage, State, public_status


class Hyperparameters(Shape):
    """`auto` until Plait has chosen."""

    n_epochs: int | Literal["auto"] = "auto"
    batch_size: int | Literal["auto"] = "auto"
    learning_rate_multiplier: float | Literal["auto"] = "auto"


class Supervised(Shape):
    hyperparameters: Hyperparameters


class Method(Shape):
    type: Literal["supervised"] = "supervised"
    supervised: Supervised


class Job(Listed):
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: str
    error: JobError | None
    hyperparameters: Hyperparameters
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None = None
    seed: int
    estimated_finish: int | None
    integrations: list[Any] | None = None
    method: Method
    metadata: dict[str, str] | None
    #: The spec as it was asked for; once the files are checked, as it was resolved.
    multimodal: dict[str, Any]
    progress: dict[str, Any] | None
    queue: Queue
    attempt: int
    deaths: int
    worker: str | None
    metrics: dict[str, Any]
    started_at: int | None


class JobPage(Page[Job]):
    """Fine-tuning jobs."""


def job(row: tables.Job, *, position: int | None, result_files: Sequence[str]) -> Job:
    spec, result = row.spec, row.result or {}
    multimodal = row.resolved or spec["multimodal"]
    chosen = Hyperparameters.model_validate(multimodal.get("hyperparameters", {}))
    is_final = row.state in FINAL
    return Job(
        id=row.id,
        created_at=int(row.created_at),
        started_at=seconds(row.started_at),
        finished_at=seconds(row.finished_at) if is_final else None,
        model=spec["model"],
        fine_tuned_model=result.get("model"),
        organization_id=row.tenant,
        status=public_status(State(row.state), Stage(row.stage)),
        error=JobError.model_validate(row.error) if row.error else None,
        hyperparameters=chosen,
        training_file=spec["training_file"],
        validation_file=spec.get("validation_file"),
        result_files=list(result_files),
        seed=spec.get("seed") or 0,
        estimated_finish=_estimate(row),
        method=Method(supervised=Supervised(hyperparameters=chosen)),
        metadata=row.labels,
        multimodal=multimodal,
        progress=row.progress,
        queue=Queue(lane=row.lane, position=position, priority=row.priority),
        attempt=row.attempt,
        deaths=row.deaths,
        worker=row.lease_owner,
        metrics=result.get("metrics", {}) if is_final else {},
    )


def _estimate(row: tables.Job) -> int | None:
    """When training will be over, as its last report has it. How long encoding takes says nothing about that."""
    told = row.progress or {}
    left = told.get("eta_s") if row.state == State.RUNNING and told.get("stage") == "training" else None
    return int(told.get("reported_at", time.time()) + left) if left is not None else None
