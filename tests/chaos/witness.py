"""Looks at the fleet from outside: which children are at work, sampled from the process table, and what the logs tell."""

import json
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from chaos.fleet import Fleet, Life, state_of

EVERY_S = 0.04
#: Process numbers come round again: what was no child of ours may be one later.
FORGET_EVERY = 100
_AT_WORK = frozenset("RSD")


@dataclass
class Child:
    pid: int
    keeper: int
    first_seen: float
    #: Numbers of the samples in which it could work (it had a job, was not stopped, and not dead).
    samples: set[int] = field(default_factory=set)


class Witness:
    """Samples the children of all keepers until `stop`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._over = threading.Event()
        self._others: set[str] = set()
        self._number = 0
        self.children: list[Child] = []
        #: Those alive at the last sample.
        self.alive: dict[int, Child] = {}
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            self._number += 1
            if self._number % FORGET_EVERY == 0:
                self._others.clear()
            self._sample()

    def _sample(self) -> None:
        keepers = {str(worker.pid): worker.pid for worker in self._fleet.workers}
        alive = {child.pid: child for child in [*self.alive.values(), *self._new(keepers)]}
        for pid, child in list(alive.items()):
            letter = state_of(pid)
            if letter in _AT_WORK and _has_a_job(pid):
                child.samples.add(self._number)
            elif letter in ("", "Z", "X"):
                del alive[pid]
        self.alive = alive

    def _new(self, keepers: dict[str, int]) -> Iterator[Child]:
        for name in os.listdir("/proc"):
            if not name.isdigit() or name in self._others or int(name) in self.alive:
                continue
            try:
                parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
                is_ours = parent in keepers
                if is_ours and b"worker.child" in Path(f"/proc/{name}/cmdline").read_bytes():
                    child = Child(int(name), keepers[parent], time.time())
                    self.children.append(child)
                    yield child
                elif not is_ours:
                    self._others.add(name)
            except (OSError, IndexError):
                continue  # it is gone already


def _has_a_job(pid: int) -> bool:
    """A child takes another name when it begins. Frozen while it starts, it can wake long after its lease, and ends."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().startswith("plait ")
    return False


@dataclass(frozen=True)
class Said:
    """A line of a worker's log about one claim."""

    what: str
    job: str
    fence: int
    at: float
    keeper: int


_LINES = {
    "claimed": re.compile(r"claimed (\S+) \(\w+, fence (\d+)\)"),
    "settled": re.compile(r"job (\S+) settled under fence (\d+)"),
    "refused": re.compile(r"job (\S+) (?:is another's: fenced off at|had moved on from) fence (\d+)"),
}


def said_in(lives: Iterable[Life]) -> list[Said]:
    """What keepers wrote about their claims, life by life."""
    return [said for life in lives for said in _said(life)]


def _said(life: Life) -> Iterator[Said]:
    for line in life.log.read_text(errors="replace").splitlines():
        if not line.startswith("{"):
            continue
        try:
            told = json.loads(line)
        except ValueError:
            continue  # its writer was killed in the middle of it
        for what, pattern in _LINES.items():
            if found := pattern.match(str(told.get("event"))):
                at = datetime.fromisoformat(told["timestamp"]).timestamp()
                yield Said(what, found[1], int(found[2]), at, life.pid)


def overlaps(children: Iterable[Child], said: Iterable[Said]) -> list[str]:
    """Jobs on which two children could work at the same instant.

    A keeper says that it has claimed before it starts the child, and claims again only after the child's end:
    so the last claim before a child was first seen is the one that it worked for.
    """
    claims = sorted((s for s in said if s.what == "claimed"), key=lambda s: s.at)
    by_job: dict[str, list[tuple[Said, Child]]] = defaultdict(list)
    for child in children:
        own = [c for c in claims if c.keeper == child.keeper and c.at <= child.first_seen]
        if own:
            by_job[own[-1].job].append((own[-1], child))
    return [
        f"job {job}: {_told(one)} and {_told(other)} were at work at the same time"
        for job, found in by_job.items()
        for i, one in enumerate(found)
        for other in found[i + 1 :]
        if one[1].samples & other[1].samples
    ]


def _told(found: tuple[Said, Child]) -> str:
    claim, child = found
    return (
        f"child {child.pid} (fence {claim.fence}, claimed {claim.at:.2f} by {claim.keeper}, "
        f"seen {child.first_seen:.2f}, samples {min(child.samples)}-{max(child.samples)})"
    )
