"""Sends requests, tries them again, and turns what fails into PlaitError. Knows no route and no shape."""

import itertools
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from plait import retries
from plait.config import Config
from plait.errors import PlaitAPIError, PlaitConnectionError, PlaitError
from plait.version import VERSION

Wait = Callable[[float], None]
#: A slow disk may take a minute to store an upload; a host that is there answers a connect at once.
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
#: The server says something every 15 s on a stream of events; a stream that is silent for longer is dead.
_STREAM_TIMEOUT = httpx.Timeout(45.0, connect=10.0)
_RETRIED = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)
#: A file of a multipart body: the field's name, then file name, open file or bytes, and type.
Part = tuple[str, tuple[str, Any, str]]


class Transport:
    """One server, one key, one pool of connections."""

    def __init__(
        self,
        config: Config,
        *,
        wait: Wait,
        timeout_s: float | None = None,
        max_retries: int = retries.MAX_RETRIES,
    ) -> None:
        self.config = config
        self.wait = wait
        self._max_retries = max_retries
        headers = {"User-Agent": f"plait/{VERSION}", "Accept": "application/json"}
        if config.api_key:
            headers["Authorization"] = f"Bearer {config.api_key}"
        # A proxy of the environment cannot reach a server on this machine.
        self._http = httpx.Client(
            headers=headers, timeout=timeout_s or _TIMEOUT, trust_env=not config.is_local
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        return self.answer("GET", path, params=params)[0]

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        request = {} if body is None else {"json": body}
        return self.answer("POST", path, headers={**_key(idempotency_key), **(headers or {})}, **request)[0]

    def delete(self, path: str) -> dict[str, Any]:
        return self.answer("DELETE", path)[0]

    def post_form(
        self,
        path: str,
        form: Mapping[str, str],
        parts: Sequence[Part],
        *,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Multipart, streamed from the open files of `parts`; a retry sends the same bytes."""
        kind = f"multipart/form-data; boundary={uuid.uuid4().hex}"
        sent = {**_key(idempotency_key), **(headers or {}), "Content-Type": kind}
        return self.answer("POST", path, headers=sent, data=dict(form), files=list(parts))[0]

    def answer(self, method: str, path: str, **request: Any) -> tuple[dict[str, Any], httpx.Headers]:
        """The JSON object that the server answers, with its headers."""
        response = self._send(method, path, request)
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise _not_plait(response)
        return body, response.headers

    @contextmanager
    def chunks(self, path: str) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """A raw answer as it comes: its size where known, and the bytes."""
        response = self._send("GET", path, {"headers": {"Accept": "*/*"}}, stream=True, elsewhere=True)
        size = response.headers.get("content-length", "")
        try:
            yield int(size) if size.isdigit() else None, response.iter_bytes()
        except httpx.RequestError as error:
            raise self._unreachable(error) from None
        finally:
            response.close()

    def stream(self, path: str, params: Mapping[str, str]) -> "Stream":
        """Opens a stream of events, at the first try or not. Raises NoStream for an answer of another kind."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        request = {"headers": headers, "params": params, "timeout": _STREAM_TIMEOUT}
        response = self._send("GET", path, request, stream=True, max_retries=0)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.close()
            raise NoStream("This server streams no events.")
        return Stream(response, self._unreachable)

    def _send(
        self,
        method: str,
        path: str,
        content: Any,
        *,
        stream: bool = False,
        max_retries: int | None = None,
        elsewhere: bool = False,
    ) -> httpx.Response:
        """`elsewhere`: the server may say that another has the bytes; the key is not sent there."""
        most = self._max_retries if max_retries is None else max_retries
        for attempt in itertools.count():
            request = self._http.build_request(method, self.config.base_url + path, **content)
            failure: PlaitError
            try:
                response = self._http.send(request, stream=stream, follow_redirects=elsewhere)
                if response.is_success:
                    return response
                response.read()
            except httpx.RequestError as error:
                failure, may_pass = self._unreachable(error), isinstance(error, _RETRIED)
            else:
                failure = _refusal(response, self.config)
                may_pass = retries.is_passing(response.status_code, response.headers.get("x-should-retry"))
            delay = retries.delay(attempt, failure.retry_after)
            if not may_pass or delay is None or attempt >= most:
                raise failure
            self.wait(delay)
        raise AssertionError("unreachable")

    def _unreachable(self, error: httpx.RequestError) -> PlaitConnectionError:
        where = f"{self.config.base_url} (from {self.config.source})"
        if not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return PlaitConnectionError(
                f"The connection to {where} broke: {error or type(error).__name__}.",
                hint="Try again; the server's log may say more.",
            )
        here = (
            "Start the server with `plait-server up`, or set PLAIT_BASE_URL and PLAIT_API_KEY to what it wrote: "
            "its data folder's plait.json."
        )
        there = "Is the server up, and the address right? See PLAIT_BASE_URL."
        hint = here if self.config.is_local else there
        return PlaitConnectionError(f"No server answers at {where}: {error}.", hint=hint)


class NoStream(PlaitError):
    """The server is older than its streams."""

    code = "no_stream"


class Stream:
    """Server-sent events as they come. `close` ends a read that another thread waits in."""

    def __init__(
        self, response: httpx.Response, unreachable: Callable[[httpx.RequestError], PlaitConnectionError]
    ) -> None:
        self._response, self._unreachable = response, unreachable

    def __iter__(self) -> Iterator[ServerSentEvent]:
        try:
            yield from EventSource(self._response).iter_sse()
        except httpx.RequestError as error:
            raise self._unreachable(error) from None
        finally:
            self._response.close()

    def close(self) -> None:
        # A read in another thread does not notice that its socket is closed; it does notice the end of it.
        below = self._response.extensions["network_stream"].get_extra_info("socket")
        with suppress(OSError):
            below.shutdown(socket.SHUT_RDWR)


def _key(given: str | None) -> dict[str, str]:
    return {"Idempotency-Key": given or str(uuid.uuid4())}


def _refusal(response: httpx.Response, config: Config) -> PlaitAPIError:
    """The server's error in its one shape; a proxy's page or a stranger's answer is named as such."""
    try:
        body = response.json()
        told = body["error"]
        message = str(told["message"])
    except (ValueError, LookupError, TypeError):
        return _not_plait(response)
    problems = body.get("errors")
    return PlaitAPIError(
        response.status_code,
        message,
        code=told.get("code"),
        param=told.get("param"),
        errors=[p for p in problems if isinstance(p, dict)] if isinstance(problems, list) else [],
        request_id=response.headers.get("x-request-id"),
        hint=told.get("hint") or _about_the_key(response.status_code, config),
        retry_after=retries.seconds(response.headers.get("retry-after")),
    )


def _about_the_key(status: int, config: Config) -> str | None:
    """A missing key is told from a refused one."""
    if status != 401 or config.api_key is None:
        return None
    return (
        f"The key from {config.key_source} was refused: set PLAIT_API_KEY to a live one "
        "(`plait-server keys create` makes it), or run in the folder where `plait-server up` runs."
    )


def _not_plait(response: httpx.Response) -> PlaitAPIError:
    return PlaitAPIError(
        response.status_code,
        f"{response.request.url} answered with something that is not Plait's.",
        code="not_plait",
        request_id=response.headers.get("x-request-id"),
        retry_after=retries.seconds(response.headers.get("retry-after")),
    )
