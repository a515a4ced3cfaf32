"""Messages between a decoder and whoever asks it: a length, a JSON object, and raw bytes behind it. No pickle.

Neither side runs what the other sends: a decoder that hostile media took over can lie, and no more.
"""

import json
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

#: Of the JSON object, in bytes.
_MOST = 2**16
_LENGTH = struct.Struct(">I")
#: Heard at once while a header is expected; what follows is then copied once more.
_AT_ONCE = 2**12
#: More than the kernel usually allows: as much as it does.
_BUFFER = 2**20


class Overdue(Exception):
    """The other side took too long."""


class Gone(Exception):
    """The other side ended, or cannot be talked to any more."""


class Nonsense(Gone):
    """What the other side said cannot be."""


class Line:
    """One end of a socket. Every call ends by `until` (of `time.monotonic`), or waits for ever if that is None."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        #: What has arrived and was not yet asked for.
        self._early = bytearray()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def send(self, header: dict[str, Any], body: Any = b"", until: float | None = None) -> None:
        """`body` is anything with contiguous bytes; its length goes into the header."""
        view = memoryview(body).cast("B")
        words = json.dumps({**header, "bytes": len(view)}).encode()
        head = _LENGTH.pack(len(words)) + words
        try:
            self._wait_until(until)
            sent = self._sock.sendmsg([head, view])
            if sent < len(head):
                self._sock.sendall(head[sent:])
                sent = len(head)
            if sent < len(head) + len(view):
                self._wait_until(until)
                self._sock.sendall(view[sent - len(head) :])
        except TimeoutError as error:
            raise Overdue from error
        except OSError as error:
            raise Gone(str(error)) from error

    def header(self, until: float | None = None) -> dict[str, Any]:
        """The next message's object; `bytes` of it say how much follows."""
        while len(self._early) < _LENGTH.size:
            self._hear(until)
        (length,) = _LENGTH.unpack(self._early[: _LENGTH.size])
        if length > _MOST:
            raise Nonsense("a header without end")
        end = _LENGTH.size + length
        while len(self._early) < end:
            self._hear(until)
        try:
            header = json.loads(self._early[_LENGTH.size : end])
        except (ValueError, RecursionError) as error:
            raise Nonsense("no JSON") from error
        size = header.get("bytes") if isinstance(header, dict) else None
        if type(size) is not int or size < 0:
            raise Nonsense("a header without a length")
        del self._early[:end]
        return dict(header)

    def into(self, buffer: Any, until: float | None = None) -> None:
        """Fills `buffer` with what follows a header."""
        view = memoryview(buffer).cast("B")
        early = min(len(view), len(self._early))
        view[:early] = self._early[:early]
        del self._early[:early]
        done = early
        while done < len(view):
            done += self._heard(partial(self._sock.recv_into, view[done:]), until)

    def _hear(self, until: float | None) -> None:
        """Some more, which may be of what follows the header."""
        self._early += self._heard(partial(self._sock.recv, _AT_ONCE), until)

    def _heard(self, receive: Callable[[], T], until: float | None) -> T:
        try:
            self._wait_until(until)
            got = receive()
        except TimeoutError as error:
            raise Overdue from error
        except OSError as error:
            raise Gone(str(error)) from error
        if not got:
            raise Gone("ended")
        return got

    def _wait_until(self, until: float | None) -> None:
        if until is None:
            return
        left = until - time.monotonic()
        if left <= 0:
            raise Overdue
        self._sock.settimeout(left)

    def close(self) -> None:
        self._sock.close()
