"""Any number of issues: a few in memory, the others on disk, each with the few bytes that put them in order."""

import json
import weakref
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from typing import overload

import numpy as np

from domain.manifest import Issue, Severity
from engine.data.spool import Spool


class Issues(Sequence[Issue]):
    """Issues in the order in which they were found; each is made anew when it is asked for."""

    def __init__(self, issues: Iterable[Issue] = ()) -> None:
        self._spool, self._lines, self._is_error = Spool(), array("q"), bytearray()
        #: How many there are of each severity and code.
        self.counts = Counter[tuple[str, str]]()
        weakref.finalize(self, self._spool.close)
        self.extend(issues)

    def append(self, issue: Issue) -> None:
        self._spool.add(json.dumps(astuple(issue)).encode())
        self._lines.append(issue.line or 0)
        self._is_error.append(issue.severity == "error")
        self.counts[issue.severity, str(issue.code)] += 1

    def extend(self, issues: Iterable[Issue]) -> None:
        for issue in issues:
            self.append(issue)

    def __iadd__(self, issues: Iterable[Issue]) -> "Issues":
        self.extend(issues)
        return self

    @property
    def errors(self) -> int:
        """How many of them are errors."""
        return sum(self._is_error)

    def ordered(self, severity: Severity | None = None) -> Iterator[Issue]:
        """As they are shown: errors first, each kind by line, the whole file's before; or one kind alone."""
        lines, is_error = np.array(self._lines, np.int64), np.array(self._is_error, bool)
        for word, chosen in (("error", is_error), ("warning", ~is_error)):
            if severity in (None, word):
                places = np.flatnonzero(chosen)
                yield from map(self._read, places[np.argsort(lines[places], kind="stable")].tolist())

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, place: int) -> Issue: ...

    @overload
    def __getitem__(self, place: slice) -> list[Issue]: ...

    def __getitem__(self, place: int | slice) -> Issue | list[Issue]:
        chosen = range(len(self))[place]
        return self._read(chosen) if isinstance(chosen, int) else [self._read(n) for n in chosen]

    def __iter__(self) -> Iterator[Issue]:
        return map(self._read, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        more = f" and {len(self) - 20} more" if len(self) > 20 else ""
        return f"{self[:20]}{more}"

    def _read(self, place: int) -> Issue:
        self._spool.seal()
        return Issue(*json.loads(self._spool[place]))
