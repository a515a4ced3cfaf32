"""What the server tells of a job, as values: the job, its events, checkpoints, metrics and logs."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from plait.waiting import FINAL

FINE_TUNE, CHECK, PREDICT = KINDS = ("fine_tune", "check", "predict")
STATUSES = ("validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Job:
    """A job of any kind. What only a fine-tune has is empty for the others."""

    id: str
    #: fine_tune, check or predict
    kind: str
    status: str
    model: str
    created_at: int | None
    finished_at: int | None
    training_file: str | None
    validation_file: str | None
    #: The id of the model that the job made, once it has succeeded.
    fine_tuned_model: str | None
    result_files: list[str]
    #: {code, message, param} of a failed job.
    error: dict[str, Any] | None
    #: The final numbers, such as {"test_accuracy": 0.93}.
    metrics: dict[str, float]
    #: {stage, epoch, n_epochs, step, total_steps, samples_per_second, eta_s}, as far as known.
    progress: dict[str, Any]
    metadata: dict[str, str]
    #: The server's whole answer.
    raw: dict[str, Any] = field(repr=False)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Job":
        kind, result = raw.get("kind") or FINE_TUNE, raw.get("result") or {}
        made = result.get("model") if kind == FINE_TUNE else None
        return cls(
            id=raw["id"],
            kind=kind,
            status=raw["status"],
            model=raw.get("model") or "",
            created_at=raw.get("created_at"),
            finished_at=raw.get("finished_at"),
            # The list of all kinds says `file` for the one file that each kind is about.
            training_file=raw.get("training_file") or raw.get("file"),
            validation_file=raw.get("validation_file"),
            fine_tuned_model=raw.get("fine_tuned_model") or made,
            result_files=raw.get("result_files") or [],
            # The stock client's server answers an object of nulls for "no error".
            error=raw["error"] if (raw.get("error") or {}).get("message") else None,
            metrics=raw.get("metrics") or result.get("metrics") or {},
            progress=raw.get("progress") or {},
            metadata=raw.get("metadata") or {},
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    created_at: int
    #: info, warn or error
    level: str
    message: str
    #: message or metrics
    type: str
    data: dict[str, Any]
    raw: dict[str, Any] = field(repr=False)

    @property
    def issues(self) -> list[dict[str, Any]]:
        """What validation found: {code, message, line, column, value, severity}."""
        return list(self.data.get("issues") or ())

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Event":
        return cls(
            id=raw["id"],
            created_at=raw.get("created_at") or 0,
            level=raw.get("level") or "info",
            message=raw.get("message") or "",
            type=raw.get("type") or "message",
            data=raw.get("data") or {},
            raw=raw,
        )


class Update(NamedTuple):
    """One look at a job: how it stands, and the events since the last look, oldest first."""

    job: Job
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    id: str
    created_at: int | None
    step: int
    #: The name of the checkpoint as a model, where the server gives it one.
    model: str | None
    metrics: dict[str, float]
    #: A new job may go on from it (`resume_from_checkpoint`); None where the server does not tell.
    available: bool | None
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Checkpoint":
        # `metrics` repeats the step, and says null for what was not measured.
        told = raw.get("metrics") or {}
        numbers = {name: value for name, value in told.items() if name != "step" and value is not None}
        return cls(
            id=raw["id"],
            created_at=raw.get("created_at"),
            step=raw.get("step_number") or 0,
            model=raw.get("fine_tuned_model_checkpoint"),
            metrics=numbers,
            available=raw.get("available"),
            raw=raw,
        )


class Series(NamedTuple):
    """One metric over a job's steps; `values[i]` was measured at `steps[i]`."""

    steps: list[int]
    values: list[float]


class Log(NamedTuple):
    """What one attempt at a job wrote. Attempts are told apart by their fence, which only grows."""

    fence: int
    text: str
