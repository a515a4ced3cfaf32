"""What a new job is made of, and the statements of T1 where it goes step by step, each submit of a tenant after the other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, String, bindparam, func, insert, literal_column, select
from sqlalchemy.orm import Session, make_transient_to_detached

from db.prepared import Prepared, literal
from db.session import now
from db.tables import Job, Quota
from domain.errors import OverQuota, Unprocessable
from domain.ids import new_id
from domain.job import ID_PREFIX, WAITING, Kind, Lane, Stage, State, Want
from domain.retry import MAX_ATTEMPTS, MAX_DEATHS

#: A retry by the stock client without a key of its own folds onto the first job for this long.
FOLD_S = 60.0


#: What tells a tenant's line of submits from other locks that are made of its name.
_LINE: ColumnElement[Any] = literal_column("7305")


def turn(of: Any) -> ColumnElement[Any]:
    """A tenant's line of submits on PostgreSQL: `of` takes it for one alone, or for many who share it, until COMMIT.

    Those of `db.at_once` share it. Who goes step by step waits for them and then sees what they have written.
    """
    line: ColumnElement[Any] = of(func.hashtextextended(bindparam("tenant", type_=String()), _LINE))
    return line


#: On SQLite writers stand in line already.
_TURN = Prepared(select(turn(func.pg_advisory_xact_lock)))
_LIMIT = Prepared(select(Quota.max_queued).where(Quota.tenant == bindparam("tenant")))
_BY_KEY = Prepared(
    select(Job.id, Job.body_hash).where(
        Job.tenant == bindparam("tenant"), Job.idempotency_key == bindparam("key")
    )
)
#: All kinds are named, so that an index finds those that wait among any number that do not.
WAITING_JOBS = select(func.count()).where(
    Job.tenant == bindparam("tenant"),
    Job.kind.in_(map(literal, Kind)),
    Job.state.in_(map(literal, sorted(WAITING))),
)
_WAITING = Prepared(WAITING_JOBS)
#: What every new job begins with.
FIRST: dict[str, Any] = {
    "state": str(State.QUEUED),
    "want": str(Want.RUN),
    "fence": 0,
    "attempt": 0,
    "max_attempts": MAX_ATTEMPTS,
    "deaths": 0,
    "max_deaths": MAX_DEATHS,
    "event_seq": 1,
}
_NOTHING: dict[str, Any] = {
    column.key: None for column in Job.__mapper__.column_attrs if column.key not in ("spec", "labels")
}
#: Columns that are given; the database fills in the times, and null is the rest.
_GIVEN = ("id", "tenant", "kind", "stage", "lane", "priority", "idempotency_key", "body_hash")
COLUMNS = (*FIRST, *_GIVEN, "spec", "metadata")
_INSERT = Prepared(
    insert(Job.metadata.tables[Job.__tablename__]).returning(Job.created_at, Job.available_at),
    columns=COLUMNS,
)


@dataclass(frozen=True)
class Submission:
    """What a new job is made of."""

    tenant: str
    spec: dict[str, Any]
    kind: Kind = Kind.FINE_TUNE
    stage: Stage = Stage.VALIDATE
    lane: Lane = Lane.CPU
    #: What the first event says.
    message: str = "The job was accepted; its files are checked first."
    #: The files that the job reads, and the field that names each.
    files: Mapping[str, str] = field(default_factory=dict)
    #: Given where bytes were stored under the job's id before the row; else a new one is made.
    id: str | None = None
    #: The checkpoint of another job that this one starts from.
    start: str | None = None
    priority: int = 0
    labels: dict[str, str] | None = None
    key: str | None = None
    body_hash: str | None = None
    #: The sender says that it tries again (`x-stainless-retry-count` > 0).
    is_retry: bool = False


def limit_of(session: Session, tenant: str) -> int:
    """How many jobs of the tenant may wait. Whoever submits for it next waits until this transaction is over."""
    if session.get_bind().dialect.name == "postgresql":
        _TURN.drive(session, tenant=tenant)
    (limit,) = _LIMIT.drive(session, tenant=tenant).fetchone()
    return int(limit)


def inserted(session: Session, new: Submission) -> Job:
    """The new row, in its session as if it had been read."""
    values = values_of(new)
    created_at, available_at = _INSERT.drive(session, **FIRST, **values).fetchone()
    job = Job(**columns_of(new, values, created_at=created_at, available_at=available_at))
    make_transient_to_detached(job)
    session.add(job)
    return job


def values_of(new: Submission) -> dict[str, Any]:
    """COLUMNS of the new row but for the FIRST, as the driver takes them."""
    return {
        "id": new.id or new_id(ID_PREFIX[new.kind]),
        "tenant": new.tenant,
        "kind": str(new.kind),
        "stage": str(new.stage),
        "lane": str(new.lane),
        "priority": new.priority,
        "idempotency_key": new.key,
        "body_hash": new.body_hash,
        "spec": json.dumps(new.spec),
        "metadata": json.dumps(new.labels) if new.labels is not None else None,
    }


def columns_of(new: Submission, values: Mapping[str, Any], **times: float) -> dict[str, Any]:
    """All columns of the row that was just inserted; `times` are those that the database gave it."""
    given = {name: values[name] for name in _GIVEN}
    return {**_NOTHING, **FIRST, **given, **times, "spec": new.spec, "labels": new.labels}


def earlier(session: Session, new: Submission) -> Job | None:
    """The job that the same key, or the same request a moment ago, made before."""
    if new.key is not None:
        found = _BY_KEY.drive(session, tenant=new.tenant, key=new.key).fetchone()
        if found is not None and found[1] != new.body_hash:
            raise Unprocessable(
                "This Idempotency-Key was used with another body; send a new key for a new job.",
                code="idempotency_key_reused",
            )
        # One as old as retention is long may be gone by now: then this is a new job.
        return session.get(Job, found[0]) if found is not None else None
    if not new.is_retry:
        return None
    return session.scalars(
        select(Job)
        .where(
            Job.tenant == new.tenant,
            Job.kind == new.kind,
            Job.body_hash == new.body_hash,
            Job.created_at > now() - FOLD_S,
        )
        .order_by(Job.created_at.desc())
        .limit(1)
    ).one_or_none()


def refuse_over_quota(session: Session, tenant: str, limit: int) -> None:
    (waiting,) = _WAITING.drive(session, tenant=tenant).fetchone()
    if waiting >= limit:
        raise OverQuota(
            f"{waiting} jobs are queued or paused and this tenant's limit is {limit}; "
            "wait for some to run, or cancel some."
        )
