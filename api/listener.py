"""One open stream: what it was told, and what its connection has not taken yet. Knows no database and no thread."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: A comment makes proxies and clients see that the stream is open; the rest tells a browser when to come back (ms).
# No blank line follows a comment: OpenAI's client would take it for an event without data.
_OPENING, _HEARTBEAT = b": listening\nretry: 1000\n", b": heartbeat\n"
#: A client without power, or one that reads nothing, is kept no longer than this.
_UNANSWERED_S = 30.0
#: Bytes that wait for a slow reader; no more is read for it until it has taken some.
_FULL = 256 * 1024


@dataclass(eq=False)
class Listener:
    """Who listens to which job, and the last event that it knows."""

    tenant: str
    key_id: str
    job_id: str
    seen: int
    wire: socket.socket = field(init=False)
    #: Hears of the end, and whether all was told.
    over: Callable[[bool], None] = field(init=False)
    is_ending: bool = False
    #: Whether the other end may still be seen to close: not once it has sent something that is not ours to read.
    is_watched: bool = True
    _outbox: bytearray = field(default_factory=bytearray)
    _chunked: bool = False
    _told_at: float = 0.0
    #: Since when the connection took nothing of what waits.
    _stuck_since: float | None = None

    def begin(self, wire: socket.socket, head: bytes = b"", *, chunked: bool = False) -> None:
        """The answer's head is on the way; its body comes in chunks, or as it is."""
        self.wire, self._chunked = wire, chunked
        self._outbox += head
        self._tell(_OPENING)

    def tell(self, seq: int, words: bytes) -> None:
        """The event with this number, unless it was told already."""
        if seq > self.seen and not self.is_ending:
            self.seen = seq
            self._tell(words)

    def beat(self, every_s: float) -> None:
        """A comment, if nothing was said for so long."""
        if time.monotonic() - self._told_at >= every_s and not (self._outbox or self.is_ending):
            self._tell(_HEARTBEAT)

    def end(self) -> None:
        """Nothing more is told; a client sees that this is the end and no cut."""
        if not self.is_ending:
            self.is_ending = True
            self._outbox += b"0\r\n\r\n" if self._chunked else b""

    def _tell(self, words: bytes) -> None:
        self._outbox += b"%x\r\n%b\r\n" % (len(words), words) if self._chunked else words
        self._told_at = time.monotonic()

    def send(self) -> None:
        """As much as the connection takes now. OSError where it is broken."""
        try:
            while self._outbox:
                del self._outbox[: self.wire.send(self._outbox)]
                self._stuck_since = None
        except BlockingIOError:
            self._stuck_since = self._stuck_since or time.monotonic()

    def is_gone(self) -> bool:
        """Whether the other end was closed. Nothing that it sent is taken away: it may be its next request."""
        try:
            if self.wire.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                return True
            self.is_watched = False
        except BlockingIOError:
            pass
        except OSError:
            return True
        return False

    @property
    def has_more(self) -> bool:
        return bool(self._outbox)

    @property
    def is_full(self) -> bool:
        return len(self._outbox) >= _FULL

    @property
    def is_stuck(self) -> bool:
        return self._stuck_since is not None and time.monotonic() - self._stuck_since > _UNANSWERED_S
