"""The JSON shapes of a training's checkpoints, curves and logs, built from rows."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from api.shapes import Listed, Page, Shape
from db import tables
from db.logs import ClaimLog
from db.metrics import Series
from domain.ids import checkpoint_id
from domain.specs import family_of


class CheckpointOfJob(Listed):
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    #: `step` and what was measured there, such as `train_loss` and `valid_loss`.
    metrics: dict[str, Any]
    #: Its bytes are kept: `resume_from_checkpoint` may name it.
    available: bool


class CheckpointPage(Page[CheckpointOfJob]):
    """Checkpoints of one job."""


class Curve(Shape):
    #: Rising.
    steps: list[int]
    #: One for each step.
    values: list[float]


class Metrics(Shape):
    object: Literal["fine_tuning.job.metrics"] = "fine_tuning.job.metrics"
    job_id: str
    series: dict[str, Curve]


class LogOfClaim(Shape):
    #: Which claim of the job: it rises with each worker that takes it.
    attempt_fence: int
    text: str


class LogsOfJob(Shape):
    object: Literal["fine_tuning.job.logs"] = "fine_tuning.job.logs"
    job_id: str
    data: list[LogOfClaim]


def checkpoint(job: tables.Job, row: tables.Checkpoint) -> CheckpointOfJob:
    return CheckpointOfJob(
        id=row.id,
        created_at=int(row.created_at),
        fine_tuning_job_id=job.id,
        fine_tuned_model_checkpoint=checkpoint_id(
            family_of(job.spec), job.tenant, job.spec.get("suffix"), job.id, row.step
        ),
        step_number=row.step,
        metrics={"step": row.step, **row.metrics},
        available=row.available,
    )


def curves(job: tables.Job, found: Mapping[str, Series]) -> Metrics:
    return Metrics(
        job_id=job.id,
        series={name: Curve(steps=one.steps, values=one.values) for name, one in found.items()},
    )


def logs(job: tables.Job, found: Sequence[ClaimLog]) -> LogsOfJob:
    return LogsOfJob(
        job_id=job.id, data=[LogOfClaim(attempt_fence=one.fence, text=one.text) for one in found]
    )
