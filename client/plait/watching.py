"""Follows one job to its end, by its stream of events where there is one, through restarts of the server."""

import itertools
from collections.abc import Iterator

from plait import paging, retries
from plait.feed import Ended, Feed
from plait.job_shapes import Event, Job, Update
from plait.transport import Transport
from plait.waiting import LOOK_EVERY_S, OnTrouble, patiently

#: Looks between two tries to open a stream that was refused for now.
_LOOKS_WITHOUT_STREAM = 10


class Watch:
    """Knows which events it has given, so that a stream that begins anew repeats none and loses none."""

    def __init__(
        self,
        transport: Transport,
        job_path: str,
        events_path: str | None,
        patience_s: float,
        on_trouble: OnTrouble | None,
    ) -> None:
        self._transport = transport
        self._job_path, self._events_path = job_path, events_path
        self._patience_s, self._on_trouble = patience_s, on_trouble
        self._given: set[str] = set()
        self._last: str | None = None
        self._feed: Feed | None = None
        self._may_stream = events_path is not None
        self._looks_to_stream = 0
        self._pause = LOOK_EVERY_S

    def updates(self) -> Iterator[Update]:
        streamed: list[Event] = []
        try:
            while True:
                update = patiently(
                    lambda told=streamed: self._look(told),  # type: ignore[misc]
                    self._transport.wait,
                    self._patience_s,
                    self._on_trouble,
                )
                self._note(update.events)
                yield update
                if update.job.is_final:
                    return
                streamed = self._until_something()
        finally:
            if self._feed:
                self._feed.close()

    def _look(self, streamed: list[Event]) -> Update:
        """The job, then its events: when it is final, all of them are there to be read."""
        raw, headers = self._transport.answer("GET", self._job_path)
        self._pause = _between_looks(retries.seconds(headers.get("retry-after")))
        job = Job.of(raw)
        if self._feed and self._feed.is_open and not job.is_final:
            return Update(job, streamed)
        return Update(job, self._unseen())

    def _unseen(self) -> list[Event]:
        """By the list of events, newest first, down to the first that was given."""
        if self._events_path is None:
            return []
        newest = map(Event.of, paging.walk(self._transport, self._events_path, page=20))
        return list(itertools.takewhile(lambda event: event.id not in self._given, newest))[::-1]

    def _note(self, events: list[Event]) -> None:
        self._given.update(event.id for event in events)
        self._last = events[-1].id if events else self._last

    def _until_something(self) -> list[Event]:
        """Waits for events, or for the time of the next look; what the stream has told since the last."""
        self._open_feed()
        if self._feed is None:
            self._transport.wait(self._pause)
            return []
        try:
            told = self._feed.fresh(self._pause)
        except Ended as ended:
            self._close_feed(ended)
            return []
        return [event for event in map(Event.of, told) if event.id not in self._given]

    def _open_feed(self) -> None:
        if self._feed is None and self._events_path and self._may_stream:
            if self._looks_to_stream:
                self._looks_to_stream -= 1
            else:
                self._feed = Feed(self._transport, self._events_path, self._last)

    def _close_feed(self, ended: Ended) -> None:
        """What the stream has not told is read from the list, at once: its end is news, too."""
        feed, self._feed = self._feed, None
        self._may_stream = not ended.for_good
        if feed is None or not feed.is_open:
            self._looks_to_stream = _LOOKS_WITHOUT_STREAM
        if feed is None or feed.lasted_s < LOOK_EVERY_S:
            # A server that ends every stream at once would be asked without a pause.
            self._transport.wait(self._pause)


def _between_looks(asked: float | None) -> float:
    """The server's wish within bounds: neither a busy loop nor a view that seems dead."""
    return LOOK_EVERY_S if asked is None else min(max(asked, 0.1), 30.0)
