"""Server-sent events: how an event is written, and how an answer is begun that goes on to the job's end.

The bytes come from `api.listeners`: an open stream holds a connection and no thread of the server's.
"""

import socket
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from typing import Any

from flask import Response

from api import shapes
from api.listener import Listener
from db import tables

EVENT_STREAM = "text/event-stream"


def block(row: tables.Event) -> bytes:
    """Without a name, so that a browser's `onmessage` hears it. JSON has no line breaks of its own."""
    return f"id: {row.seq}\ndata: {shapes.event(row).model_dump_json()}\n\n".encode()


class Lent(OSError):
    """The connection is the listener's: the server writes no more to it until it is given back.

    An OSError, since gunicorn lets those through from an application.
    """

    def __init__(self, listener: Listener, keeps: bool) -> None:
        super().__init__("lent to a listener")
        self.listener = listener
        #: Whether the client wants the connection to go on after the stream's end.
        self.keeps = keeps


class Streamed(Response):
    """The answer to one who listens; `add` is given the listener once its connection is known."""

    def __init__(self, listener: Listener, add: Any) -> None:
        super().__init__(iter(()), content_type=EVENT_STREAM)
        self._listener, self._add = listener, add
        self.headers["Cache-Control"] = "no-store"
        # nginx would hold the events back to fill its buffer.
        self.headers["X-Accel-Buffering"] = "no"

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Raises Lent where the server gives its socket; elsewhere the bytes come through a pair of sockets."""
        if environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        wire = environ.get("gunicorn.socket")
        if wire is not None:
            # A client of HTTP/1.0 knows no chunks, and cannot tell the stream's end from a cut.
            chunked = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
            keeps = chunked and "close" not in environ.get("HTTP_CONNECTION", "").lower()
            self._listener.begin(wire, self._head(environ, chunked, keeps), chunked=chunked)
            raise Lent(self._listener, keeps)
        ours, theirs = socket.socketpair()
        start_response(self.status, self.get_wsgi_headers(environ).to_wsgi_list())
        self._listener.begin(ours)
        self._add(self._listener, lambda _is_whole: ours.close())
        return _received(theirs)

    def _head(self, environ: dict[str, Any], chunked: bool, keeps: bool) -> bytes:
        lines = [f"{environ['SERVER_PROTOCOL']} {self.status.upper()}"]
        lines += [f"{name}: {value}" for name, value in self.get_wsgi_headers(environ)]
        lines += [f"Date: {formatdate(usegmt=True)}", f"Connection: {'keep-alive' if keeps else 'close'}"]
        lines += ["Transfer-Encoding: chunked"] if chunked else []
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _received(Iterator[bytes]):
    """What arrives at one end of a pair; closing it hangs up."""

    def __init__(self, theirs: socket.socket) -> None:
        self._theirs = theirs

    def __next__(self) -> bytes:
        if words := self._theirs.recv(65536):
            return words
        self.close()
        raise StopIteration

    def close(self) -> None:
        self._theirs.close()
