"""The JSON shapes of answers, in OpenAI's words and ours, built from rows. `api.openapi` shows them."""

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from db import events as event_rows
from db import tables
from db.registry import Described

Broker = Literal["ok", "down", "none"]


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)


class Listed(Shape):
    """What a list may hold: its id is the cursor."""

    id: str


Item = TypeVar("Item", bound=Listed)


class Page(Shape, Generic[Item]):
    """One page of a list; `has_more` is always sent, or the client pages for ever."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


class File(Listed):
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    #: Of the bytes, in hexadecimal digits.
    sha256: str
    status: str
    status_details: str | None
    #: What the last check of the file found.
    rows: int | None
    columns: Any | None
    issues: Any | None
    schema_: Any | None = Field(serialization_alias="schema")


class FileDeleted(Shape):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class JobError(Shape):
    code: str
    message: str
    param: str | None = None


class Queue(Shape):
    lane: str
    #: How many jobs of the lane stand before this one; null when it does not wait.
    position: int | None
    priority: int


class Event(Listed):
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: str
    name: str
    data: dict[str, Any]


class Model(Listed):
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    #: Of a fine-tuned model: the job that made it, what was measured, the labels it tells apart, what it reads.
    job: str | None = None
    family: str | None = None
    metrics: dict[str, Any] | None = None
    classes: list[Any] | None = None
    columns: list[str] | None = None


class ModelDeleted(Shape):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class Health(Shape):
    status: Literal["ok"] = "ok"


class Readiness(Shape):
    """`degraded`: all requests are answered, but workers find new jobs by polling only."""

    status: Literal["ready", "degraded"]
    database: Literal["ok"] = "ok"
    broker: Broker


class ErrorDetail(Shape):
    message: str
    type: str
    param: str | None
    code: str


class Error(Shape):
    """Every answer that is no success; `errors` lists all problems of a spec (path, code, message)."""

    error: ErrorDetail
    errors: list[dict[str, Any]] = Field(default_factory=list)


class FilePage(Page[File]):
    """Files."""


class EventPage(Page[Event]):
    """Events of one job."""


class ModelPage(Page[Model]):
    """Models; always all of them."""


SomePage = TypeVar("SomePage", bound=Page[Any])


def page(shape: type[SomePage], items: Sequence[Listed], has_more: bool) -> SomePage:
    """`items` as one page; its ends are the cursors of the next."""
    ends = (items[0].id, items[-1].id) if items else (None, None)
    return shape(data=list(items), first_id=ends[0], last_id=ends[1], has_more=has_more)


def seconds(instant: float | None) -> int | None:
    return int(instant) if instant is not None else None


def file(row: tables.File) -> File:
    return File(
        id=row.id,
        bytes=row.bytes,
        created_at=int(row.created_at),
        expires_at=seconds(row.expires_at),
        filename=row.filename,
        purpose=row.purpose,
        sha256=row.sha256,
        status=row.status,
        status_details=row.status_details,
        rows=row.rows,
        columns=row.columns,
        issues=row.issues,
        schema_=row.schema,
    )


def event(row: tables.Event) -> Event:
    return Event(
        id=event_rows.event_id(row.job, row.seq),
        created_at=int(row.created_at),
        level=row.level,
        message=row.message,
        type=row.type,
        name=row.name,
        data=row.data,
    )


def model(known: Described) -> Model:
    row = known.model
    return Model(
        id=row.id,
        created=int(row.created_at),
        owned_by=row.tenant,
        job=row.job,
        family=row.family,
        metrics=known.metrics,
        classes=known.classes,
        columns=known.columns,
    )
