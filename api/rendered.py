"""Answers about one job, rendered once for each version of it: whoever asks again is given the same bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from flask import Response, request
from pydantic import BaseModel

from db.glances import Glance
from domain.job import FINAL

#: Bytes of answers that a process keeps: some ten thousand jobs.
MOST_BYTES = 16 * 1024 * 1024


class Rendered:
    """The bodies of the latest answers, by version. Safe in any thread."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._bodies: OrderedDict[tuple[type[BaseModel], str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, glance: Glance, shape: type[BaseModel], make: Callable[[], BaseModel]) -> Response:
        """The answer about the job; empty (304) for a caller that names its version."""
        if request.if_none_match.contains_weak(glance.version):
            response = Response(status=304)
        else:
            response = Response(self._body(glance, shape, make), content_type="application/json")
        headers = response.headers
        headers["ETag"] = f'"{glance.version}"'
        # A copy may be kept, by this caller alone, and must be asked about each time.
        headers["Cache-Control"] = "private, no-cache"
        if glance.row.state not in FINAL:
            headers["Retry-After"] = "1"
        return response

    def _body(self, glance: Glance, shape: type[BaseModel], make: Callable[[], BaseModel]) -> bytes:
        key = (shape, glance.version)
        with self._lock:
            body = self._bodies.get(key)
            if body is not None:
                self._bodies.move_to_end(key)
                return body
        body = make().model_dump_json(by_alias=True).encode()
        with self._lock:
            self._bytes += len(body) - len(self._bodies.pop(key, b""))
            self._bodies[key] = body
            while self._bytes > self._most:
                self._bytes -= len(self._bodies.popitem(last=False)[1])
        return body
