"""A job that a caller watches: `?wait=N` holds the answer until the job's status changes."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from api import waiting
from api.services import Services
from db import jobs, tables
from domain.job import FINAL, Kind, Stage, State, public_status


def until_it_changes(plait: Services, tenant: str, job_id: str, *, kind: Kind | None = None) -> None:
    """Returns when the job is final, has another status than now, or the caller's time is up.

    At once where the caller did not ask to wait, or too many wait already. NotFound where there is no such job.
    """
    seconds = waiting.asked()

    def look(session: Session) -> tables.Job:
        return jobs.get(session, tenant, job_id, kind=kind, only=(tables.Job.state, tables.Job.stage))

    if seconds:
        plait.waiting.hold(plait, look, _changed(), job_id, seconds)


def _changed() -> Callable[[tables.Job], bool]:
    """True of a final job, and of one whose status is not the first that was seen."""
    first: list[str] = []

    def changed(job: tables.Job) -> bool:
        first.append(public_status(State(job.state), Stage(job.stage)))
        return job.state in FINAL or first[-1] != first[0]

    return changed
