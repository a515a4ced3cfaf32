"""A real installation for tests: broker, database, workers and upkeep as processes of their own."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

import settings as configuration
from bus.bells import Bells
from db import events, files, jobs, readers, starts, tenants
from db.blobs import open_blobs
from db.session import Database
from db.tables import Event, File, Job
from domain.ids import new_id
from domain.job import Lane
from domain.shapes import parse
from domain.specs import FineTune
from ops import broker
from support.databases import fresh

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
TENANT = tenants.DEFAULT_TENANT


class Stack:
    """Starts and kills the real processes; submits as the API does; reads as the API does."""

    def __init__(self, folder: Path, settings: configuration.Settings, database: Database) -> None:
        self.folder, self.settings, self.database = folder, settings, database
        self.bells = Bells(settings.redis_url)
        self.blobs = open_blobs(settings)
        self.broker: subprocess.Popen[bytes] | None = None
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """`plait-server <arguments>` as a process."""
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "manage", *arguments],
                cwd=ROOT,
                env=configuration.environment(self.settings) | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def worker(self, lane: Lane) -> "subprocess.Popen[bytes]":
        return self.start("worker", "--lane", str(lane))

    def upload(self, path: Path) -> str:
        file_id = new_id("file-")
        with path.open("rb") as stream:
            stored = self.blobs.write(file_id, stream)
        row = File(
            id=file_id,
            tenant=TENANT,
            filename=path.name,
            purpose="fine-tune",
            bytes=stored.bytes,
            sha256=stored.sha256,
            blob=file_id,
        )
        with self.database.transaction() as session:
            files.add(session, row)
        return file_id

    def submit(self, training_file: str, multimodal: dict[str, Any], **more: Any) -> str:
        body = {"model": "late-fusion", "training_file": training_file, "multimodal": multimodal, **more}
        spec = parse(FineTune, body)
        stored = spec.model_dump(mode="json", by_alias=True) | {
            "multimodal": spec.merged().model_dump(mode="json", by_alias=True)
        }
        with self.database.transaction() as session:
            source = stored[starts.FIELD]
            start = starts.find(session, TENANT, source, model=stored["model"]) if source else None
            new = jobs.Submission(
                tenant=TENANT,
                spec=stored,
                files=readers.fields_of(stored),
                start=start.checkpoint.id if start else None,
            )
            job = jobs.submit(session, new)
        self.bells.ring(Lane.CPU)
        return job.id

    def cancel(self, job_id: str) -> None:
        with self.database.transaction() as session:
            job = jobs.cancel(session, TENANT, job_id)
        self.bells.poke(job.lease_owner)

    def pause(self, job_id: str) -> None:
        with self.database.transaction() as session:
            job = jobs.pause(session, TENANT, job_id)
        self.bells.poke(job.lease_owner)

    def resume(self, job_id: str) -> None:
        with self.database.transaction() as session:
            job = jobs.resume(session, TENANT, job_id)
        self.bells.ring(Lane(job.lane))

    def job(self, job_id: str) -> Job:
        with self.database.reading() as session:
            return jobs.get(session, TENANT, job_id)

    def history(self, job_id: str) -> list[Event]:
        with self.database.reading() as session:
            return list(events.since(session, job_id, 0))

    def until(self, job_id: str, true: Callable[[Job], bool], *, limit_s: float = 120.0) -> Job:
        """The job once `true` of it; fails with what is known when the time is up."""
        return until(lambda: self.job(job_id), true, limit_s=limit_s, about=lambda: self.explain(job_id))

    def explain(self, job_id: str) -> str:
        told = "\n".join(f"{e.seq} {e.name} {e.message}" for e in self.history(job_id))
        logs = "\n".join(p.read_text(errors="replace")[-3000:] for p in self.folder.rglob("*.log"))
        return f"{told}\n{logs}"

    def stop(self) -> None:
        for process in self.processes:
            kill_tree(process.pid, signal.SIGKILL)
            process.wait()


def until(
    read: Callable[[], T],
    true: Callable[[T], bool],
    *,
    limit_s: float,
    about: Callable[[], str] = lambda: "",
) -> T:
    """What `read` returns once `true` of it."""
    limit, pause = time.monotonic() + limit_s, threading.Event()
    while not true(value := read()):
        if time.monotonic() > limit:
            raise AssertionError(f"not reached within {limit_s} s: {value}\n{about()}")
        pause.wait(0.05)
    return value


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def decoders_of(pid: int) -> list[psutil.Process]:
    """The processes that decode for a worker or for its child."""
    return [p for p in children_of(pid) if "engine.data.decoders.process" in p.cmdline()]


def kill_tree(pid: int, sig: signal.Signals) -> None:
    """Signals a process and all below it."""
    try:
        family = [psutil.Process(pid), *children_of(pid)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        if process.is_running():
            os.kill(process.pid, sig)


@contextmanager
def stack(
    folder: Path, *, kind: str = "sqlite", encoders: Path | None = None, **more: Any
) -> Iterator[Stack]:
    """A stack with short leases and `encoders` as its mirror; nothing is started yet but the broker."""
    data = folder / "data"
    data.mkdir()
    process, url = broker.start(data)
    with fresh(kind, folder) as database:
        with database.transaction() as session:
            tenants.ensure(session)
        settings = dataclasses.replace(
            configuration.Settings(),
            data=data,
            database_url=database.url,
            redis_url=url,
            lease_s=4.0,
            grace_s=0.5,
            poll_s=0.5,
            allow_hub=False,
            encoders=str(encoders) if encoders else "",
            supervisor=os.getpid(),
            **more,
        )
        made = Stack(folder, settings, database)
        made.broker = process
        try:
            yield made
        finally:
            made.stop()
            process.kill()
            process.wait()
            broker.remove_socket(url)
