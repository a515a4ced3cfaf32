"""The statements of `db.at_once`, for PostgreSQL and for SQLite. All are built from the same columns."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    Boolean,
    ColumnElement,
    Insert,
    Integer,
    String,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql

from db import queues, submissions
from db.prepared import Prepared, literal
from db.session import now
from db.tables import Audit, Event, File, Job, JobFile, JobLabel, Quota

#: The columns of the rows that belong to a job.
_EVENT_COLUMNS = ("job", "seq", "name", "level", "type", "message", "data", "fence")
_AUDIT_COLUMNS = ("id", "tenant", "key", "action", "object_id", "request_id", "address")
_LABEL_COLUMNS = ("job", "name", "value", "tenant", "created_at")


def _table(of: Any) -> Table:
    table: Table = of.__table__
    return table


def _job(name: str) -> ColumnElement[Any]:
    """What a column of the new job gets: what all begin with is written out."""
    first = submissions.FIRST.get(name)
    if first is None:
        return bindparam(name, type_=_table(Job).c[name].type)
    return literal(first) if isinstance(first, str) else literal_column(str(first))


def _event(job: ColumnElement[str]) -> tuple[ColumnElement[Any], ...]:
    name, level, type_ = map(literal, ("job.created", "info", "message"))
    message, data = cast(bindparam("message"), Text), bindparam("event", type_=_table(Event).c.data.type)
    return job, _job("event_seq"), name, level, type_, message, data, _job("fence")


def _audit(job: ColumnElement[str]) -> tuple[ColumnElement[Any], ...]:
    given = {name: bindparam(f"audit_{name}", type_=_table(Audit).c[name].type) for name in _AUDIT_COLUMNS}
    return tuple((given | {"object_id": job}).values())


def _rows(of: Any, columns: tuple[str, ...], query: Any) -> Insert:
    return insert(_table(of)).from_select(columns, query, include_defaults=False)


_TENANT = bindparam("tenant", type_=String())
_ROOM_IS_KNOWN, _SPARE = bindparam("room_is_known", type_=Boolean()), bindparam("spare", type_=Integer())
#: How many more jobs of the tenant may wait.
_ROOM = Quota.max_queued - submissions.WAITING_JOBS.scalar_subquery()


def _readable(which: ColumnElement[bool]) -> Any:
    return select(File.id).where(which, File.tenant == _TENANT, File.deleted_at.is_(None))


# PostgreSQL: all in one statement. Constraints are looked at when it is over.


def _submit() -> Any:
    ids = bindparam("files", type_=ARRAY(String))
    # Whoever deletes a file has its row first, and sees afterwards who reads it.
    readable = _readable(File.id == func.any(ids)).order_by(File.id)
    files = readable.with_for_update(read=True, key_share=True).cte("the_files")
    turn = select(submissions.turn(func.pg_advisory_xact_lock_shared).label("turn")).cte("the_turn")
    room = select(_ROOM.label("room")).where(Quota.tenant == _TENANT, ~_ROOM_IS_KNOWN).cte("the_room")
    job = _inserted(turn, files, room)
    labels = func.jsonb_each_text(_job("metadata")).table_valued("key", "value")
    label = (job.c.id, labels.c.key, labels.c.value, job.c.tenant, job.c.created_at)
    position = queues.ahead_of(job.c.lane, job.c.priority, job.c.available_at)
    told = select(job.c.created_at, job.c.available_at, position, select(room.c.room).scalar_subquery())
    return told.add_cte(
        _rows(Event, _EVENT_COLUMNS, select(*_event(job.c.id))).cte("its_event"),
        _rows(Audit, _AUDIT_COLUMNS, select(*_audit(job.c.id))).cte("its_audit"),
        _rows(JobFile, ("job", "file"), select(job.c.id, files.c.id)).cte("its_files"),
        _rows(JobLabel, _LABEL_COLUMNS, select(*label)).cte("its_labels"),
    )


def _inserted(turn: CTE, files: CTE, room: CTE) -> CTE:
    """The job's row, where all its files are there, its queue has room by far, and its key is new."""
    is_ours = select(func.count()).select_from(turn).scalar_subquery() == literal_column("1")
    are_there = select(func.count()).select_from(files).scalar_subquery() == bindparam("many")
    has_room = or_(_ROOM_IS_KNOWN, select(room.c.room).scalar_subquery() > _SPARE)
    values = select(*map(_job, submissions.COLUMNS)).where(is_ours, are_there, has_room)
    jobs = _table(Job)
    inserting = postgresql.insert(jobs).from_select(submissions.COLUMNS, values, include_defaults=False)
    known = ("id", "tenant", "lane", "priority", "created_at", "available_at")
    return (
        inserting.on_conflict_do_nothing(index_elements=[jobs.c.tenant, jobs.c.idempotency_key])
        .returning(*(jobs.c[name] for name in known))
        .cte("the_job")
    )


SUBMIT = Prepared(_submit())


# SQLite: one look, which also says what time it is, and then nothing that can be refused. It has one writer at a time.


_INSTANT = now()
_NEW, _THEN = _job("id"), bindparam("instant", type_=_table(Job).c.created_at.type)
_NAMED = func.json_each(bindparam("files", type_=Text())).table_valued("value")
_FILES_THERE = _readable(File.id.in_(select(_NAMED.c.value)))
_ROOM_THERE = select(_ROOM).where(Quota.tenant == _TENANT).scalar_subquery()
_PAIRS = func.json_each(_job("metadata")).table_valued("key", "value")


def _look() -> Any:
    room = select(case((_ROOM_IS_KNOWN, null()), else_=_ROOM_THERE).label("room")).subquery()
    key_is_used = exists().where(and_(Job.tenant == _TENANT, Job.idempotency_key == _job("idempotency_key")))
    return select(
        _INSTANT,
        queues.ahead_of(_job("lane"), _job("priority"), _INSTANT),
        room.c.room,
        or_(_ROOM_IS_KNOWN, room.c.room > _SPARE),
        key_is_used,
        select(func.count()).select_from(_FILES_THERE.subquery()).scalar_subquery(),
    )


LOOK = Prepared(_look())
JOB = Prepared(
    _rows(
        Job,
        (*submissions.COLUMNS, "created_at", "available_at"),
        select(*map(_job, submissions.COLUMNS), _THEN, _THEN),
    )
)
EVENT = Prepared(_rows(Event, _EVENT_COLUMNS, select(*_event(_NEW))))
AUDIT = Prepared(_rows(Audit, _AUDIT_COLUMNS, select(*_audit(_NEW))))
FILES = Prepared(_rows(JobFile, ("job", "file"), _FILES_THERE.with_only_columns(_NEW, File.id)))
LABELS = Prepared(_rows(JobLabel, _LABEL_COLUMNS, select(_NEW, _PAIRS.c.key, _PAIRS.c.value, _TENANT, _THEN)))
