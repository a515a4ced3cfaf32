"""Rows that say the same: twice in one file, or trained on and measured with. Reads no media."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from domain.manifest import Code, Issue
from engine.data.manifest import Row
from engine.data.tables import excerpt


@dataclass(frozen=True)
class Contents:
    """What the rows that are trained on hold, with a line of each; `where` names their file."""

    rows: Mapping[bytes, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    where: str = "of this file"


def contents_of(rows: Sequence[Row], digests: Mapping[int, bytes]) -> Contents:
    held: dict[bytes, int] = {}
    groups: dict[str, int] = {}
    for row in rows:
        if row.line in digests:
            held.setdefault(digests[row.line], row.line)
        if row.group is not None:
            groups.setdefault(row.group, row.line)
    return Contents(held, groups)


def repeated(rows: Sequence[Row], digests: Mapping[int, bytes]) -> Iterator[Issue]:
    """Rows of one split with the same content and the same label."""
    first: dict[object, int] = {}
    for row in rows:
        content = digests.get(row.line)
        if content is None or row.label is None:
            continue
        seen = first.setdefault((row.label, row.split, content), row.line)
        if seen != row.line:
            message = f"The row says the same as line {seen}; remove one."
            yield Issue(Code.DUPLICATE_ROW, message, row.line, severity="warning")


def overlap(rows: Sequence[Row], digests: Mapping[int, bytes], trained: Contents) -> Iterator[Issue]:
    """Rows that measure what was learned by heart. A group that straddles is named once, at its first row."""
    named: set[str] = set()
    for row in rows:
        seen = trained.rows.get(digests.get(row.line, b""))
        if seen is not None:
            message = (
                f"The row is trained on too (line {seen} {trained.where}), so it measures nothing; "
                "remove one of the two."
            )
            yield Issue(Code.TRAIN_VALID_OVERLAP, message, row.line, severity="warning")
        if row.group is not None and row.group in trained.groups and row.group not in named:
            named.add(row.group)
            message = (
                f"The group '{excerpt(row.group)}' is trained on too (line {trained.groups[row.group]} "
                f"{trained.where}); keep all rows of a group in one split."
            )
            yield Issue(
                Code.TRAIN_VALID_OVERLAP, message, row.line, value=excerpt(row.group), severity="warning"
            )
