"""Uploaded files that a cell names by their id. Knows no service: whoever opens a data set brings a function that does."""

import threading
from collections.abc import Callable, Mapping, Sequence

from domain.manifest import Code
from engine.data.archive import Unreadable

#: Ids -> what reads the bytes of each (it raises Unreadable), of those that there are. At most AT_ONCE are asked for.
Lookup = Callable[[Sequence[str]], Mapping[str, Callable[[], bytes]]]

AT_ONCE = 256
#: Answers that are kept: rows are read in their order, and those around them share files.
_REMEMBERED = 2**14


class Uploads:
    """The answers of a `Lookup`. Any thread may read; one at a time asks."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup, self._lock = lookup, threading.Lock()
        self._known: dict[str, Callable[[], bytes] | None] = {}

    def announce(self, ids: Sequence[str]) -> None:
        """These are about to be read: what is not known of them is asked in one question for many."""
        self._answers(ids)

    def read(self, id_: str) -> bytes:
        """The file's bytes; raises Unreadable."""
        read = self._known.get(id_, _UNASKED)
        if read is _UNASKED:
            read = self._answers([id_])[id_]
        if read is None:
            message = (
                "you have no uploaded file of that id that a table may name; upload it, or correct the id"
            )
            raise Unreadable(Code.MISSING_MEDIA, message)
        return read()

    def _answers(self, ids: Sequence[str]) -> dict[str, Callable[[], bytes] | None]:
        """The answer for each, taken before any is forgotten: outside of the lock it may already be pushed out."""
        with self._lock:
            unknown = [id_ for id_ in dict.fromkeys(ids) if id_ not in self._known]
            for start in range(0, len(unknown), AT_ONCE):
                asked = unknown[start : start + AT_ONCE]
                found = self._lookup(asked)
                self._known |= {id_: found.get(id_) for id_ in asked}
            answers = {id_: self._known[id_] for id_ in ids}
            while len(self._known) > max(_REMEMBERED, len(ids)):
                del self._known[next(iter(self._known))]
        return answers


def _UNASKED() -> bytes:
    raise AssertionError("stands for what was not asked yet")
