"""JSON lines between keeper and child over one socket pair. The words of both sides are listed here.

keeper -> child: an assignment (it has `job`), `{"lease": instant}` or null, `{"stop": why}`, `{"published": ref}`,
    `{"ask": number, "files": {id: {"blob", "sha256", "bytes"}}}`
child -> keeper: `{"say": "heard" | "progress" | "metrics" | "event" | "resolved" | "checkpoint" | "files" | "done" | "stopped" | "failed", ...}`

`files` asks where uploaded files are (`ask`, `ids`), at most FILES_ASKED at once; unknown ids are not in the answer.
`heard` is said at once to an assignment: a child that ends before it never began. `done`, `stopped` and `failed` are a job's last word.
"""

import json
import socket
import threading
from typing import Any

#: So no message grows with the table that names the files.
FILES_ASKED = 256


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
