"""A table's raw rows as samples: values by column, label, split and group. Reads no media."""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from domain.bad_rows import BadRows
from domain.manifest import Code, ColumnType, Issue, Schema, split_name
from engine.data.hashes import as_numbers, hash64, repeats
from engine.data.infer import MEDIA, Layout, as_number, is_missing
from engine.data.raw_rows import Embedded, Placed, RawRow, RawRows, TooMany
from engine.data.several import files_in, most_of
from engine.data.tables import excerpt

#: In CSV, what a number with a fraction looks like: a measured value, not a class.
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")
#: Characters: a model keeps the values of a category column.
LONGEST_CATEGORY = 200


@dataclass(frozen=True)
class MediaRef:
    """A media file's path as the row wrote it, relative to the table."""

    name: str
    #: Of a file that lay in the table: which of them it is.
    place: int | None = None
    #: Where in its line it stands, if that is more than a column.
    at: str | None = None


@dataclass(frozen=True)
class Several:
    """The files, or the texts, of one cell, in the order in which they stand there: two at least."""

    parts: tuple[MediaRef | str, ...]


Value = str | float | MediaRef | Several | None


@dataclass(frozen=True)
class Row:
    """One sample. Every feature column is among `values`; a missing one is None."""

    line: int
    id: str
    values: dict[str, Value]
    #: A class's name, the names of a list, or a float where a number with a fraction was written.
    label: str | tuple[str, ...] | float | None
    split: str | None
    group: str | None


_NONE = BadRows()


class _Mismatch(Exception):
    """The message says what the cell should be."""


class _TooMany(Exception):
    """More files stand in a cell than are read."""


class Rows(Sequence[Row]):
    """A table's samples, each made anew when it is asked for: there may be more than memory holds."""

    def __init__(
        self,
        raw: RawRows,
        layout: Layout,
        typed: bool,
        bad: BadRows = _NONE,
        kept: Sequence[int] | None = None,
    ) -> None:
        self._raw, self._layout, self._typed, self._bad = raw, layout, typed, bad
        #: The places of those that are not left out.
        self._kept: Sequence[int] = range(len(raw)) if kept is None else kept

    @classmethod
    def none(cls) -> "Rows":
        return cls(RawRows(), Layout(Schema(), {}, {}), typed=True)

    def without(self, bad: BadRows) -> "Rows":
        """The same rows less what is bad; the others keep their lines and ids."""
        kept = array("q", (n for n in self._kept if self._raw.lines[n] not in bad.skipped))
        return Rows(self._raw, self._layout, self._typed, bad, kept)

    def issues(self) -> Iterator[Issue]:
        """What is wrong with single rows, and with their ids."""
        key, ids, named = self._layout.schema.id, array("Q"), list[Issue]()
        for raw in self._raw:
            row = _row(raw, self._layout, self._typed, named)
            yield from named
            named.clear()
            if key:
                ids.append(hash64(row.id.encode("utf-8", "surrogatepass")))
        for place, first in repeats(as_numbers(ids)):
            shown, seen = excerpt(self._made(place).id), self._raw.lines[first]
            message = f"The id '{shown}' is that of line {seen} too; give each row its own."
            yield Issue(Code.DUPLICATE_ROW, message, self._raw.lines[place], key, shown, severity="warning")

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        chosen = self._kept[place]
        return self._made(chosen) if isinstance(chosen, int) else [self._made(n) for n in chosen]

    def __iter__(self) -> Iterator[Row]:
        return map(self._made, self._kept)

    def _made(self, place: int) -> Row:
        row = _row(self._raw[place], self._layout, self._typed, [])
        hidden = [name for name, lines in self._bad.masked.items() if row.line in lines]
        return replace(row, values={**row.values, **dict.fromkeys(hidden)}) if hidden else row

    def close(self) -> None:
        self._raw.close()


def _row(raw: RawRow, layout: Layout, typed: bool, issues: list[Issue]) -> Row:
    schema = layout.schema
    return Row(
        line=raw.line,
        id=_word(raw, schema.id, issues) or str(raw.line),
        values=_values(raw, layout, typed, issues),
        label=_label(raw, schema.label, typed, issues),
        split=_split(raw, schema.split, issues),
        group=_word(raw, schema.group, issues),
    )


