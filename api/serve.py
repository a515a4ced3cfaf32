"""Runs the web application in gunicorn: one process that listens, one that answers with a few threads."""

import json
import logging
import resource
import socket
import sys
from concurrent.futures import Future
from typing import Any

import structlog
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import errors as refusals
from gunicorn.workers.gthread import ThreadWorker

from api.stream import Lent
from domain.ids import new_id
from settings import Settings

#: Idle connections cost no thread, and a client that finds its own closed has to send again.
_KEEP_ALIVE_S = 75
#: Streams and idle connections together; each is a file to the system, which gives a thousand if not asked.
_CONNECTIONS = 8_000
_SWITCH_S = 0.0005
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
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _CONNECTIONS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if most < 0 else min(wanted, most), most))
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
            "worker_connections": _CONNECTIONS,
            "graceful_timeout": _GRACE_S,
            "logger_class": _Logger,
            "loglevel": self._settings.log_level,
            "control_socket_disable": True,
            "proc_name": "plait-api",
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        # A thread that comes back from the disk or the database would wait 5 ms for one that computes.
        sys.setswitchinterval(_SWITCH_S)
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
        for who_waits in ("waiting", "listeners"):
            if who_waits in extensions:
                extensions[who_waits].end()
        super().handle_exit(sig, frame)

    def handle_request(self, req: Any, conn: Any) -> bool:
        conn.lent = None
        try:
            return bool(super().handle_request(req, conn))
        except Lent as lent:
            conn.lent = lent
            return lent.keeps

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """A connection that is lent stays open; it is finished with when its stream is."""
        lent: Lent | None = getattr(conn, "lent", None)
        if lent is None or fs.cancelled() or (lent.keeps and not fs.result()):
            # Of the last, the body did not arrive as its headers said: the server has answered that.
            super().finish_request(conn, fs)
            return
        conn.lent = None

        def over(is_whole: bool) -> None:
            self.method_queue.defer(self._given_back, conn, lent.keeps and is_whole)

        self.wsgi.extensions["listeners"].add(lent.listener, over)

    def _given_back(self, conn: Any, keeps: bool) -> None:
        if keeps and self.alive:
            kept: Future[bool] = Future()
            kept.set_result(True)
            super().finish_request(conn, kept)
            return
        self.nr_conns -= 1
        conn.close()

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
