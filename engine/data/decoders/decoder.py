"""One decoder process, from the side that asks it. Knows no media."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import settings
from engine.data.decoders.framing import Gone, Line

_ROOT = Path(__file__).parents[3]
#: To import what it needs takes a fraction of a second; a machine may be busy.
_START_S = 120.0


class Decoder:
    """Started at once, ready later. It dies with the THREAD that made it."""

    def __init__(self, work: str, memory: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # Without `site`, which takes a third of the time: the paths are those of this process.
                [
                    *(sys.executable, "-S", "-B", "-m", "engine.data.decoders.process"),
                    *(str(theirs.fileno()), str(os.getpid()), str(memory), work),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Of this process's environment only where libraries are: there are secrets in it.
                env={
                    **settings.library_paths(),
                    "PYTHONPATH": os.pathsep.join([str(_ROOT), *(p or os.getcwd() for p in sys.path)]),
                    "PYDANTIC_DISABLE_PLUGINS": "1",
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
                    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
                },
                cwd="/",
            )
        self.line, self.pid = Line(ours), self._process.pid
        #: Items that it has answered since its start.
        self.answered = 0
        self._is_ready = False

    def await_ready(self) -> None:
        """Raises Gone, or Overdue."""
        if not self._is_ready:
            self.line.header(time.monotonic() + _START_S)
            self._is_ready = True

    def ask(self, request: dict[str, Any], data: bytes, until: float) -> dict[str, Any]:
        """What it says; `bytes` of it are still to be read from `line`. Raises Gone, or Overdue."""
        self.line.send(request, data, until)
        said = self.line.header(until)
        if said.get("failed") == "memory":
            raise OutOfMemory("out of memory")
        return said

    def end(self, patience: float = 0.0) -> str:
        """Kills it if it does not die by itself; says of what it died. Safe to be called twice, from any thread."""
        try:
            # Its end of the socket is closed some instants before it is dead.
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        self.end()
        self.line.close()


class OutOfMemory(Gone):
    """It says so itself, and ends."""
