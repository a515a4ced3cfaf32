"""Requests that wait for a job: how long they were asked to, and how many may do so at once."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from flask import Response, request
from sqlalchemy.orm import Session

from api.routes import Parameter
from db.session import Database
from domain.errors import BadRequest

Row = TypeVar("Row")

#: Nobody is kept longer: proxies and clients give up, too. Who wants more asks again.
LONGEST_S = 60
_PREFER = re.compile(r'wait\s*=\s*"?(\d{1,9})"?(\s*;.*)?', re.IGNORECASE)

PREFER = Parameter(
    "Prefer",
    f"`wait=N`: wait up to N seconds (at most {LONGEST_S}) for the answer; 0 does not wait.",
    {"type": "string", "examples": ["wait=30"]},
    place="header",
)
#: For a GET, both ways of asking for the same.
QUERY = (
    Parameter("wait", f"Seconds to wait, at most {LONGEST_S}.", {"type": "integer", "minimum": 0}),
    PREFER,
)


class Waiter(Protocol):
    """The part of `bus.wakes.Wakes` that the door uses."""

    def wait(self, job_id: str, heard: int, seconds: float) -> int: ...

    def listen(self, hear: Callable[[str], None]) -> None: ...


class Behind(Protocol):
    """The part of `api.services.Services` that a wait needs."""

    @property
    def database(self) -> Database: ...

    @property
    def wakes(self) -> Waiter: ...


class Waiting:
    """Bounds how many of the door's threads may be held: the last quarter always answers at once."""

    def __init__(self, threads: int) -> None:
        self._places = threading.BoundedSemaphore(threads * 3 // 4)
        self._over = False

    def hold(
        self,
        plait: Behind,
        read: Callable[[Session], Row],
        done: Callable[[Row], bool],
        job_id: str,
        seconds: float,
    ) -> Row:
        """The row once it is `done`, or as it is after `seconds`; at once where no place is free.

        Each look has a session of its own: none is held while waiting.
        """
        until, heard = time.monotonic() + seconds, 0
        with self.place() as is_free:
            while not done(row := _look(plait, read)) and is_free and not self._over:
                left = until - time.monotonic()
                if left <= 0:
                    break
                heard = plait.wakes.wait(job_id, heard, left)
        return row

    @contextmanager
    def place(self) -> Iterator[bool]:
        """One of the threads that may be held, if it says True."""
        is_free = self._places.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._places.release()

    def end(self) -> None:
        """The process is about to stop: who waits is answered with what there is. Safe in a signal handler."""
        self._over = True


def _look(plait: Behind, read: Callable[[Session], Row]) -> Row:
    with plait.database.reading() as session:
        return read(session)


def asked(default: int = 0) -> int:
    """The seconds that the request wants to wait: `?wait=N`, else `Prefer: wait=N`, else `default`."""
    text = request.args.get("wait")
    if text is None:
        preferred = _preferred()
        return default if preferred is None else preferred
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest("wait: must be a number of whole seconds.", code="invalid_wait", param="wait")
    return min(int(text), LONGEST_S)


def _preferred() -> int | None:
    """A preference that cannot be understood is ignored, as RFC 7240 asks."""
    for header in request.headers.getlist("Prefer"):
        for preference in header.split(","):
            if match := _PREFER.fullmatch(preference.strip()):
                return min(int(match[1]), LONGEST_S)
    return None


def applied(response: Response) -> Response:
    """Tells the sender of `Prefer: wait=N` that it was heard."""
    preferred = _preferred()
    if preferred is not None and "wait" not in request.args:
        response.headers["Preference-Applied"] = f"wait={preferred}"
    return response
