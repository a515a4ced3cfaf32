"""One job at a glance: a single statement reads all that an answer about it is made of.

Whoever asks for a job every second mostly hears what he knows already. So the row is read as it lies there, its
documents as text, and a hash of that is its version: it changes whenever anything does that an answer could show.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
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
from db.prepared import Prepared
from db.session import Database
from db.tables import Job, ResultFile
from domain.errors import NotFound
from domain.job import Kind

#: Written at each renewal of a lease, and shown to nobody.
_UNSEEN = {"lease_until"}
_KEYS = [column.key for column in Job.__mapper__.column_attrs if column.key not in _UNSEEN]
_STATE = _KEYS.index("state")
_DOCUMENTS = [key for key in _KEYS if isinstance(getattr(Job, key).type, JSON)]


@dataclass(frozen=True)
class Glance:
    """A job's row as it was read, its place in the queue and its result files."""

    row: tuple[Any, ...]

    @cached_property
    def version(self) -> str:
        return blake2b(repr(self.row).encode(), digest_size=16).hexdigest()

    @property
    def state(self) -> str:
        return str(self.row[_STATE])

    @property
    def position(self) -> int | None:
        position: int | None = self.row[-2]
        return position

    @property
    def result_files(self) -> list[str]:
        return self.row[-1].split() if self.row[-1] else []

    def job(self) -> Job:
        """The row as an object that belongs to no session."""
        values = dict(zip(_KEYS, self.row, strict=False))
        read = {key: json.loads(values[key]) for key in _DOCUMENTS if values[key] is not None}
        light = {"spec": {"model": self.row[-3]}} if values["kind"] == Kind.PREDICT else {}
        return Job(**{**values, **read, **light})


def take(database: Database, tenant: str, job_id: str, *, kind: Kind | None = None) -> Glance:
    """The tenant's job as it is now; NotFound as `db.jobs.get` raises it."""
    which = {"job": job_id, "tenant": tenant}
    row = database.one(_ANY, which) if kind is None else database.one(_OF_KIND, {**which, "kind": kind})
    if row is None:
        raise NotFound(f"No job {job_id}.", code="job_not_found", param="id")
    return Glance(row)


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
_QUERY = select(
    *(_as_it_lies(key) for key in _KEYS),
    case((Job.kind == Kind.PREDICT, Job.spec["model"].as_string())).label("model"),
    queues.place().label("position"),
    _FILES_IN_A_LINE.label("files"),
).where(Job.id == bindparam("job"), Job.tenant == bindparam("tenant"))
_ANY, _OF_KIND = Prepared(_QUERY), Prepared(_QUERY.where(Job.kind == bindparam("kind")))
