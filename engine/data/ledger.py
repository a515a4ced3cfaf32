"""What a check remembers of each row: a few numbers, whatever the row holds. A million rows take about 60 MB."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.bad_rows import BadRows
from domain.manifest import Split
from engine.data.hashes import as_numbers, hash64
from engine.data.rows import Row

#: In the place of a label's or group's number: there is none; it is a measured number.
NONE, MEASURED = -1, -2

_SPLITS = tuple(Split)
_TRAIN = _SPLITS.index(Split.TRAIN)

Words = str | tuple[str, ...]


@dataclass(frozen=True)
class Tally:
    """How often each label that is no measured number stands there, and how many of those there are."""

    counts: Counter[Words]
    measured: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Tally":
        counts, measured = Counter[Words](), 0
        for row in rows:
            if isinstance(row.label, float):
                measured += 1
            elif row.label is not None:
                counts[row.label] += 1
        return cls(counts, measured)


@dataclass(frozen=True)
class Ledger:
    """Arrays with an entry for each row, in the order of the file."""

    lines: NDArray[np.int64]
    splits: NDArray[np.uint8]
    #: Places in `words`, NONE or MEASURED.
    labels: NDArray[np.int64]
    #: The label where it is MEASURED.
    numbers: NDArray[np.float64]
    #: Places in `names`, or NONE.
    groups: NDArray[np.int64]
    ids: NDArray[np.uint64]
    #: Hashes of what the used cells hold, and whether they hold anything.
    contents: NDArray[np.uint64]
    has_content: NDArray[np.bool_]
    #: Hashes of content, label and the split that the row names.
    wholes: NDArray[np.uint64]
    #: [rows, used columns]
    missing: NDArray[np.bool_]
    words: Sequence[Words]
    names: Sequence[str]
    used: Sequence[str]

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def training(self) -> NDArray[np.bool_]:
        return self.splits == _TRAIN

    @property
    def counts(self) -> dict[str, int]:
        """Rows by split, of those that have any."""
        counts = np.bincount(self.splits, minlength=len(_SPLITS)).tolist()
        return {str(split): count for split, count in sorted(zip(_SPLITS, counts, strict=True)) if count}

    @property
    def tally(self) -> Tally:
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.words)).tolist()
        found = Counter({word: n for word, n in zip(self.words, counts, strict=True) if n})
        return Tally(found, int((self.labels == MEASURED).sum()))

    @property
    def parts(self) -> int:
        """Into how many pieces the rows can be divided without one of a group being apart from the others."""
        grouped = self.groups != NONE
        return len(np.unique(self.groups[grouped])) + len(np.unique(self.ids[~grouped]))

    def where(self, rows: NDArray[np.bool_]) -> "Ledger":
        arrays: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **arrays)

    def without(self, bad: BadRows) -> "Ledger":
        """Less the rows that are left out; a cell that counts as missing is missing."""
        kept = self.where(~np.isin(self.lines, list(bad.skipped)))
        missing = kept.missing.copy()
        for name, lines in bad.masked.items():
            missing[np.isin(kept.lines, list(lines)), list(self.used).index(name)] = True
        return replace(kept, missing=missing)


class Book:
    """A ledger while it is written."""

    def __init__(self, used: Iterable[str], role: Split) -> None:
        self._used, self._role = list(used), role
        self._lines, self._labels, self._groups = array("q"), array("q"), array("q")
        self._numbers = array("d")
        self._ids, self._contents, self._wholes = array("Q"), array("Q"), array("Q")
        self._splits, self._has_content, self._missing = bytearray(), bytearray(), bytearray()
        self._words: dict[Words, int] = {}
        self._names: dict[str, int] = {}

    def add(self, row: Row, content: bytes | None) -> None:
        """`content` is what its used cells hold, None if they hold nothing."""
        # A validation or test file counts whole, whatever its rows say.
        split = Split(row.split) if row.split and self._role is Split.TRAIN else self._role
        self._lines.append(row.line)
        self._splits.append(_SPLITS.index(split))
        self._labels.append(self._place(row.label))
        self._numbers.append(row.label if isinstance(row.label, float) else np.nan)
        self._groups.append(
            NONE if row.group is None else self._names.setdefault(row.group, len(self._names))
        )
        self._ids.append(hash64(row.id.encode("utf-8", "surrogatepass")))
        self._has_content.append(content is not None)
        self._contents.append(hash64(content or b""))
        # 0.0 and -0.0 are one number.
        label = row.label + 0.0 if isinstance(row.label, float) else row.label
        told = repr((label, row.split)).encode("utf-8", "surrogatepass")
        self._wholes.append(hash64((content or b"") + told))
        self._missing += bytes(row.values[name] is None for name in self._used)

    def _place(self, label: Words | float | None) -> int:
        if label is None:
            return NONE
        return MEASURED if isinstance(label, float) else self._words.setdefault(label, len(self._words))

    def closed(self) -> Ledger:
        return Ledger(
            lines=np.frombuffer(self._lines, np.int64),
            splits=np.frombuffer(self._splits, np.uint8),
            labels=np.frombuffer(self._labels, np.int64),
            numbers=np.frombuffer(self._numbers, np.float64),
            groups=np.frombuffer(self._groups, np.int64),
            ids=as_numbers(self._ids),
            contents=as_numbers(self._contents),
            has_content=np.frombuffer(self._has_content, np.bool_),
            wholes=as_numbers(self._wholes),
            missing=np.frombuffer(self._missing, np.bool_).reshape(len(self._lines), len(self._used)),
            words=list(self._words),
            names=list(self._names),
            used=self._used,
        )
