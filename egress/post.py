"""One POST to an address that was looked up and judged before. Follows nothing, keeps no connection.

All of it - connecting, TLS, sending, a receiver that drips its answer byte by byte - is over by one instant.
"""

import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

import httpcore2 as http
from httpcore2 import ConnectError, ConnectTimeout, NetworkStream, ReadTimeout

from domain.webhooks import Code
from egress.guard import Way

#: Bytes of the answer's body that are kept; the rest is not read.
KEPT = 1024
#: Seconds for the body of an answer whose status is there.
_BODY_S = 2.0


@dataclass(frozen=True)
class Answer:
    """What the receiver said: `body` is its beginning."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """Nobody answered, or not so that it could be understood."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def post(
    way: Way,
    headers: Mapping[str, str],
    body: bytes,
    *,
    timeout_s: float,
    trust: ssl.SSLContext,
) -> Answer:
    """Sends `body`; within `timeout_s` there is an answer or NoAnswer is raised."""
    try:
        return _post(way, headers, body, _Clock(time.monotonic() + timeout_s), trust)
    except http.TimeoutException:
        raise NoAnswer(Code.TIMEOUT, f"There was no answer within {timeout_s:.3g} s.") from None
    except ConnectError as error:
        is_tls = isinstance(error.__cause__, ssl.SSLError)
        code, what = (Code.TLS_FAILED, "TLS failed") if is_tls else (Code.NO_CONNECTION, "Nobody listens")
        raise NoAnswer(code, f"{what}: {error}.") from None
    except (http.NetworkError, http.ProtocolError) as error:
        raise NoAnswer(Code.BROKEN_ANSWER, f"The answer is not HTTP, or breaks off: {error}.") from None


def _post(
    way: Way, headers: Mapping[str, str], body: bytes, clock: "_Clock", trust: ssl.SSLContext
) -> Answer:
    target = way.target
    host = f"[{target.host}]" if ":" in target.host else target.host
    url = http.URL(
        scheme=target.scheme.encode(), host=host.encode(), port=target.port, target=target.path.encode()
    )
    # An IPv6 address stands in no brackets where a certificate is checked for it.
    named = {"sni_hostname": target.host}
    connection = http.HTTPConnection(url.origin, ssl_context=trust, network_backend=_Pinned(way, clock))
    with (
        closing(connection),
        connection.stream(
            "POST", url, headers=list(headers.items()), content=body, extensions=named
        ) as response,
    ):
        clock.until = min(clock.until, time.monotonic() + _BODY_S)
        return Answer(response.status, _beginning(response.iter_stream()))


def _beginning(chunks: Iterable[bytes]) -> bytes:
    """The status is what counts: a body that breaks off or is late is as much of it as came."""
    kept = b""
    try:
        for chunk in chunks:
            kept += chunk
            if len(kept) >= KEPT:
                break
    except (http.NetworkError, http.ProtocolError, http.TimeoutException):
        pass
    return kept[:KEPT]


@dataclass
class _Clock:
    """The instant at which all is over."""

    until: float

    def left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise ReadTimeout("the time is up")
        return left


class _Pinned(http.NetworkBackend):
    """Connects to the addresses that were judged, in their order, and never looks a name up.

    The name stays what TLS checks the certificate for, and what the header Host says.
    """

    def __init__(self, way: Way, clock: _Clock) -> None:
        self._way, self._clock, self._sockets = way, clock, http.SyncBackend()

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the judged addresses stand in its place
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[http.SOCKET_OPTION] | None = None,
    ) -> NetworkStream:
        failure: Exception = ConnectError("there is no address")
        for n, address in enumerate(self._way.addresses):
            # One that does not answer must leave time for the others.
            share = self._clock.left() / (len(self._way.addresses) - n)
            try:
                found = self._sockets.connect_tcp(str(address), port, share, local_address, socket_options)
            except (ConnectError, ConnectTimeout) as error:
                failure = error
            else:
                return _Timed(found, self._clock)
        raise failure


class _Timed(http.NetworkStream):
    """A stream whose every wait ends when the clock says so."""

    def __init__(self, inner: NetworkStream, clock: _Clock) -> None:
        self._inner, self._clock = inner, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._inner.read(max_bytes, self._clock.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._inner.write(buffer, self._clock.left())

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> NetworkStream:
        left = self._clock.left()
        return _Timed(self._inner.start_tls(ssl_context, server_hostname, left), self._clock)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()
