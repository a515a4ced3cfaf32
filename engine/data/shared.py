"""What a cache may ask of a place that machines share, and patience with it. Knows no store: one is handed in.

Nothing depends on such a place: what it does not give is made anew, and what it does not take stays on this machine.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

#: Failures in a row after which a job asks no more.
_PATIENCE = 3
#: Bytes that wait to be sent; what is more is not sent.
_BACKLOG_BYTES = 256 * 2**20
_SENDERS = 2

#: A shard of features is two objects, named alike but for these: itself, and its keys alone. Keys live with their shard.
SHARD, KEYS = ".safetensors", ".keys"

T = TypeVar("T")

#: Hears once of each thing that a cache can no longer do; what it hears ends no job.
Warn = Callable[[str], None]


class Shared(Protocol):
    """Bytes by name, whole or not at all. Raises OSError when it does not answer, or refuses. Any thread may ask."""

    def get(self, name: str) -> bytes | None: ...

    def put(self, name: str, data: bytes) -> bool:
        """Whether it is taken: False of what is too large for the place."""

    def names(self, prefix: str) -> Iterable[str]:
        """The names that begin so, in any order."""


@dataclass
class Patient:
    """A shared place that may be away: raises nothing, sends in threads of its own, and gives up after some failures."""

    place: Shared
    warn: Warn
    _failures: int = 0
    _backlog: dict[Future[None], int] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _senders: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_SENDERS, thread_name_prefix="share"), repr=False
    )

    @property
    def is_given_up(self) -> bool:
        return self._failures >= _PATIENCE

    def get(self, name: str) -> bytes | None:
        return self._tried(lambda: self.place.get(name), None)

    def names(self, prefix: str) -> list[str]:
        return self._tried(lambda: list(self.place.names(prefix)), [])

    def put(self, name: str, data: bytes, *then: tuple[str, bytes]) -> None:
        """Returns at once; `data` is sent later, or not at all. Each of `then` only once what is before it is taken."""
        objects = [(name, data), *then]
        size = sum(len(each) for _, each in objects)
        with self._lock:
            if self.is_given_up or sum(self._backlog.values()) + size > _BACKLOG_BYTES:
                return
            # One task: several senders would overtake one another.
            sending = self._senders.submit(self._tried, lambda: self._send(objects), None)
            self._backlog[sending] = size
        sending.add_done_callback(self._sent)

    def flush(self, seconds: float) -> None:
        """Returns when everything is sent, or that much later."""
        with self._lock:
            waiting = list(self._backlog)
        wait(waiting, seconds)

    def close(self) -> None:
        self._senders.shutdown(wait=False, cancel_futures=True)

    def _send(self, objects: Iterable[tuple[str, bytes]]) -> None:
        for name, data in objects:
            if not self.place.put(name, data):
                return

    def _sent(self, sending: "Future[None]") -> None:
        with self._lock:
            self._backlog.pop(sending, None)

    def _tried(self, ask: Callable[[], T], otherwise: T) -> T:
        if self.is_given_up:
            return otherwise
        try:
            answer = ask()
        except OSError as error:
            with self._lock:
                self._failures += 1
                just_now = self._failures == _PATIENCE
            if just_now:
                why = error.strerror or str(error) or type(error).__name__
                self.warn(f"The shared cache does not answer ({why}); the job goes on without it.")
            return otherwise
        with self._lock:
            # Who has given up stays so: threads that asked before may still be answered.
            self._failures = self._failures if self.is_given_up else 0
        return answer


def once(warn: Warn) -> Warn:
    """Passes each message on once, from whichever thread."""
    said: set[str] = set()
    lock = threading.Lock()

    def tell(message: str) -> None:
        with lock:
            if message in said:
                return
            said.add(message)
        warn(message)

    return tell
