"""Gathers what a child says and stores it about once a second, under the fence."""

import logging
import time
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError

from db import reports
from db.session import Database
from domain.job import Want

log = logging.getLogger(__name__)

EVERY_S = 1.0
#: Rather report early than hold this many metrics in memory.
AT_MOST = 5_000


class Reporter:
    def __init__(self, database: Database, job_id: str, fence: int) -> None:
        self._database, self._job, self._fence = database, job_id, fence
        self._events: list[dict[str, Any]] = []
        self._metrics: list[tuple[str, int, float]] = []
        self._progress: dict[str, Any] | None = None
        self._resolved: dict[str, Any] | None = None
        self.due = time.monotonic()

    def hear(self, message: dict[str, Any]) -> None:
        """Takes one of the child's words."""
        say = message["say"]
        if say == "progress":
            self._progress = message["progress"]
        elif say == "metrics":
            self._metrics += [(name, message["step"], value) for name, value in message["values"].items()]
        elif say == "resolved":
            self._resolved = message["resolved"]
        elif say == "event":
            self._events.append({k: message[k] for k in ("name", "message", "level", "type", "data")})

    @property
    def has_words(self) -> bool:
        return bool(self._events or self._metrics or self._progress or self._resolved)

    @property
    def is_due(self) -> bool:
        return self.has_words and (time.monotonic() >= self.due or len(self._metrics) >= AT_MOST)

    def flush(self) -> Want | None:
        """Stores the words; what the user wants, or None when fenced off."""
        try:
            want = self._store(reports.Words(self._events, self._metrics, self._progress, self._resolved))
        except (DataError, IntegrityError) as error:
            # It would refuse them for ever, and with them all that come after.
            log.error("job %s: the database refuses its words (%s)", self._job, type(error).__name__)
            want = self._store(reports.Words())
        self._events, self._metrics, self._progress, self._resolved = [], [], None, None
        self.due = time.monotonic() + EVERY_S
        return want

    def _store(self, words: reports.Words) -> Want | None:
        with self._database.transaction() as session:
            return reports.report(session, self._job, self._fence, words)
