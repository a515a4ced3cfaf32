"""A table's rows as they were written, outside of memory: a table may have millions of them."""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, overload

from domain.manifest import ColumnType
from engine.data.spool import Spool

# Made once: `json.dumps` and `json.loads` look at their options anew for each row.
# Values that JSON does not know lie in lists or objects, which no column is made of.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class RawRow:
    """One line as it was written; `line` counts from 1, a CSV's header included."""

    line: int
    cells: dict[str, Any]


@dataclass(frozen=True)
class Embedded:
    """A cell whose media file lies in the table itself; `place` is its number among all of them."""

    place: int
    size: int
    #: What its first bytes say, if they say it.
    kind: ColumnType | None
    #: The file's name, where the table tells one.
    name: str | None = None

    def __str__(self) -> str:
        return self.name or f"{self.size} bytes"


@dataclass(frozen=True)
class Placed:
    """A cell's file that stands at a place of its own in the line, as an issue names it."""

    name: str
    at: str


@dataclass(frozen=True)
class TooMany:
    """A cell that embeds more files than are read: none of them is."""

    count: int
    #: What the first of them is, if that can be told.
    kind: ColumnType | None

    def __str__(self) -> str:
        return f"{self.count} files"


_SPECIAL = (Embedded, Placed, TooMany)


def _holds_files(cell: Any) -> bool:
    return isinstance(cell, _SPECIAL) or (
        isinstance(cell, list) and any(isinstance(part, _SPECIAL) for part in cell)
    )


def _told(cell: Any) -> Any:
    """A cell with files in it as JSON: what the table embeds is a list, several are an object."""
    if isinstance(cell, TooMany):
        return {"too_many": astuple(cell)}
    if isinstance(cell, list):
        return {"several": [_told(part) for part in cell]}
    return astuple(cell) if isinstance(cell, _SPECIAL) else cell


def _again(told: Any) -> Any:
    if isinstance(told, dict) and "too_many" in told:
        count, kind = told["too_many"]
        return TooMany(count, ColumnType(kind) if kind else None)
    if isinstance(told, dict):
        return [_again(part) for part in told["several"]]
    if not isinstance(told, list):
        return told
    if len(told) == 2:
        return Placed(*told)
    number, size, kind, name = told
    return Embedded(number, size, ColumnType(kind) if kind else None, name)


class RawRows(Sequence[RawRow]):
    """Rows in the order in which they were appended; each is made anew when it is asked for."""

    def __init__(self) -> None:
        self.lines = array("q")
        self._spool = Spool()

    def append(self, row: RawRow) -> None:
        media = {key: _told(cell) for key, cell in row.cells.items() if _holds_files(cell)}
        plain = {**row.cells, **dict.fromkeys(media)} if media else row.cells
        kept = [plain, media]
        self._spool.add(_encode(kept).encode("utf-8", "surrogatepass"))
        self.lines.append(row.line)

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, place: int) -> RawRow: ...

    @overload
    def __getitem__(self, place: slice) -> list[RawRow]: ...

    def __getitem__(self, place: int | slice) -> RawRow | list[RawRow]:
        if isinstance(place, slice):
            return [self._read(n) for n in range(*place.indices(len(self)))]
        return self._read(range(len(self))[place])

    def __iter__(self) -> Iterator[RawRow]:
        return map(self._read, range(len(self)))

    def _read(self, place: int) -> RawRow:
        (cells, media), _ = _decode(self._spool[place].decode("utf-8", "surrogatepass"))
        for key, told in media.items():
            cells[key] = _again(told)
        return RawRow(self.lines[place], cells)

    @property
    def size(self) -> int:
        """Bytes on disk, or in memory while they are few."""
        return self._spool.size

    def seal(self) -> None:
        self._spool.seal()

    def close(self) -> None:
        self._spool.close()
