"""What must hold once all is over. Each rule returns what breaks it, in words; an empty list is a pass."""

import hashlib
import http.client
import itertools
from collections import Counter
from collections.abc import Callable, Mapping

from chaos.evidence import Evidence
from chaos.fleet import Fleet
from chaos.witness import Said, overlaps
from chaos.work import Task
from db.tables import File, Job
from domain.job import FINAL, MOVES, Kind, State

#: What the reaper writes of a job that it takes from a silent worker.
_SILENT = "went silent"


def _told(found: Evidence) -> dict[str, set[str | None]]:
    """Task -> the jobs that its client was told of."""
    told: dict[str, set[str | None]] = {task.name: set() for task in found.tasks}
    for answer in found.answers:
        if answer.name in told:
            told[answer.name].add(answer.id)
    return told


def lost(found: Evidence) -> list[str]:
    """Each task became a job, which is final, and its client was told so."""
    broken, told = [], _told(found)
    for task in found.tasks:
        job = found.job_of(task)
        if job is None:
            broken.append(f"{task.name}: there is no job of this key; its client heard {told[task.name]}")
        elif job.state not in FINAL:
            broken.append(f"{task.name}: job {job.id} is still {job.state}")
        elif job.id not in told[task.name]:
            broken.append(f"{task.name}: its client was not told of job {job.id}")
    return broken


def doubled(found: Evidence) -> list[str]:
    """One job a key, one end a job, one effect an end, one child at a time."""
    broken = [f"{name}: one key, answered with {ids}" for name, ids in _told(found).items() if len(ids) > 1]
    keys = Counter(job.idempotency_key for job in found.jobs.values())
    broken += [f"{key}: {count} jobs" for key, count in keys.items() if count > 1]
    for job, events in found.events.items():
        ends = [e.name for e in events if e.data.get("state") in FINAL and e.name in MOVES]
        if len(ends) > 1:
            broken.append(f"job {job} ended {len(ends)} times: {ends}")
        names = [file.filename for file in found.results.get(job, ())]
        if len(names) > len(set(names)):
            broken.append(f"job {job} published the same results twice: {names}")
    models = Counter(model.job for model in found.models)
    broken += [f"job {job} made {count} models" for job, count in models.items() if count > 1]
    return broken + overlaps(found.children, found.said)


def unexpected(found: Evidence) -> list[str]:
    """A job ends as its task says, unless it was cancelled or its workers died too often."""
    broken = []
    for task in found.tasks:
        job = found.job_of(task)
        if job is None or job.state not in FINAL:
            continue
        excused = (job.state == State.CANCELLED and job.id in found.cancelled) or (
            job.state == State.FAILED and job.deaths >= job.max_deaths
        )
        if not excused and job.state != task.ends:
            broken.append(f"{task.name}: job {job.id} is {job.state} instead of {task.ends}: {job.error}")
        if job.state == task.ends and not excused:
            broken += _effects(found, task, job)
    return broken


def _effects(found: Evidence, task: Task, job: Job) -> list[str]:
    broken = []
    results = len(found.results.get(job.id, ()))
    if task.results is not None and results != task.results:
        broken.append(f"{task.name}: job {job.id} has {results} result files instead of {task.results}")
    trained = job.kind == Kind.FINE_TUNE and job.state == State.SUCCEEDED
    models = sum(model.job == job.id for model in found.models)
    if models != int(trained):
        broken.append(f"{task.name}: job {job.id} has {models} models")
    return broken


def restless(found: Evidence) -> list[str]:
    """At rest nothing runs, and no tenant is charged for what does not."""
    broken = [f"job {job.id} runs" for job in found.jobs.values() if job.state == State.RUNNING]
    broken += [
        f"job {job.id} is {job.state} and leased to {job.lease_owner}"
        for job in found.jobs.values()
        if job.state != State.RUNNING and (job.lease_owner or job.lease_until)
    ]
    return broken + [
        f"{x.tenant} is charged for {x.running} in lane {x.lane}" for x in found.loads if x.running
    ]


def gaps(found: Evidence) -> list[str]:
    """Events are numbered 1, 2, 3 up to the job's own count, and their fences never fall."""
    broken = []
    for job in found.jobs.values():
        numbers = [event.seq for event in found.events.get(job.id, ())]
        if numbers != list(range(1, job.event_seq + 1)):
            broken.append(f"job {job.id}: events {numbers}, and its row says {job.event_seq}")
    return broken


