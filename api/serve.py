"""Runs the web application in gunicorn: one process that listens, one that answers with a few threads."""

import json
import logging
import socket
from typing import Any

import structlog
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import errors as refusals
from gunicorn.workers.gthread import ThreadWorker

from domain.ids import new_id
from settings import Settings

#: Idle connections cost no thread, and a client that finds its own closed has to send again.
_KEEP_ALIVE_S = 75
#: Requests in hand at SIGTERM get this long.
_GRACE_S = 10
#: What gunicorn refuses before the application is asked; other bad requests are a 400.
_REFUSED: dict[type[Exception], tuple[int, str]] = {
    refusals.LimitRequestLine: (414, "URI Too Long"),
    refusals.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    refusals.ExpectationFailed: (417, "Expectation Failed"),
    refusals.UnsupportedTransferCoding: (501, "Not Implemented"),
}


def serve(settings: Settings, bind: str) -> None:
    """Serves until SIGTERM on `host:port`, or on `fd://N`: a listening socket that the parent bound."""
    _Server(settings, bind).run()


class _Server(BaseApplication):
    def __init__(self, settings: Settings, bind: str) -> None:
        self._settings, self._bind = settings, bind
        super().__init__()

    def load_config(self) -> None:
        options = {
            "bind": self._bind,
            "workers": 1,
            "threads": self._settings.api_threads,
            "worker_class": _Worker,
            "keepalive": _KEEP_ALIVE_S,
            "graceful_timeout": _GRACE_S,
            "logger_class": _Logger,
            "loglevel": self._settings.log_level,
            "control_socket_disable": True,
            "proc_name": "plait-api",
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        # Only the process that answers loads the application; the one that listens stays small.
        from api.app import create_app

        return create_app(self._settings)


class _Logger(Logger):
    """Leaves gunicorn's lines to the process's own log."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class _Worker(ThreadWorker):
    """Answers what is no HTTP, too, in the one shape of errors; at its end it keeps nobody waiting."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        # Whoever waits for a job is answered with what there is, before the time for stopping is up.
        # A signal may come before the application is loaded.
        extensions = getattr(getattr(self, "wsgi", None), "extensions", {})
        if "waiting" in extensions:
            extensions["waiting"].end()
        super().handle_exit(sig, frame)

    def handle_error(self, _req: object, client: socket.socket, addr: Any, exc: Exception) -> None:
        request_id = new_id("req_")
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status, reason = _refusal(exc)
        log = logging.getLogger(__name__)
        if status == 500:
            log.error("unforeseen, outside the application", exc_info=exc)
        else:
            log.info("refused before the application: %s (%s)", reason, type(exc).__name__)
        try:
            util.write_nonblock(client, _answer(status, reason, request_id))
        except OSError:
            log.debug("%s went away before its answer", addr)


def _refusal(exc: Exception) -> tuple[int, str]:
    if isinstance(exc, refusals.ParseException):
        return _REFUSED.get(type(exc), (400, "Bad Request"))
    return 500, "Internal Server Error"


def _answer(status: int, reason: str, request_id: str) -> bytes:
    kind = "api_error" if status >= 500 else "invalid_request_error"
    code = reason.lower().replace(" ", "_")
    error = {"message": f"{reason}.", "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error})
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nx-request-id: {request_id}\r\n\r\n"
    )
    return (head + body).encode()
