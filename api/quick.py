"""The one question that is asked all the time - how does this job stand? - answered before Flask is asked.

Only where nothing is out of the ordinary: a plain GET of one job, by a key that was seen a moment ago and has no
limit of requests. All else, every error too, goes on to the application, which answers as it always does; so this
file decides nothing that `api.fine_tuning` and `api.jobs` do not.
"""

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from api import fine_tuning, jobs, trace
from api.rendered import Answer, Make
from api.services import Services
from db import glances
from domain.access import Principal, Scope
from domain.errors import PlaitError
from domain.job import Kind

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_ONE_JOB = re.compile(r"/v1/(fine_tuning/)?jobs/([A-Za-z0-9_\-]+)")
_ASKED_FOR: dict[str | None, tuple[Kind | None, Make]] = {
    "fine_tuning/": (Kind.FINE_TUNE, fine_tuning.seen),
    None: (None, jobs.seen),
}


class Quick:
    """Stands before `app`; a WSGI application itself."""

    def __init__(self, app: Application, plait: Services) -> None:
        self._app, self._plait = app, plait

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        began = time.monotonic()
        answer = self._answer(environ) if _is_plain(environ) else None
        if answer is None:
            return self._app(environ, start_response)
        request_id = trace.id_of(environ.get("HTTP_X_REQUEST_ID", ""))
        start_response(answer.status, [*answer.headers, *trace.headers(request_id)])
        trace.note(request_id, "GET", environ["PATH_INFO"], int(answer.status[:3]), began)
        return [answer.body]

    def _answer(self, environ: dict[str, Any]) -> Answer | None:
        asked = _ONE_JOB.fullmatch(environ["PATH_INFO"])
        who = self._caller(environ) if asked else None
        if asked is None or who is None:
            return None
        kind, make = _ASKED_FOR[asked[1]]
        try:
            who.needs(Scope.JOBS_READ)
            glance = glances.take(self._plait.database, who.tenant, asked[2], kind=kind)
        except (PlaitError, SQLAlchemyError):
            return None
        return self._plait.rendered.answer(glance, make, environ.get("HTTP_IF_NONE_MATCH"))

    def _caller(self, environ: dict[str, Any]) -> Principal | None:
        scheme, _, secret = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        who = self._plait.keyring.seen(secret) if scheme == "Bearer" else None
        return who if who is not None and who.rate is None else None


def _is_plain(environ: dict[str, Any]) -> bool:
    """Whether it asks for nothing beside the job: not to wait, above all."""
    is_bare = "HTTP_PREFER" not in environ and "HTTP_IF_MATCH" not in environ
    return environ["REQUEST_METHOD"] == "GET" and not environ["QUERY_STRING"] and is_bare
