"""JSON lines between keeper and child over one socket pair. The words of both sides are listed here.

keeper -> child: an assignment (it has `job`), `{"lease": instant}` or null, `{"stop": why}`, `{"published": ref}`
child -> keeper: `{"say": "heard" | "progress" | "metrics" | "event" | "resolved" | "checkpoint" | "done" | "stopped" | "failed", ...}`

`heard` is said at once to an assignment: a child that ends before it never began. `done`, `stopped` and `failed` are a job's last word.
"""

import json
import socket
import threading
from typing import Any


class Lines:
    """Splits what arrives on a socket into messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """A message of megabytes comes in many pieces: they are put together once, at its end."""
        self._parts.append(data)
        if b"\n" not in data:
            return []
        *whole, rest = b"".join(self._parts).split(b"\n")
        self._parts = [rest]
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
