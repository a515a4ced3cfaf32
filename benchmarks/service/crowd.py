"""(e) Many clients that ask once a second, with and without 200 open streams, on one API process."""

import threading
import time
from typing import Any

from benchmarks.service import listening, load, sides
from bus.bells import Bells
from db import claims as leases
from db import reports
from db.tables import Job
from domain.job import Lane

CLIENTS, STREAMS, JOBS = 1_000, 200, 50
#: Events a second, over all jobs; each is told to every stream of its job.
_EVENTS = 20


def measure(
    on: sides.Ground, *, rounds: int, seconds: float, clients: int = CLIENTS, streams: int = STREAMS
) -> list[dict[str, Any]]:
    ours = sides.plait(on)
    jobs = _running(on, ours, min(JOBS, streams))
    requests = [sides.with_tag(ours.about(job.id), '"none"') for job in jobs]
    rows = []
    for number in range(rounds):
        for open_streams in (0, streams):
            rows.append({"round": number, **_round(on, ours, jobs, requests, clients, open_streams, seconds)})
    return rows


def _round(
    on: sides.Ground,
    ours: sides.Side,
    jobs: list[Job],
    requests: list[str],
    clients: int,
    streams: int,
    seconds: float,
) -> dict[str, Any]:
    over, said = threading.Event(), [0]
    talk = threading.Thread(target=_talk, args=(on, jobs, over, said))
    heard = listening.Listening(ours, [job.id for job in jobs], streams, on.key)
    with heard:
        talk.start()
        told = load.run(load.Plan(ours.port, requests, clients, seconds, every_s=1.0))
        over.set()
        talk.join()
        time.sleep(1.5)
    expected = said[0] * (streams // len(jobs))
    return {
        "clients": clients,
        "streams": streams,
        "per_second": round(told.per_second),
        "p50_ms": round(told.quantile(0.5) * 1000, 2),
        "p99_ms": round(told.quantile(0.99) * 1000, 2),
        "errors": told.errors,
        "events_expected": expected,
        "events_heard": heard.events,
    }


def _running(on: sides.Ground, ours: sides.Side, count: int) -> list[Job]:
    for _ in range(count):
        ours.made()
    taken = [leases.claim(on.database, Lane.CPU, "benchmark", 3600.0) for _ in range(count)]
    return [job for job in taken if job is not None]


def _talk(on: sides.Ground, jobs: list[Job], over: threading.Event, said: list[int]) -> None:
    """Events of the jobs, one after the other, as their workers would tell them; and a wake for each."""
    bells, about = Bells(on.redis_url), {"name": "training", "level": "info", "type": "message", "data": {}}
    while not over.wait(1 / _EVENTS):
        job = jobs[said[0] % len(jobs)]
        with on.database.transaction() as session:
            reports.report(session, job.id, job.fence, reports.Words(events=[{**about, "message": "a step"}]))
        bells.wake(job.id)
        said[0] += 1
