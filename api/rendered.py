"""Answers about one job, rendered once for each version of it: whoever asks again is given the same bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flask import Response
from pydantic import BaseModel
from werkzeug.http import parse_etags

from db.glances import Glance
from domain.job import FINAL

#: Bytes of answers that a process keeps: those about some ten thousand jobs.
MOST_BYTES = 16 * 1024 * 1024
#: How a glance becomes an answer's shape.
Make = Callable[[Glance], BaseModel]


@dataclass(frozen=True)
class Answer:
    """An answer that no framework has touched yet."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    def response(self) -> Response:
        return Response(self.body, self.status, self.headers)


class Rendered:
    """The bodies of the latest answers, by version. Safe in any thread."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._bodies: OrderedDict[tuple[Make, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, glance: Glance, make: Make, known: str | None) -> Answer:
        """The answer about the job; empty (304) where the header If-None-Match, `known`, names its version."""
        tag = f'"{glance.version}"'
        # A copy may be kept, by this caller alone, and must be asked about each time.
        headers = [("ETag", tag), ("Cache-Control", "private, no-cache")]
        if glance.state not in FINAL:
            headers.append(("Retry-After", "1"))
        if known is not None and (known == tag or parse_etags(known).contains_weak(glance.version)):
            return Answer("304 NOT MODIFIED", headers, b"")
        body = self._body(glance, make)
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return Answer("200 OK", headers, body)

    def _body(self, glance: Glance, make: Make) -> bytes:
        key = (make, glance.version)
        with self._lock:
            body = self._bodies.get(key)
            if body is not None:
                self._bodies.move_to_end(key)
                return body
        body = make(glance).model_dump_json(by_alias=True).encode()
        with self._lock:
            self._bytes += len(body) - len(self._bodies.pop(key, b""))
            self._bodies[key] = body
            while self._bytes > self._most:
                self._bytes -= len(self._bodies.popitem(last=False)[1])
        return body
