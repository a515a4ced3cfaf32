"""An HTTP server on loopback that plays written answers and keeps what it was asked. Knows no route of ours."""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Answer:
    """The body: JSON, bytes, or an iterator of bytes that are sent as they come."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


#: The connection ends without an answer.
HANG_UP = Answer(status=0)


def refusal(status: int, code: str, message: str = "no", **headers: str) -> Answer:
    """The service's one shape of an error."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def page(items: list[dict[str, Any]], *, more: bool = False) -> dict[str, Any]:
    """One page of a list."""
    ids = [item["id"] for item in items] or [None]
    return {"object": "list", "data": items, "first_id": ids[0], "last_id": ids[-1], "has_more": more}


def stream(chunks: Iterator[bytes]) -> Answer:
    """Server-sent events."""
    return Answer(200, chunks, {"content-type": "text/event-stream"})


def sse(event: dict[str, Any]) -> bytes:
    return f"id: {event['id'].rsplit('-', 1)[-1]}\ndata: {json.dumps(event)}\n\n".encode()


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedServer:
    """Answers of one route are played in order; the last of them stays."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        #: The server names that clients sent with TLS.
        self.names: list[str | None] = []
        self._script: dict[tuple[str, str], list[Answer]] = {}
        self._port = 0
        self.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def on(self, route: str, *answers: Answer | dict[str, Any]) -> None:
        """`route` is `GET /files`, or `GET /jobs/x/events?stream` for a stream; a plain dict is a 200."""
        method, _, path = route.partition(" ")
        script = [a if isinstance(a, Answer) else Answer(body=a) for a in answers]
        self._script[method, f"/v1{path}"] = script

    def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listens, after a stop on the same port as before."""
        server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.names.append(name)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        self._server, self._port = server, server.server_port
        self._thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        route = (asked.method, asked.path)
        if asked.query.get("stream") == "true":
            # A server that is older than its streams answers with a page.
            script = self._script.get((asked.method, f"{asked.path}?stream"), [Answer(body=page([]))])
        else:
            script = self._script.get(route, [refusal(404, "not_found", "no such thing")])
        return script.pop(0) if len(script) > 1 else script[0]


def _handler(scripted: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = scripted.next(Asked(self.command, url.path, dict(parse_qsl(url.query)), headers, body))
            if answer is HANG_UP:
                return
            if isinstance(answer.body, Iterator):
                self.stream(answer)
                return
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"content-length": str(len(data)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def stream(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for chunk in answer.body:
                    self.wfile.write(chunk)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            """Tests read `asked` instead."""

    return Handler
