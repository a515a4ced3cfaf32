"""All that is known at the end of a run: what the clients heard, what the processes said, and what the database holds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from chaos.fleet import Fleet
from chaos.submitters import Answer
from chaos.witness import Child, Said
from chaos.work import Task
from db.artifacts import Artifacts
from db.tables import Checkpoint, Event, File, Job, Model, ResultFile, TenantLoad


@dataclass(frozen=True)
class Evidence:
    tasks: Sequence[Task]
    answers: Sequence[Answer]
    #: Jobs that somebody wanted cancelled.
    cancelled: frozenset[str]
    said: Sequence[Said]
    children: Sequence[Child]
    jobs: Mapping[str, Job]
    events: Mapping[str, Sequence[Event]]
    results: Mapping[str, Sequence[File]]
    models: Sequence[Model]
    checkpoints: Sequence[Checkpoint]
    loads: Sequence[TenantLoad]
    artifacts: Artifacts

    def job_of(self, task: Task) -> Job | None:
        return next((job for job in self.jobs.values() if job.idempotency_key == task.name), None)


def gather(
    fleet: Fleet,
    tasks: Sequence[Task],
    answers: Sequence[Answer],
    cancelled: frozenset[str],
    said: Sequence[Said],
    children: Sequence[Child],
) -> Evidence:
    events: dict[str, list[Event]] = defaultdict(list)
    results: dict[str, list[File]] = defaultdict(list)
    with fleet.database.reading() as session:
        for event in session.scalars(select(Event).order_by(Event.job, Event.seq)):
            events[event.job].append(event)
        for job, file in session.execute(select(ResultFile.job, File).join(File, File.id == ResultFile.file)):
            results[job].append(file)
        return Evidence(
            tasks=tasks,
            answers=answers,
            cancelled=cancelled,
            said=said,
            children=children,
            jobs={job.id: job for job in session.scalars(select(Job))},
            events=events,
            results=results,
            models=session.scalars(select(Model)).all(),
            checkpoints=session.scalars(select(Checkpoint)).all(),
            loads=session.scalars(select(TenantLoad)).all(),
            artifacts=Artifacts(fleet.settings.data.absolute() / "artifacts"),
        )
