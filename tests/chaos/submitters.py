"""The clients of the run: processes that send a batch each; what they were answered is in one journal."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import client
from chaos.fleet import Fleet, kill_tree
from chaos.work import Task


@dataclass(frozen=True)
class Answer:
    name: str
    status: int
    id: str | None
    told: Any


@dataclass
class Submitters:
    """Sends tasks in batches; whatever a killed client left unanswered is sent again under its key."""

    fleet: Fleet
    tasks: Sequence[Task]
    journal: Path
    sent: int = 0
    running: list[tuple["subprocess.Popen[bytes]", list[dict[str, Any]]]] = field(default_factory=list)

    def start(self, requests: list[dict[str, Any]], port: int | None = None) -> "subprocess.Popen[bytes]":
        """One client process; through `port` where a proxy stands before the API."""
        process = subprocess.Popen(
            [sys.executable, "-I", client.__file__, str(port or self.fleet.port), str(self.journal)],
            stdin=subprocess.PIPE,
        )
        assert process.stdin is not None
        with process.stdin as out:
            out.write(json.dumps(requests).encode())
        return process

    def take(self, count: int) -> list[dict[str, Any]]:
        """The requests of the next tasks that nobody has sent yet."""
        batch = self.tasks[self.sent : self.sent + count]
        self.sent += len(batch)
        return [task.request(self.fleet.keys[task.tenant]) for task in batch]

    def send(self, requests: list[dict[str, Any]]) -> None:
        if requests:
            self.running.append((self.start(requests), requests))

    def tend(self) -> None:
        """Forgets the clients that have ended well; fails on one that has not."""
        for entry in list(self.running):
            code = entry[0].poll()
            if code is not None:
                assert code == 0, f"a client ended with {code}: {[r['name'] for r in entry[1]]}"
                self.running.remove(entry)

    def answers(self) -> list[Answer]:
        if not self.journal.exists():
            return []
        return [Answer(**json.loads(line)) for line in self.journal.read_text().splitlines()]

    def ids(self) -> dict[str, str]:
        """Task -> job, of those that were answered, in the order of their answers."""
        names = {task.name for task in self.tasks}
        return {a.name: a.id for a in self.answers() if a.id is not None and a.name in names}

    def asks(self, rng: random.Random, what: str) -> str | None:
        """Has a client ask for `what` (cancel, pause) of one of the newest jobs; which job."""
        jobs = list(self.ids().values())[-8:]
        if not jobs:
            return None
        job = rng.choice(jobs)
        self.ask(job, what)
        return job

    def ask(self, job: str, what: str) -> None:
        owners = {task.name: task.tenant for task in self.tasks}
        tenant = next(owners[name] for name, id_ in self.ids().items() if id_ == job)
        path = f"/v1/jobs/{job}/{what}"
        self.send([{"name": f"{what} {job}", "path": path, "token": self.fleet.keys[tenant]}])

    def stop(self) -> None:
        for process, _ in self.running:
            kill_tree(process.pid, signal.SIGKILL)
            process.wait()


def killed_between_commit_and_answer(
    clients: Submitters, requests: list[dict[str, Any]], port: int, is_stored: Any
) -> Iterator[None]:
    """A client behind a proxy that loses every answer; killed once its first job is stored, then it tries again."""
    process = clients.start(requests, port)
    try:
        while not is_stored(requests[0]):
            yield
    finally:
        process.kill()
        process.wait()
    clients.send(requests)
