"""Fine-tune jobs: making, listing, following, cancelling."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from plait import paging, retries
from plait.errors import PlaitError
from plait.transport import Transport

_PATH = "/fine_tuning/jobs"
STATUSES = ("validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled")
FINAL = frozenset({"succeeded", "failed", "cancelled"})
#: Between two looks at a job, unless the server says otherwise.
LOOK_EVERY_S = 1.0
#: How long a watch waits for a server that is gone: long enough for a restart.
PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Job:
    id: str
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
        return cls(
            id=raw["id"],
            status=raw["status"],
            model=raw.get("model") or "",
            created_at=raw.get("created_at"),
            finished_at=raw.get("finished_at"),
            training_file=raw.get("training_file"),
            validation_file=raw.get("validation_file"),
            fine_tuned_model=raw.get("fine_tuned_model"),
            result_files=raw.get("result_files") or [],
            # The stock client's server answers an object of nulls for "no error".
            error=raw["error"] if (raw.get("error") or {}).get("message") else None,
            metrics=raw.get("metrics") or {},
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


class Jobs:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submits the create body. The same key and body give the same job; without a key, each call is a new one."""
        return Job.of(self._transport.post(_PATH, dict(spec), idempotency_key=idempotency_key))

    def list(
        self, *, after: str | None = None, limit: int | None = None, metadata: Mapping[str, str] | None = None
    ) -> Iterator[Job]:
        """Newest first, at most `limit` in all; pages are fetched as they are needed."""
        params = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        return map(Job.of, paging.walk(self._transport, _PATH, after=after, limit=limit, params=params))

    def get(self, job_id: str) -> Job:
        return Job.of(self._transport.get(paging.one(_PATH, job_id)))

    def cancel(self, job_id: str) -> Job:
        """Asks for the end of the job; a running one stops within seconds and keeps its last checkpoint."""
        return Job.of(self._transport.post(f"{paging.one(_PATH, job_id)}/cancel"))

    def events(self, job_id: str, *, after: str | None = None, limit: int | None = None) -> Iterator[Event]:
        """Newest first, at most `limit` in all; `after` goes on with those older than that id."""
        pages = paging.walk(self._transport, _events_path(job_id), after=after, limit=limit)
        return map(Event.of, pages)

    def watch(
        self,
        job_id: str,
        *,
        patience_s: float = PATIENCE_S,
        on_trouble: Callable[[PlaitError], None] | None = None,
    ) -> Iterator[Update]:
        """Looks at the job until it is final, and waits in between.

        A server that restarts is waited for, up to `patience_s`; `on_trouble` hears of each failed look.
        """
        seen: str | None = None
        while True:
            update, pause = self._patiently(job_id, seen, patience_s, on_trouble)
            if update.events:
                seen = update.events[-1].id
            yield update
            if update.job.is_final:
                return
            self._transport.wait(pause)

    def _look(self, job_id: str, seen: str | None) -> tuple[Update, float]:
        # The job before its events: when it is final, all its events are there to be read.
        raw, headers = self._transport.answer("GET", paging.one(_PATH, job_id))
        newest = map(Event.of, paging.walk(self._transport, _events_path(job_id), page=20))
        fresh = list(itertools.takewhile(lambda event: event.id != seen, newest))
        pause = retries.seconds(headers.get("retry-after"))
        return Update(Job.of(raw), fresh[::-1]), _between_looks(pause)

    def _patiently(
        self,
        job_id: str,
        seen: str | None,
        patience_s: float,
        on_trouble: Callable[[PlaitError], None] | None,
    ) -> tuple[Update, float]:
        waited = 0.0
        for attempt in itertools.count():
            try:
                return self._look(job_id, seen)
            except PlaitError as error:
                pause = max(retries.backoff(attempt), error.retry_after or 0.0)
                if not error.passing or waited + pause > patience_s:
                    raise
                if on_trouble:
                    on_trouble(error)
            self._transport.wait(pause)
            waited += pause
        raise AssertionError("unreachable")


def _events_path(job_id: str) -> str:
    return f"{paging.one(_PATH, job_id)}/events"


def _between_looks(asked: float | None) -> float:
    """The server's wish within bounds: neither a busy loop nor a view that seems dead."""
    return LOOK_EVERY_S if asked is None else min(max(asked, 0.1), 30.0)
