"""The one place that turns what went wrong into HTTP: status, headers and the one shape of a body."""

import errno
import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response
from gunicorn.http.errors import NoMoreData, ParseException
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError
from werkzeug.exceptions import HTTPException

from api.trace import request_id
from domain import errors as domain
from domain.errors import InvalidSpec, OverQuota, PlaitError

log = logging.getLogger(__name__)

STATUS: Mapping[type[PlaitError], int] = {
    domain.BadRequest: 400,
    domain.Unauthorized: 401,
    domain.Forbidden: 403,
    domain.NotFound: 404,
    domain.Conflict: 409,
    domain.TooLarge: 413,
    domain.UnsupportedMedia: 415,
    domain.Unprocessable: 422,
    domain.OverQuota: 429,
    domain.Unavailable: 503,
    PlaitError: 500,
}

#: OpenAI's words for a status; the rest of 4xx is `invalid_request_error`, 5xx is `api_error`.
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}

#: Codes of what werkzeug refuses before a handler is asked.
_CODES = {
    400: "invalid_request",
    404: "unknown_url",
    405: "method_not_allowed",
    413: domain.TooLarge.code,
    415: domain.UnsupportedMedia.code,
    416: "range_not_satisfiable",
}

#: Seconds after which a sender may try again.
_RETRY_AFTER = {429: "5", 503: "1"}
#: The conflicts that another try may win; the stock client would try the others twice for nothing.
_PASSING_CONFLICTS = frozenset({"job_moved_on", "upload_completing"})
#: A body of a thousand wrong fields is answered with this many.
_MOST_PROBLEMS = 100
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def install(app: Flask) -> None:
    app.register_error_handler(Exception, answer)


def answer(error: Exception) -> Response:
    """The answer to any error. What we did not foresee is logged whole and told to nobody."""
    if isinstance(error, HTTPException):
        return _of_werkzeug(error)
    if isinstance(error, (OperationalError, InterfaceError, TimeoutError)):
        log.warning("the database does not answer: %s", error)
        error = domain.Unavailable("The database does not answer; try again.", code="database_unavailable")
    elif isinstance(error, (ParseException, NoMoreData)):
        error = domain.BadRequest("The body does not arrive as its headers say.", code="broken_body")
    elif isinstance(error, OSError) and error.errno in _NO_SPACE:
        log.error("the disk is full: %s", error)
        error = domain.Unavailable("There is no space left for files on the server.", code="no_space")
    if isinstance(error, PlaitError) and status_of(error) != 500:
        return _of_plait(error)
    log.error("unforeseen", exc_info=error)
    message = f"The server failed on this request; tell its operator the id {request_id()}."
    return _respond(500, message, code="internal_error")


def status_of(error: PlaitError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_type(status: int) -> str:
    return _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def _of_plait(error: PlaitError) -> Response:
    more = {"errors": error.problems[:_MOST_PROBLEMS]} if isinstance(error, InvalidSpec) else {}
    response = _respond(status_of(error), error.message, code=error.code, param=error.param, **more)
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="plait"'
    if response.status_code == 409 and error.code not in _PASSING_CONFLICTS:
        response.headers["x-should-retry"] = "false"
    if isinstance(error, OverQuota):
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        if not error.passes:
            response.headers["x-should-retry"] = "false"
    return response


def _of_werkzeug(error: HTTPException) -> Response:
    status = error.code or 500
    message = _MESSAGES.get(status) or error.description or error.name
    response = _respond(status, message, code=_CODES.get(status, error.name.lower().replace(" ", "_")))
    # Such as Allow of a 405 and Content-Range of a 416.
    headers = [(k, v) for k, v in error.get_headers() if k.lower() != "content-type"]
    response.headers.extend(headers)
    return response


_MESSAGES = {
    404: "There is nothing at this address; /openapi.json lists what there is.",
    405: "This address does not take this method; the header Allow names those it takes.",
    413: "The body is larger than this address takes.",
}


def _respond(status: int, message: str, *, code: str, param: str | None = None, **more: Any) -> Response:
    error = {"message": message, "type": error_type(status), "param": param, "code": code}
    response = Response(json.dumps({"error": error, **more}), status, content_type="application/json")
    if status in _RETRY_AFTER:
        response.headers["Retry-After"] = _RETRY_AFTER[status]
    return response
