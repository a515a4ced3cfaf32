"""A table's raw rows as samples: values by column, label, split and group. Reads no media."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from domain.manifest import Code, ColumnType, Issue, split_name
from engine.data.infer import MEDIA, Layout, as_number, is_missing
from engine.data.tables import Embedded, RawRow, Table, excerpt

#: In CSV, what a number with a fraction looks like: a measured value, not a class.
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class MediaRef:
    """A media file's path as the row wrote it, relative to the table."""

    name: str
    #: Of a file that lay in the table: which of them it is.
    place: int | None = None


Value = str | float | MediaRef | None


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


class _Mismatch(Exception):
    """The message says what the cell should be."""


def make_rows(table: Table, layout: Layout) -> tuple[list[Row], list[Issue]]:
    issues: list[Issue] = []
    rows = [_row(raw, layout, table.typed, issues) for raw in table.rows]
    issues += _repeated_ids(rows, layout.schema.id)
    return rows, issues


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
    for key, cell in raw.cells.items():
        column = layout.column_of(key, cell)
        if column is None or is_missing(cell):
            continue
        if values[column] is not None:
            message = f"'{key}' and another key both give the column '{column}'; keep one."
            issues.append(Issue(Code.DUPLICATE_COLUMN, message, raw.line, column, excerpt(cell)))
            continue
        try:
            values[column] = _value(cell, layout.schema.columns[column].type, typed)
        except _Mismatch as error:
            message = f"'{column}' must be {error}."
            issues.append(Issue(Code.SCHEMA_MISMATCH, message, raw.line, column, excerpt(cell)))
    return values


def _value(cell: Any, kind: ColumnType, typed: bool) -> Value:
    if kind is ColumnType.NUMBER:
        number = None if typed and isinstance(cell, str) else as_number(cell)
        if number is None:
            raise _Mismatch("a finite number, or null if it is missing")
        return number
    if kind is ColumnType.CATEGORY:
        if isinstance(cell, str | int):
            return class_name(cell)
        raise _Mismatch("a word, a whole number or true or false")
    if isinstance(cell, Embedded) and kind in MEDIA:
        return MediaRef(str(cell), cell.place)
    if not isinstance(cell, str):
        wanted = "a text in quotes" if kind is ColumnType.TEXT else "one path to a file, as text"
        raise _Mismatch(f"{wanted}, or null if it is missing")
    return cell if kind is ColumnType.TEXT else MediaRef(cell)


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


def _repeated_ids(rows: list[Row], key: str | None) -> Iterator[Issue]:
    first: dict[str, int] = {}
    for row in rows if key else []:
        seen = first.setdefault(row.id, row.line)
        if seen != row.line:
            message = f"The id '{excerpt(row.id)}' is that of line {seen} too; give each row its own."
            yield Issue(Code.DUPLICATE_ROW, message, row.line, key, excerpt(row.id), severity="warning")
