"""As many decoder processes as are of use, each lent to one caller at a time. Knows no requests."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from domain.errors import EngineError
from engine.data.decoders.decoder import Decoder
from engine.data.decoders.framing import Gone, Overdue

#: Seconds of CPU that a start takes, about.
_START_S = 0.3
#: One that said nothing may take so long to be dead.
_DYING_S = 2.0


class Crew:
    """Processes are started when there are too few: each one once callers have waited as long as its start takes.

    Raises EngineError `decoders_unavailable` where none can be started, or after `close`.
    """

    def __init__(self, most: int, start: Callable[[], Decoder]) -> None:
        self._most, self._start = most, start
        self._changed = threading.Condition()
        self._idle: list[Decoder] = []
        self._all: set[Decoder] = set()
        #: Places that are taken: by a process, or by one that is being started.
        self._places, self._waited_s, self._is_closed = 0, 0.0, False
        #: Of those, the ones that are not ready yet: to start another would not shorten the wait for them.
        self._starting = 0
        # A process dies with the thread that started it, and callers' threads come and go.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoders")

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def pids(self) -> list[int]:
        with self._changed:
            return [decoder.pid for decoder in self._all]

    def warm(self) -> None:
        """Starts the first process, and does not wait until it is ready."""
        with self._changed:
            if self._places or self._is_closed:
                return
            self._places += 1
        self.give_back(self._started())

    def take(self) -> Decoder:
        """A process that is ready; waits for one."""
        decoder = self._free()
        if decoder is not None:
            return self._ready(decoder)
        try:
            return self._ready(self._started())
        finally:
            with self._changed:
                self._starting -= 1
                self._changed.notify_all()

    def give_back(self, decoder: Decoder) -> None:
        with self._changed:
            if not self._is_closed:
                self._idle.append(decoder)
                self._changed.notify()
                return
        self.drop(decoder)

    def drop(self, decoder: Decoder) -> None:
        """Ends a process that was taken; another one may have its place."""
        decoder.close()
        with self._changed:
            self._all.discard(decoder)
            self._places -= 1
            self._changed.notify()

    def close(self) -> None:
        """Ends all processes. Who has one finds it dead, and drops it."""
        with self._changed:
            self._is_closed = True
            idle, self._idle = self._idle, []
            lent = self._all.difference(idle)
            self._changed.notify_all()
        for decoder in lent:
            decoder.end()
        for decoder in idle:
            self.drop(decoder)
        self._starter.shutdown()

    def _free(self) -> Decoder | None:
        """One that nobody has; None if another is to be started, whose place is then taken."""
        began = time.monotonic()
        with self._changed:
            while not self._idle:
                if self._is_closed:
                    raise self._unavailable("they were closed")
                left, is_starting = None, self._starting > 0
                if not is_starting and self._places < self._most:
                    left = _START_S - self._waited_s - (time.monotonic() - began)
                    if not self._places or left <= 0:
                        self._places, self._starting, self._waited_s = self._places + 1, 1, 0.0
                        return None
                self._changed.wait(left)
                if is_starting:
                    began = time.monotonic()
            self._waited_s += time.monotonic() - began
            return self._idle.pop()

    def _ready(self, decoder: Decoder) -> Decoder:
        try:
            decoder.await_ready()
        except (Gone, Overdue) as error:
            why = decoder.end(_DYING_S)
            self.drop(decoder)
            raise self._unavailable(why) from error
        return decoder

    def _started(self) -> Decoder:
        """In a place that is taken already."""
        try:
            with self._changed:
                if self._is_closed:
                    raise RuntimeError("they were closed")
                future = self._starter.submit(self._start)
            decoder = future.result()
        except (OSError, RuntimeError) as error:
            with self._changed:
                self._places -= 1
                self._changed.notify()
            raise self._unavailable(str(error)) from error
        with self._changed:
            self._all.add(decoder)
            is_late = self._is_closed
        if is_late:
            decoder.end()
        return decoder

    @staticmethod
    def _unavailable(why: str) -> EngineError:
        message = f"No process that decodes media can be had ({why}); the worker's log may say more."
        return EngineError("decoders_unavailable", message, retryable=True)
