"""Lists of jobs: by kind, status and metadata together, newest first. The database does the choosing.

A page costs the same among a hundred jobs and among a hundred thousand: whatever is asked for, each branch of
the query reads neighbours in an index, in the order of the list, and stops when the page is full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Select, and_, func, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, defer
from sqlalchemy.orm.attributes import set_committed_value

from db import jobs
from db.tables import Job, JobLabel
from domain.job import Kind, Stage, State, behind

#: A place in the list: when the job was made, and its id.
_Place = tuple[float, str]
_Labels = Mapping[str, str]
_Only = list[ColumnElement[bool]]
#: A label on so many jobs is no good way to find a few of them.
_COMMON = 1_000


@dataclass(frozen=True)
class Wanted:
    """Which jobs are asked for; all of it must hold."""

    kinds: Sequence[Kind] = tuple(Kind)
    #: A status as clients see it.
    status: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def branches(self) -> list[list[ColumnElement[bool]]]:
        """Equalities on the columns that an index begins with, one list for each range of it."""
        if self.status is None:
            return [[Job.kind == kind] for kind in self.kinds]
        return [
            [Job.kind == kind, Job.state == state, Job.stage == stage]
            for kind in self.kinds
            for state, stage in behind(self.status)
            if _exists(kind, state, stage)
        ]


def _exists(kind: Kind, state: State, stage: Stage) -> bool:
    """Only a fine-tune is checked first, and no check ends a job in success."""
    return stage is Stage.RUN or (kind is Kind.FINE_TUNE and state is not State.SUCCEEDED)


def page(
    session: Session, tenant: str, wanted: Wanted, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[Job], bool]:
    """Newest first, from behind the job `after`; and whether there are more."""
    mark = _place(session, tenant, after) if after is not None else None
    places = _labelled if _labels_lead(session, tenant, wanted) else _plain
    branches = [places(tenant, wanted.labels, only, mark).limit(limit + 1) for only in wanted.branches()]
    if not branches:
        return [], False
    found = union_all(*(select(branch.subquery()) for branch in branches)).subquery()
    newest = select(found.c.id).order_by(found.c.created_at.desc(), found.c.id.desc()).limit(limit + 1)
    ids = session.scalars(newest).all()
    rows = _rows(session, ids[:limit])
    return [rows[id_] for id_ in ids[:limit]], len(ids) > limit


def get(session: Session, tenant: str, job_id: str) -> Job:
    """One job of any kind, as a list shows it."""
    jobs.get(session, tenant, job_id, only=(Job.id,))
    # An id names a job for ever: so what is read now is this tenant's.
    return _rows(session, [job_id])[job_id]


def _rows(session: Session, ids: Sequence[str]) -> dict[str, Job]:
    """The jobs. A prediction's `spec` holds its model alone, and its `result` is left out: both may take
    megabytes, and no list shows them."""
    whole = select(Job).where(Job.id.in_(ids), Job.kind != Kind.PREDICT)
    found = {job.id: job for job in session.scalars(whole)}
    light = select(Job, Job.spec["model"].as_string()).options(defer(Job.spec), defer(Job.result))
    for job, model in session.execute(light.where(Job.id.in_(ids), Job.kind == Kind.PREDICT)):
        set_committed_value(job, "spec", {"model": model})
        set_committed_value(job, "result", None)
        found[job.id] = job
    return found


def _place(session: Session, tenant: str, job_id: str) -> _Place:
    job = jobs.get(session, tenant, job_id, param="after", only=(Job.created_at,))
    return job.created_at, job.id


def _labels_lead(session: Session, tenant: str, wanted: Wanted) -> bool:
    """Of a label that is on many jobs and a status, the status is likely to leave fewer."""
    if not wanted.labels or wanted.status is None:
        return bool(wanted.labels)
    name, value = next(iter(wanted.labels.items()))
    carriers = select(JobLabel.job).where(_is(JobLabel, tenant, name, value)).limit(_COMMON)
    return (session.scalar(select(func.count()).select_from(carriers.subquery())) or 0) < _COMMON


def _plain(tenant: str, labels: _Labels, only: _Only, mark: _Place | None) -> Select[str, float]:
    """The places of one branch, by the jobs' own indexes."""
    query = select(Job.id, Job.created_at).where(Job.tenant == tenant, *only, *_carry(tenant, labels))
    return _behind(query, Job.created_at, Job.id, mark)


def _labelled(tenant: str, labels: _Labels, only: _Only, mark: _Place | None) -> Select[str, float]:
    """The places of one branch, by the index of the first label."""
    (name, value), *others = labels.items()
    query = select(JobLabel.job.label("id"), JobLabel.created_at).join(Job, Job.id == JobLabel.job)
    query = query.where(_is(JobLabel, tenant, name, value), *only, *_carry(tenant, dict(others)))
    return _behind(query, JobLabel.created_at, JobLabel.job, mark)


def _behind(
    query: Select[str, float],
    made: InstrumentedAttribute[float],
    id_: InstrumentedAttribute[str],
    mark: _Place | None,
) -> Select[str, float]:
    if mark is not None:
        query = query.where(tuple_(made, id_) < tuple_(*mark))
    return query.order_by(made.desc(), id_.desc())


def _carry(tenant: str, labels: _Labels) -> list[ColumnElement[bool]]:
    """For each of the labels, that the job carries it."""
    conditions: list[ColumnElement[bool]] = []
    for name, value in labels.items():
        label = aliased(JobLabel)
        carried = select(label.job).where(label.job == Job.id, _is(label, tenant, name, value))
        conditions.append(carried.exists())
    return conditions


def _is(label: type[JobLabel], tenant: str, name: str, value: str) -> ColumnElement[bool]:
    return and_(label.tenant == tenant, label.name == name, label.value == value)
