"""The whole service as real processes, which are started again whenever they die."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
import redis
from sqlalchemy.exc import DBAPIError

import settings as configuration
from chaos.postgres import Crashable, crashable
from db import tenants
from db.session import Database
from ops import broker
from support.databases import migrated
from support.stack import ROOT, kill_tree

T = TypeVar("T")
#: A keeper is silent for this long before others may have its job.
LEASE_S, GRACE_S, POLL_S = 3.0, 0.5, 0.5
#: A training's child loads torch before it hears that its lease goes on.
TRAIN_LEASE_S = 8.0
#: After so long, whoever was frozen has lost its job for certain: upkeep looks at least every 1.2 s.
LOST_AFTER_S = LEASE_S + GRACE_S + 1.5
TENANTS = ("ada", "bob", "cyd")


@dataclass
class Life:
    """One process of a member, from its start to its death."""

    pid: int
    log: Path


@dataclass
class Member:
    """One place in the fleet; whoever dies in it is replaced."""

    name: str
    command: list[str]
    settings: configuration.Settings
    pass_fds: tuple[int, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    lives: list[Life] = field(default_factory=list)
    #: A fault has it in hand: no other takes it.
    taken: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def start(self, folder: Path) -> None:
        log = folder / f"{self.name}.{len(self.lives)}.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                env=configuration.environment(self.settings)
                | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self.pass_fds,
                cwd=ROOT,
            )
        self.lives.append(Life(self.pid, log))

    @property
    def is_dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def family(self) -> list[int]:
        """Its own pid and those of all below it; empty once it is dead."""
        with suppress(psutil.NoSuchProcess):
            return [self.pid, *(p.pid for p in psutil.Process(self.pid).children(recursive=True))]
        return []


class Fleet:
    """API, workers, two upkeeps and a broker around one database; nothing is started before `start`."""

    def __init__(self, folder: Path, url: str, server: Crashable | None, *, fence: str, cpu: int, train: int):
        self.folder, self.server = folder, server
        self.stops = folder / "stops"
        self.logs = folder / "logs"
        for made in (self.stops, self.logs, folder / "data"):
            made.mkdir()
        self.broker, broker_url = broker.start(folder / "data")
        self.settings = dataclasses.replace(
            configuration.Settings(),
            data=folder / "data",
            database_url=url,
            redis_url=broker_url,
            lease_s=LEASE_S,
            grace_s=GRACE_S,
            poll_s=POLL_S,
            allow_hub=False,
            encoders=str(folder / "encoders"),
            supervisor=os.getpid(),
        )
        self.database = Database(url)
        self.keys: dict[str, str] = {}
        self.door = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self.door.getsockname()[1])
        self.api = self._member("api", "api", "--fd", str(self.door.fileno()), fds=(self.door.fileno(),))
        self.upkeeps = [self._member(f"upkeep-{n}", "upkeep") for n in range(2)]
        self.workers = [self._worker(f"cpu-{n}", "cpu", fence, LEASE_S) for n in range(cpu)]
        self.workers += [self._worker(f"train-{n}", "train", fence, TRAIN_LEASE_S) for n in range(train)]

    def _member(self, name: str, *arguments: str, fds: tuple[int, ...] = ()) -> Member:
        return Member(name, ["-m", "manage", *arguments], self.settings, fds)

    def _worker(self, name: str, lane: str, fence: str, lease_s: float) -> Member:
        settings = dataclasses.replace(self.settings, lease_s=lease_s)
        command = ["-m", "chaos.keeper", str(self.stops), fence, "worker", "--lane", lane]
        return Member(name, command, settings)

    @property
    def members(self) -> list[Member]:
        return [self.api, *self.upkeeps, *self.workers]

    def start(self) -> None:
        """Everything, with one key a tenant."""
        with self.database.transaction() as session:
            for tenant in TENANTS:
                tenants.ensure(session, tenant)
                self.keys[tenant] = tenants.create_key(session, tenant, name="chaos")[1]
        self.revive()

    def revive(self) -> None:
        """Whoever is dead is started again. Call it in a thread that lasts: what it starts dies with that."""
        for member in self.members:
            if member.is_dead:
                member.start(self.logs)

    def restart_broker(self) -> None:
        """A new, empty broker at the address of the one that died."""
        path = self.settings.redis_url.removeprefix("unix://")
        with (self.settings.data / "broker.log").open("ab") as log:
            self.broker = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "ops.broker",
                    str(os.getpid()),
                    str(broker.binary()),
                    path,
                    str(self.settings.data),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )

    def broker_client(self) -> redis.Redis:
        return redis.Redis.from_url(self.settings.redis_url, socket_timeout=1, socket_connect_timeout=1)

    def ask(self, read: Callable[[], T], otherwise: T) -> T:
        """What `read` finds in the database; `otherwise` while that is down."""
        try:
            return read()
        except DBAPIError:
            return otherwise

    def stop(self) -> None:
        for member in self.members:
            kill_tree(member.pid, signal.SIGKILL)
            if member.process is not None:
                member.process.wait()
        self.broker.kill()
        self.broker.wait()
        broker.remove_socket(self.settings.redis_url)
        self.door.close()
        self.database.close()


def signal_all(pids: list[int], sig: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sig)


def state_of(pid: int) -> str:
    """The letter that the kernel has for it (`T`: stopped); empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def fleet(folder: Path, kind: str, *, fence: str = "fenced", cpu: int = 4, train: int = 0) -> Iterator[Fleet]:
    """A fleet on a fresh database of that kind."""
    if kind == "postgresql":
        with crashable() as server, _fleet(folder, server.url, server, fence, cpu, train) as made:
            yield made
    else:
        with _fleet(folder, f"sqlite:///{folder / 'plait.db'}", None, fence, cpu, train) as made:
            yield made


@contextmanager
def _fleet(
    folder: Path, url: str, server: Crashable | None, fence: str, cpu: int, train: int
) -> Iterator[Fleet]:
    with migrated(url):
        made = Fleet(folder, url, server, fence=fence, cpu=cpu, train=train)
    try:
        yield made
    finally:
        made.stop()
