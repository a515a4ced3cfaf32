"""Sends requests, tries them again, and turns what fails into PlaitError. Knows no route and no shape."""

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from plait import retries
from plait.config import Config
from plait.errors import PlaitAPIError, PlaitConnectionError, PlaitError
from plait.version import VERSION

Wait = Callable[[float], None]
#: A slow disk may take a minute to store an upload; a host that is there answers a connect at once.
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_RETRIED = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)


class Transport:
    """One server, one key, one pool of connections."""

    def __init__(self, config: Config, *, wait: Wait) -> None:
        self.config = config
        self.wait = wait
        headers = {"User-Agent": f"plait/{VERSION}", "Accept": "application/json"}
        if config.api_key:
            headers["Authorization"] = f"Bearer {config.api_key}"
        # A proxy of the environment cannot reach a server on this machine.
        self._http = httpx.Client(headers=headers, timeout=_TIMEOUT, trust_env=not config.is_local)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        return self.answer("GET", path, params=params)[0]

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = None) -> dict[str, Any]:
        request = {} if body is None else {"json": body}
        return self.answer("POST", path, headers=_key(idempotency_key), **request)[0]

    def delete(self, path: str) -> dict[str, Any]:
        return self.answer("DELETE", path)[0]

    def post_form(self, path: str, form: Mapping[str, str], part: tuple[str, Any, str]) -> dict[str, Any]:
        """Multipart, streamed from `part` = (name, open file, type); a retry sends the same bytes."""
        boundary = uuid.uuid4().hex
        headers = {**_key(None), "Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self.answer("POST", path, headers=headers, data=dict(form), files={"file": part})[0]

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
        response = self._send("GET", path, {"headers": {"Accept": "*/*"}}, stream=True)
        size = response.headers.get("content-length", "")
        try:
            yield int(size) if size.isdigit() else None, response.iter_bytes()
        except httpx.RequestError as error:
            raise self._unreachable(error) from None
        finally:
            response.close()

    def _send(self, method: str, path: str, content: Any, *, stream: bool = False) -> httpx.Response:
        for attempt in itertools.count():
            request = self._http.build_request(method, self.config.base_url + path, **content)
            failure: PlaitError
            try:
                response = self._http.send(request, stream=stream)
                if response.is_success:
                    return response
                response.read()
            except httpx.RequestError as error:
                failure, may_pass = self._unreachable(error), isinstance(error, _RETRIED)
            else:
                failure = _refusal(response, self.config)
                may_pass = retries.is_passing(response.status_code, response.headers.get("x-should-retry"))
            delay = retries.delay(attempt, failure.retry_after)
            if not may_pass or delay is None or attempt >= retries.MAX_RETRIES:
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
        here = "Start the server with `plait-server up`, or set PLAIT_BASE_URL to where it runs."
        there = "Is the server up, and the address right? See PLAIT_BASE_URL."
        hint = here if self.config.is_local else there
        return PlaitConnectionError(f"No server answers at {where}: {error}.", hint=hint)


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