def late_writes(found: Evidence) -> list[str]:
    """Nothing of a claim is written after its fence had risen, and what a row names is its last claim's."""
    broken = []
    for job, events in found.events.items():
        for one, following in itertools.pairwise(events):
            if following.fence < one.fence:
                broken.append(
                    f"job {job}: event {following.seq} is of fence {following.fence} after {one.fence}"
                )
    for said in found.said:
        if said.what == "settled" and _was_reaped(found, said):
            broken.append(
                f"job {said.job}: the outcome of fence {said.fence} landed after its lease was over"
            )
    for job_row in found.jobs.values():
        broken += _unpublished(found, job_row)
    return broken


def _was_reaped(found: Evidence, claim: Said) -> bool:
    """Whether the claim was ended by the reaper."""
    events = found.events.get(claim.job, ())
    after = [e for e in events if e.fence >= claim.fence and e.name != "job.claimed"]
    ending = next((e for e in after if e.name in MOVES and State.RUNNING in MOVES[e.name].sources), None)
    return ending is not None and _SILENT in ending.message


def _unpublished(found: Evidence, job: Job) -> list[str]:
    broken, ends = [], [e for e in found.events.get(job.id, ()) if e.data.get("state") in FINAL]
    if job.result_ref and ends and _fence(job.result_ref) != ends[-1].fence:
        broken.append(
            f"job {job.id}: its model is of fence {_fence(job.result_ref)}, its end of {ends[-1].fence}"
        )
    published = {point.ref: point.fence for point in found.checkpoints if point.job == job.id}
    if job.checkpoint_ref and published.get(job.checkpoint_ref) != _fence(job.checkpoint_ref):
        broken.append(f"job {job.id}: its checkpoint {job.checkpoint_ref} was not published by its fence")
    kept = [point.ref for point in found.checkpoints if point.job == job.id and point.available]
    if job.checkpoint_ref and job.checkpoint_ref not in kept:
        broken.append(f"job {job.id}: its checkpoint {job.checkpoint_ref} is in force and not available")
    for ref in filter(None, (job.result_ref, *kept)):
        if not found.artifacts.path(ref).is_dir():
            broken.append(f"job {job.id}: {ref} is named and not there")
    return broken


def _fence(ref: str) -> int:
    """Of `jobs/<id>/<fence>-<random>/...`."""
    return int(ref.split("/")[2].split("-")[0])


def unread(fleet: Fleet, found: Evidence) -> list[str]:
    """Each result file can be fetched over HTTP and is the bytes that its row says."""
    broken = []
    for job, files in found.results.items():
        for file in files:
            got = _content(fleet, file)
            if got is None or hashlib.sha256(got).hexdigest() != file.sha256:
                broken.append(f"job {job}: {file.filename} is not what its row says")
    return broken


def _content(fleet: Fleet, file: File) -> bytes | None:
    connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {fleet.keys[file.tenant]}"}
        connection.request("GET", f"/v1/files/{file.id}/content", headers=headers)
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else None
    finally:
        connection.close()


def orphans(found: Evidence) -> list[str]:
    """Folders of final jobs that no row names: invisible, and the sweep's."""
    left = []
    for job in found.jobs.values():
        folder = found.artifacts.root / "jobs" / job.id
        kept = [point.ref for point in found.checkpoints if point.job == job.id and point.available]
        named = {ref.split("/")[2] for ref in (job.result_ref, *kept) if ref}
        left += [f"{job.id}/{p.name}" for p in folder.glob("*") if p.name not in named]
    return left


def foreign(found: Evidence) -> list[str]:
    """No folder is of a job or a fence that never was: the sweep would not know what to make of it."""
    root = found.artifacts.root / "jobs"
    return [
        f"{path.parent.name}/{path.name} is nobody's"
        for path in root.glob("*/*")
        if path.parent.name not in found.jobs
        or int(path.name.split("-")[0]) > found.jobs[path.parent.name].fence
    ]


def refused(found: Evidence) -> tuple[int, int]:
    """Writes that the fence refused because the job was another's; and ends that were told twice for a lost answer."""
    no = [said for said in found.said if said.what == "refused"]
    late = sum(_was_reaped(found, said) for said in no)
    return late, len(no) - late


Rule = Callable[[Evidence], list[str]]
RULES: Mapping[str, Rule] = {
    "lost": lost,
    "doubled": doubled,
    "unexpected ends": unexpected,
    "not at rest": restless,
    "gaps in event numbers": gaps,
    "late writes that landed": late_writes,
    "folders of nobody": foreign,
}
