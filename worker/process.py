"""A child as its keeper sees it: the process, and the socket that both speak over. Knows no job."""

import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.output import Output
from worker.wire import Lines, Mouth

#: A child that reads nothing for so long is frozen; its keeper must not freeze with it.
_DEAF_S = 5


class ChildProcess:
    """Started at once. It dies with the THREAD that made it: make it in one that lives as long as the keeper."""

    def __init__(self, log_file: Path) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _DEAF_S, 0))
        self._output = Output(log_file)
        with theirs, self._output.writable() as output:
            self._process = subprocess.Popen(
                # Unbuffered: what a job prints must not wait in the child until the next one's log is open.
                [sys.executable, "-u", "-m", "worker.child", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=Path(__file__).parent.parent,
            )
        self.pid = self._process.pid
        self._mouth, self._lines = Mouth(self.sock), Lines()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def print_to(self, log_file: Path) -> None:
        """What it prints from now on belongs to the next job."""
        self._output.switch(log_file)

    def tell(self, **message: Any) -> bool:
        """False if it cannot hear; its exit is then about to be seen."""
        try:
            self._mouth.tell(**message)
        except OSError:
            return False
        return True

    def listen(self) -> list[dict[str, Any]] | None:
        """What it says now; None at its end. A killed child with unread words gives a reset, not an end."""
        try:
            data = self.sock.recv(1 << 20)
        except ConnectionError:
            return None
        return self._lines.feed(data) if data else None

    def end(self) -> int:
        """Kills it and whatever it has started; its exit code. What it said last can still be heard."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._output.finish()
        return code

    def close(self) -> None:
        """Ends it for good."""
        self.end()
        self.sock.close()