def _values(raw: RawRow, layout: Layout, typed: bool, issues: list[Issue]) -> dict[str, Value]:
    values: dict[str, Value] = dict.fromkeys(layout.schema.columns)
    before = len(issues)
    for key, cell in raw.cells.items():
        column = layout.column_of(key, cell)
        if column is None or is_missing(cell):
            continue
        if values[column] is not None:
            message = f"'{key}' and another key both give the column '{column}'; keep one."
            issues.append(Issue(Code.DUPLICATE_COLUMN, message, raw.line, column, excerpt(cell)))
            continue
        try:
            values[column] = _value(cell, layout.schema.columns[column].type, layout, typed)
        except _Mismatch as error:
            message = f"'{column}' must be {error}."
            issues.append(Issue(Code.SCHEMA_MISMATCH, message, raw.line, column, excerpt(cell)))
        except _TooMany as error:
            issues.append(Issue(Code.TOO_LARGE, f"'{column}' {error}.", raw.line, column, excerpt(cell)))
    # What is wrong with a film is wrong with its sound.
    for sound, film in layout.sounds.items():
        issues += [replace(issue, column=sound) for issue in issues[before:] if issue.column == film]
    # One file, read twice. Whether it has a sound track is `silence.silenced`'s to say.
    return {**values, **{sound: values[film] for sound, film in layout.sounds.items()}}


def _value(cell: Any, kind: ColumnType, layout: Layout, typed: bool) -> Value:
    if kind is ColumnType.NUMBER:
        number = None if typed and isinstance(cell, str) else as_number(cell)
        if number is None:
            raise _Mismatch("a finite number, or null if it is missing")
        return number
    if kind is ColumnType.CATEGORY:
        if isinstance(cell, str | int) and len(name := category_name(cell)) <= LONGEST_CATEGORY:
            return name
        raise _Mismatch(f"a word of at most {LONGEST_CATEGORY} characters, a whole number or true or false")
    if isinstance(cell, str) and kind in MEDIA and not typed:
        cell = files_in(cell, layout.is_file)
    if isinstance(cell, TooMany):
        raise _too_many(cell.count, kind)
    return _several(cell, kind) if isinstance(cell, list) else _one(cell, kind)


def _too_many(count: int, kind: ColumnType) -> _TooMany:
    what = "texts" if kind is ColumnType.TEXT else "files"
    return _TooMany(f"holds {count} {what}, at most {most_of(kind)} are read; leave some out")


def _one(cell: Any, kind: ColumnType) -> str | MediaRef:
    if isinstance(cell, Embedded) and kind in MEDIA:
        return MediaRef(str(cell), cell.place)
    if isinstance(cell, Placed) and kind in MEDIA:
        return MediaRef(cell.name, at=cell.at)
    if not isinstance(cell, str):
        wanted = (
            "a text in quotes" if kind is ColumnType.TEXT else "a path to a file, as text, or a list of such"
        )
        raise _Mismatch(f"{wanted}, or null if it is missing")
    return cell if kind is ColumnType.TEXT else MediaRef(cell)


def _several(cells: list[Any], kind: ColumnType) -> Value:
    """A list of one is that one; an empty list is nothing."""
    if len(cells) > most_of(kind):
        raise _too_many(len(cells), kind)
    if any(is_missing(cell) or isinstance(cell, list) for cell in cells):
        raise _Mismatch("a plain list: without null, empty texts, or lists in it")
    parts = tuple(_one(cell, kind) for cell in cells)
    return Several(parts) if len(parts) > 1 else parts[0] if parts else None


def category_name(cell: str | int) -> str:
    """The value that a category's cell names. CSV has `True` where JSON has `true`: both are `true`."""
    name = class_name(cell)
    return name.lower() if name in ("True", "False") else name


def class_name(label: object) -> str:
    """The class that a label names: `3`, `"3"` and `True` are `3`, `3` and `true`."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _label(
    raw: RawRow, key: str | None, typed: bool, issues: list[Issue]
) -> str | tuple[str, ...] | float | None:
    cell = raw.cells.get(key) if key else None
    if cell is None or cell == "":
        return None
    if isinstance(cell, float) or (not typed and _FRACTION.fullmatch(cell)):
        return float(cell)
    if isinstance(cell, str | int):
        return class_name(cell)
    if isinstance(cell, list) and all(isinstance(name, str | int) for name in cell):
        return tuple(class_name(name) for name in cell)
    message = f"The label '{key}' must be one word or number, or a list of words, not {excerpt(cell)}."
    issues.append(Issue(Code.LABEL_TYPE_MISMATCH, message, raw.line, key, excerpt(cell)))
    return None


def _split(raw: RawRow, key: str | None, issues: list[Issue]) -> str | None:
    word = _word(raw, key, issues)
    split = split_name(word)
    if word is not None and split is None:
        message = f"'{excerpt(word)}' is not a split; write train, validation or test."
        issues.append(Issue(Code.UNKNOWN_SPLIT, message, raw.line, key, excerpt(word)))
    return split


def _word(raw: RawRow, key: str | None, issues: list[Issue]) -> str | None:
    cell = raw.cells.get(key) if key else None
    if is_missing(cell):
        return None
    if isinstance(cell, str | int | float):
        return class_name(cell)
    message = f"'{key}' must be one word or number, not {excerpt(cell)}."
    issues.append(Issue(Code.SCHEMA_MISMATCH, message, raw.line, key, excerpt(cell)))
    return None
