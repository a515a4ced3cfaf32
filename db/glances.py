"""One job at a glance: a single statement reads all that an answer about it is made of.

Whoever asks for a job every second mostly hears what he knows already. So the row is read as it lies there, its
documents as text, and a hash of that is its version: it changes whenever anything does that an answer could show.
"""

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Row,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
)

from db import queues
from db.session import Database
from db.tables import Job, ResultFile
from domain.errors import NotFound
from domain.job import Kind

#: Written at each renewal of a lease, and shown to nobody.
_UNSEEN = {"lease_until"}
_KEYS = [column.key for column in Job.__mapper__.column_attrs if column.key not in _UNSEEN]
_DOCUMENTS = [key for key in _KEYS if isinstance(getattr(Job, key).type, JSON)]


@dataclass(frozen=True)
class Glance:
    """A job's row as it was read, its place in the queue and its result files."""

    row: Row[*tuple[Any, ...]]
    version: str

    @property
    def position(self) -> int | None:
        return self.row.position

    @property
    def result_files(self) -> list[str]:
        return self.row.files.split() if self.row.files else []

    def job(self) -> Job:
        """The row as an object that belongs to no session."""
        values = {key: getattr(self.row, key) for key in _KEYS}
        read = {key: json.loads(values[key]) for key in _DOCUMENTS if values[key] is not None}
        light = {"spec": {"model": self.row.model}} if self.row.kind == Kind.PREDICT else {}
        return Job(**{**values, **read, **light})


def take(database: Database, tenant: str, job_id: str, *, kind: Kind | None = None) -> Glance:
    """The tenant's job as it is now; NotFound as `db.jobs.get` raises it."""
    row = database.one(_ANY if kind is None else _OF_KIND, {"tenant": tenant, "job": job_id, "kind": kind})
    if row is None:
        raise NotFound(f"No job {job_id}.", code="job_not_found", param="id")
    return Glance(row, blake2b(repr(tuple(row)).encode(), digest_size=16).hexdigest())


def _as_it_lies(key: str) -> ColumnElement[Any]:
    column: ColumnElement[Any] = getattr(Job, key)
    if key in _DOCUMENTS:
        column = cast(column, Text)
    if key in ("spec", "result"):
        # The inputs and answers of a prediction may take megabytes; they are read at its own address.
        column = case((Job.kind == Kind.PREDICT, null()), else_=column)
    return column.label(key)


_FILES = select(ResultFile.file).where(ResultFile.job == bindparam("job")).order_by(ResultFile.position)
_BLANK: Any = literal_column("' '")
_FILES_IN_A_LINE = select(func.aggregate_strings(_FILES.subquery().c.file, _BLANK)).scalar_subquery()
_ANY = select(
    *(_as_it_lies(key) for key in _KEYS),
    case((Job.kind == Kind.PREDICT, Job.spec["model"].as_string())).label("model"),
    queues.place().label("position"),
    _FILES_IN_A_LINE.label("files"),
).where(Job.id == bindparam("job"), Job.tenant == bindparam("tenant"))
_OF_KIND = _ANY.where(Job.kind == bindparam("kind"))
