"""A job's events as the server streams them, read by a thread of its own. Knows no shape."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from plait.errors import PlaitAPIError, PlaitError
from plait.transport import Stream, Transport


class Ended(Exception):
    """The stream is over. `for_good`: this server has none, or not for us."""

    def __init__(self, *, for_good: bool) -> None:
        super().__init__()
        self.for_good = for_good


class Feed:
    """Opens the stream behind the event `after`, in the background; `fresh` takes what has come."""

    def __init__(self, transport: Transport, path: str, after: str | None) -> None:
        self._transport, self._path = transport, path
        self._params = {"stream": "true"} | ({"after": after} if after else {})
        self._heard: queue.SimpleQueue[dict[str, Any] | Ended] = queue.SimpleQueue()
        self._ended: Ended | None = None
        self._guard, self._is_closed = threading.Lock(), False
        self._stream: Stream | None = None
        self._opened_at: float | None = None
        threading.Thread(target=self._read, name="plait-events", daemon=True).start()

    @property
    def is_open(self) -> bool:
        """Whether the server streams. Before, events may happen that only the list tells."""
        return self._opened_at is not None

    @property
    def lasted_s(self) -> float:
        return time.monotonic() - self._opened_at if self._opened_at is not None else 0.0

    def fresh(self, seconds: float) -> list[dict[str, Any]]:
        """The events since the last call: at once if there are some, else the first within `seconds`.

        Raises Ended when all events of a stream that is over were taken.
        """
        if self._ended is None:
            try:
                if told := list(self._taken(seconds)):
                    return told
            except queue.Empty:
                return []
        assert self._ended is not None
        raise self._ended

    def _taken(self, seconds: float) -> Iterator[dict[str, Any]]:
        item = self._heard.get(timeout=seconds)
        while not isinstance(item, Ended):
            yield item
            if self._heard.empty():
                return
            item = self._heard.get()
        self._ended = item

    def close(self) -> None:
        """Ends the reading; nobody needs to wait for it."""
        with self._guard:
            self._is_closed = True
            if self._stream:
                self._stream.close()

    def _read(self) -> None:
        for_good = False
        try:
            for told in self._open():
                # Anything else between the events is not for this reader.
                if told.data.startswith("{"):
                    self._heard.put(json.loads(told.data))
        except PlaitAPIError as error:
            for_good = not error.passing and error.status < 500
        except PlaitError as error:
            for_good = not error.passing
        except ValueError:
            for_good = True
        except RuntimeError:
            # The client was closed while it was watching.
            for_good = True
        finally:
            self._heard.put(Ended(for_good=for_good))

    def _open(self) -> Stream:
        stream = self._transport.stream(self._path, self._params)
        with self._guard:
            self._stream = stream
            if self._is_closed:
                stream.close()
        self._opened_at = time.monotonic()
        return stream
