"""JSON lines between keeper and child over one socket pair. The words of both sides are listed here.

keeper -> child: the assignment (first line), `{"lease": instant}`, `{"stop": why}`, `{"published": ref}`
child -> keeper: `{"say": "progress" | "metrics" | "event" | "checkpoint" | "done" | "stopped" | "failed", ...}`
"""

import json
import socket
import threading
from typing import Any


class Lines:
    """Splits what arrives on a socket into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in whole if line]


class Mouth:
    """Sends messages; several threads may speak."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def tell(self, **message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            self._sock.sendall(line)
