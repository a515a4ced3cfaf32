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
    given = request.headers.get(HEADER, "")
    g.request_id = given if _WELL_FORMED.fullmatch(given) else new_id("req_")
    g.began = time.monotonic()
    # Threads are used again: what the last request bound must not stick to this one.
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _refuse_nul() -> None:
    """No id or word of ours holds a NUL, and PostgreSQL would choke on it."""
    if "\0" in request.path or "%00" in request.query_string.decode("latin-1"):
        raise BadRequest("The address holds a NUL character.", code="invalid_address")


def _end(response: Response) -> Response:
    response.headers[HEADER] = g.request_id
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        ms=round((time.monotonic() - g.began) * 1000, 1),
    )
    return response
