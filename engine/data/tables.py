"""Lines of JSONL or CSV as plain rows. Says what is wrong with a line and goes on with the next."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from domain.manifest import Code, Issue

MAX_LINE_BYTES = 16 * 2**20

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RawRow:
    """One line as it was written; `line` counts from 1, a header included."""

    line: int
    cells: dict[str, Any]


@dataclass
class Table:
    rows: list[RawRow] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    #: In CSV every cell is a string, and what it means is inferred.
    typed: bool = True
    #: False where lines were lost that nobody can count.
    is_whole: bool = True


class _BadLine(Exception):
    def __init__(self, code: Code, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.column = code, message, column


_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def excerpt(value: object) -> str:
    """A value as an issue shows it: short, and safe to store anywhere."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return printable(str(value)[:200].encode("utf-8", "backslashreplace").decode())


def printable(text: str) -> str:
    """With control characters as escapes: data from elsewhere must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_table(data: bytes, kind: str) -> Table:
    """The rows of a `jsonl` or `csv` table. Never raises for what a user wrote."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        message = "The table is UTF-16; save it as UTF-8."
        return Table(issues=[Issue(Code.ENCODING_ERROR, message)])
    data = data.removeprefix(_BOM)
    return _read_jsonl(data) if kind == "jsonl" else _read_csv(data)


def _read_jsonl(data: bytes) -> Table:
    table = Table()
    for line, raw in enumerate(io.BytesIO(data), start=1):
        if not raw.strip():
            continue
        try:
            table.rows.append(RawRow(line, _parsed(raw)))
        except _BadLine as bad:
            shown = excerpt(raw[:200].decode("utf-8", "replace").strip())
            table.issues.append(Issue(bad.code, bad.message, line, bad.column, shown))
    return table


def _parsed(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_LINE_BYTES:
        raise _BadLine(Code.TOO_LARGE, f"The line has {len(raw)} bytes; at most {MAX_LINE_BYTES} are read.")
    try:
        # Without its end: an object that is not closed would else be missed on the line behind it.
        text = raw.decode("utf-8").rstrip("\r\n")
        row = json.loads(text, object_pairs_hook=_no_pair_twice, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        message = f"Byte {error.start + 1} of the line is not UTF-8; save the table as UTF-8."
        raise _BadLine(Code.ENCODING_ERROR, message) from error
    except json.JSONDecodeError as error:
        message = f"This is not JSON: {error.msg} at character {error.colno}; write one object a line."
        raise _BadLine(Code.INVALID_JSON, message) from error
    except RecursionError as error:
        raise _BadLine(Code.INVALID_JSON, "The line is nested too deeply; write plain values.") from error
    except ValueError as error:
        message = "The line has a number that is too long; write it as text."
        raise _BadLine(Code.INVALID_JSON, message) from error
    if not isinstance(row, dict):
        message = 'A line must be an object such as {"file_name": "1.png", "label": "cat"}.'
        raise _BadLine(Code.INVALID_JSON, message)
    _refuse_characters(row)
    return row


def _no_pair_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = excerpt(Counter(key for key, _ in pairs).most_common(1)[0][0])
        raise _BadLine(Code.DUPLICATE_COLUMN, f"'{twice}' stands twice in this line; keep one.", twice)
    return row


def _no_constant(word: str) -> None:
    message = f"{word} is not JSON; write null for a missing value."
    raise _BadLine(Code.INVALID_JSON, message)


def _refuse_characters(cells: dict[str, Any]) -> None:
    """Half characters and NUL cannot be stored or tokenised: they are named here, not met later."""
    for key, cell in cells.items():
        for text in _strings(key, cell):
            if not text.isascii() and not _is_utf8(text):
                message = "The line holds what is not UTF-8; save the table as UTF-8."
                raise _BadLine(Code.ENCODING_ERROR, message, excerpt(key))
            if "\0" in text:
                raise _BadLine(
                    Code.ENCODING_ERROR, "The line holds a NUL character; remove it.", excerpt(key)
                )


def _strings(*values: Any) -> Iterator[str]:
    """Those among the values and inside of them: a list of labels holds words, too."""
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            left += [*value, *value.values()]


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read_csv(data: bytes) -> Table:
    table = Table(typed=False)
    # Bytes that are not UTF-8 become half characters, so that each row with some is named.
    text = data.decode("utf-8", "surrogateescape")
    # The module's own limit is too low for pictures in `data:` URLs.
    csv.field_size_limit(MAX_LINE_BYTES)
    records = _records(csv.reader(io.StringIO(text, newline=""), strict=True), table)
    line, names = next(records, (1, []))
    table.issues.extend(_repeated(names, line))
    table.issues.extend(_otherwise_separated(names, line))
    if table.issues:
        # Under a header that cannot be trusted no cell has a name.
        table.is_whole = False
        return table
    for line, cells in records:
        try:
            table.rows.append(RawRow(line, _named(names, cells)))
        except _BadLine as bad:
            table.issues.append(Issue(bad.code, bad.message, line, bad.column))
    return table


def _records(reader: Any, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Records with the line that each begins on, blank lines left out."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            code = Code.TOO_LARGE if "field limit" in str(error) else Code.SCHEMA_MISMATCH
            message = f"This is not CSV ({error}); quote cells with commas, quotes or line breaks."
            table.issues.append(Issue(code, message, line))
            # A quote that nobody closed swallows the lines behind it.
            table.is_whole = table.is_whole and reader.line_num <= line
        else:
            if cells:
                yield line, cells


def _otherwise_separated(names: list[str], line: int) -> Iterator[Issue]:
    """What some spreadsheets write: one name alone could have no label beside it."""
    found = next(
        (word for mark, word in _OTHER_SEPARATORS.items() if len(names) == 1 and mark in names[0]), None
    )
    if found:
        message = f"The header is one cell, '{excerpt(names[0])}'; separate cells with commas, not {found}."
        yield Issue(Code.SCHEMA_MISMATCH, message, line)


def _repeated(names: list[str], line: int) -> Iterator[Issue]:
    for name, count in Counter(names).items():
        if name and count > 1:
            message = f"Two columns are named '{excerpt(name)}'; rename one."
            yield Issue(Code.DUPLICATE_COLUMN, message, line, excerpt(name))


def _named(names: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(names):
        message = f"The row has {len(cells)} cells, the header {len(names)}; quote cells that hold commas."
        raise _BadLine(Code.SCHEMA_MISMATCH, message)
    row = dict(zip(names, cells, strict=True))
    _refuse_characters(row)
    return row
