"""Rows that say the same: twice in one file, or trained on and measured with. Reads no media."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from domain.manifest import Code, Issue
from engine.data.hashes import repeats
from engine.data.ledger import NONE, Ledger
from engine.data.tables import excerpt

_NO_HASHES = np.empty(0, np.uint64)
_NO_LINES = np.empty(0, np.int64)


@dataclass(frozen=True)
class Contents:
    """What the rows that are trained on hold: sorted hashes with a line of each; `where` names their file."""

    hashes: NDArray[np.uint64] = field(default_factory=_NO_HASHES.copy)
    lines: NDArray[np.int64] = field(default_factory=_NO_LINES.copy)
    groups: Mapping[str, int] = field(default_factory=dict)
    where: str = "of this file"

    def seen(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The line that holds each, or 0."""
        if not len(self.hashes):
            return np.zeros(len(hashes), np.int64)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[place] == hashes, self.lines[place], 0)


def contents_of(training: Ledger) -> Contents:
    full = training.where(training.has_content)
    hashes, first = np.unique(full.contents, return_index=True)
    return Contents(hashes, full.lines[first], _first_lines(training))


def _first_lines(rows: Ledger) -> dict[str, int]:
    """The groups, in the order of their first rows."""
    grouped = rows.where(rows.groups != NONE)
    groups, first = np.unique(grouped.groups, return_index=True)
    order = np.argsort(first)
    return {rows.names[groups[n]]: int(grouped.lines[first[n]]) for n in order}


def repeated(rows: Ledger, *, labelled: bool = True) -> Iterator[Issue]:
    """Rows of one split with the same content and, where they are to be `labelled`, the same label."""
    full = rows.where(rows.has_content & (rows.labels != NONE) if labelled else rows.has_content)
    for place, first in repeats(full.wholes):
        message = f"The row says the same as line {full.lines[first]}; remove one."
        yield Issue(Code.DUPLICATE_ROW, message, int(full.lines[place]), severity="warning")


def overlap(rows: Ledger, trained: Contents) -> Iterator[Issue]:
    """Rows that measure what was learned by heart. A group that straddles is named once, at its first row."""
    full = rows.where(rows.has_content)
    seen = trained.seen(full.contents)
    for place in np.flatnonzero(seen):
        message = (
            f"The row is trained on too (line {seen[place]} {trained.where}), so it measures nothing; "
            "remove one of the two."
        )
        yield Issue(Code.TRAIN_VALID_OVERLAP, message, int(full.lines[place]), severity="warning")
    for name, line in _first_lines(rows).items():
        if name in trained.groups:
            shown = excerpt(name)
            message = (
                f"The group '{shown}' is trained on too (line {trained.groups[name]} "
                f"{trained.where}); keep all rows of a group in one split."
            )
            yield Issue(Code.TRAIN_VALID_OVERLAP, message, line, value=shown, severity="warning")
