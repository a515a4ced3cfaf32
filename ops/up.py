"""`plait-server up`: broker, migrations, API, workers and upkeep as one supervised family."""

import dataclasses
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import settings as configuration
from db import tenants
from db.migrate import upgrade
from db.session import Database
from domain.job import Lane
from ops import broker
from ops.processes import Service

log = logging.getLogger(__name__)

FILE = "plait.json"
#: Workers may need a checkpoint before they stop.
STOP_S = 30.0
READY_S = 60.0


class CannotListen(RuntimeError):
    """The address is taken, or is none of this machine's."""


class AlreadyUp(RuntimeError):
    """Another `plait-server up` holds the data folder."""


def up(
    settings: configuration.Settings,
    *,
    host: str,
    port: int,
    workers: dict[Lane, int],
    ready: Callable[[dict[str, Any]], None],
) -> None:
    """Runs until SIGTERM or SIGINT. `ready` is called once with what `plait.json` says."""
    settings.data.mkdir(parents=True, exist_ok=True)
    over = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: over.set())
    with _only_one(settings.data), _door(host, port) as door:
        settings = dataclasses.replace(settings, data=settings.data.absolute(), supervisor=os.getpid())
        broker_process, settings = _with_broker(settings)
        key = prepare(settings)
        family = _family(settings, door, workers)
        try:
            for service in family:
                service.start()
            about = _describe(settings, door, key, family, broker_process)
            if _await_ready(about["base_url"], over):
                _write(settings.data / FILE, about)
                ready(about)
            _supervise(settings, family, over, about)
        finally:
            (settings.data / FILE).unlink(missing_ok=True)
            _stop(family)
            if broker_process is not None:
                broker_process.terminate()
                broker_process.wait()
                broker.remove_socket(settings.redis_url)


def prepare(settings: configuration.Settings) -> str:
    """The schema is current and the default tenant exists; the key that local tools use."""
    database = Database(settings.database)
    upgrade(database)
    kept = settings.data / "local.key"
    with database.transaction() as session:
        tenants.ensure(session)
    key = kept.read_text().strip() if kept.exists() else ""
    with database.transaction() as session:
        if not key or not tenants.is_live(session, key):
            _, key = tenants.create_key(session, tenants.DEFAULT_TENANT, name="local")
            _write_private(kept, key)
    database.close()
    return key


class _only_one:
    """Two supervisors of one folder would run every worker twice."""

    def __init__(self, folder: Path) -> None:
        self._file: TextIO = (folder / "up.lock").open("w")

    def __enter__(self) -> None:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            folder = Path(self._file.name).parent
            raise AlreadyUp(f"Plait is already up in {folder}; {folder / FILE} says where.") from None

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _with_broker(settings: configuration.Settings) -> tuple[Any, configuration.Settings]:
    if settings.redis_url:
        return None, settings
    process, url = broker.start(settings.data)
    return process, dataclasses.replace(settings, redis_url=url)


def _door(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        # The text of `create_server` repeats the address as Python writes it.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        message = (
            f"{host}:{port} cannot be listened on: {why}; choose another --port (0: any free one) or --host."
        )
        raise CannotListen(message) from error


def _family(settings: configuration.Settings, door: socket.socket, workers: dict[Lane, int]) -> list[Service]:
    logs = settings.data / "logs"
    logs.mkdir(exist_ok=True)

    def service(name: str, *arguments: str, pass_fds: tuple[int, ...] = ()) -> Service:
        return Service(name, ["-m", "manage", *arguments], settings, logs / f"{name}.log", pass_fds)

    fd = door.fileno()
    return [
        service("api", "api", "--fd", str(fd), pass_fds=(fd,)),
        service("upkeep", "upkeep"),
        *(
            service(f"worker-{lane}-{n}", "worker", "--lane", str(lane))
            for lane, count in workers.items()
            for n in range(count)
        ),
    ]


def _describe(
    settings: configuration.Settings,
    door: socket.socket,
    key: str,
    family: list[Service],
    broker_process: Any,
) -> dict[str, Any]:
    host, port = door.getsockname()[:2]
    pids = {service.name: service.pid for service in family}
    return {
        "base_url": f"http://{host}:{port}/v1",
        "api_key": key,
        "database_url": settings.database,
        "redis_url": settings.redis_url,
        "pids": {
            "supervisor": os.getpid(),
            "api": pids["api"],
            "broker": broker_process.pid if broker_process is not None else None,
            "upkeep": pids["upkeep"],
            "workers": [pid for name, pid in pids.items() if name.startswith("worker-")],
        },
    }


def _await_ready(base_url: str, over: threading.Event) -> bool:
    """True once the API says that it is ready; raises RuntimeError when it never does."""
    url, limit = base_url.removesuffix("/v1") + "/readyz", time.monotonic() + READY_S
    while time.monotonic() < limit:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            if over.wait(0.05):
                return False
    raise RuntimeError("The API did not become ready; its log says why.")


def _supervise(
    settings: configuration.Settings, family: list[Service], over: threading.Event, about: dict[str, Any]
) -> None:
    while not over.wait(0.2):
        revived = [service for service in family if service.revive()]
        if revived:
            pids = {s.name: s.pid for s in family}
            about["pids"] |= {"api": pids["api"], "upkeep": pids["upkeep"]}
            about["pids"]["workers"] = [pid for name, pid in pids.items() if name.startswith("worker-")]
            _write(settings.data / FILE, about)


def _stop(family: list[Service]) -> None:
    """All are told at once; those with a job in hand get time for its checkpoint."""
    limit = time.monotonic() + STOP_S
    for service in family:
        service.stop()
    for service in family:
        service.wait(limit - time.monotonic())


def _write(path: Path, about: dict[str, Any]) -> None:
    _write_private(path, json.dumps(about, indent=1) + "\n")


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, and readable by its owner only from the first byte."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.replace(part, path)
