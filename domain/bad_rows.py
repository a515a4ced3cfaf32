"""Which rows of a file a job leaves out, and which cells it takes as missing: decided once, by the check."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class BadRows:
    """By line of the file, so that nothing shifts. Empty where every row is good, or none is tolerated."""

    skipped: frozenset[int] = frozenset()
    #: Column -> lines whose cell of it counts as missing; their rows stay.
    masked: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @property
    def masked_rows(self) -> frozenset[int]:
        return frozenset[int]().union(*self.masked.values()) - self.skipped

    def __len__(self) -> int:
        return len(self.skipped) + len(self.masked_rows)

    def excuses(self, line: int | None, column: str | None) -> bool:
        """Whether a problem there no longer concerns anyone."""
        return line in self.skipped or (column is not None and line in self.masked.get(column, ()))

    def spelled(self) -> dict[str, Any]:
        """As a job's row keeps it: `{"skipped": "3,5-9", "masked": {"image": "12"}}`."""
        masked = {name: _ranges(lines) for name, lines in sorted(self.masked.items()) if lines}
        return {"skipped": _ranges(self.skipped), "masked": masked}

    @classmethod
    def read(cls, spelled: Mapping[str, Any]) -> "BadRows":
        masked = {name: frozenset(_lines(text)) for name, text in spelled["masked"].items()}
        return cls(frozenset(_lines(spelled["skipped"])), masked)


def _ranges(lines: Iterable[int]) -> str:
    """Damage comes in runs: a million lines in a row are nine characters."""
    order = sorted(lines)
    breaks = [0, *(n for n, (a, b) in enumerate(pairwise(order), 1) if b != a + 1), len(order)]
    runs = [(order[start], order[end - 1]) for start, end in pairwise(breaks) if start < end]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _lines(text: str) -> Iterator[int]:
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        yield from range(int(first), int(last or first) + 1)
