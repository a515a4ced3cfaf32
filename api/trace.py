"""Gives every request an id, which its log lines and its answer carry, and writes one line about it."""

import re
import time

import structlog
from flask import Flask, Response, g, request

from domain.errors import BadRequest
from domain.ids import new_id

HEADER = "x-request-id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9_.\-]{1,128}")

log = structlog.get_logger(__name__)


def install(app: Flask) -> None:
    app.before_request(_begin)
    app.before_request(_refuse_nul)
    app.after_request(_end)


def request_id() -> str:
    """The id of the request in hand."""
    return str(g.request_id)


def _begin() -> None:
    g.request_id = id_of(request.headers.get(HEADER, ""))
    g.began = time.monotonic()
    # Threads are used again: what the last request bound must not stick to this one.
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _refuse_nul() -> None:
    """No id or word of ours holds a NUL, and PostgreSQL would choke on it."""
    if "\0" in request.path or "%00" in request.query_string.decode("latin-1"):
        raise BadRequest("The address holds a NUL character.", code="invalid_address")


def _end(response: Response) -> Response:
    for name, value in headers(g.request_id):
        response.headers[name] = value
    note(g.request_id, request.method, request.path, response.status_code, g.began)
    return response


def id_of(given: str) -> str:
    """The id that the caller gave the request, or a new one."""
    return given if _WELL_FORMED.fullmatch(given) else new_id("req_")


def headers(request_id: str) -> list[tuple[str, str]]:
    """What every answer carries."""
    return [(HEADER, request_id), ("X-Content-Type-Options", "nosniff")]


def note(request_id: str, method: str, path: str, status: int, began: float) -> None:
    """The one line about a request that began then, by the monotonic clock."""
    ms = round((time.monotonic() - began) * 1000, 1)
    log.info("request", request_id=request_id, method=method, path=path, status=status, ms=ms)
