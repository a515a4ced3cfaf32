"""CSV: a header, and rows of words."""

import csv
import io
from collections.abc import Iterator
from typing import IO, Any, TextIO

from domain.manifest import Code, Issue
from engine.data.raw_rows import RawRow
from engine.data.tables import MAX_LINE_BYTES, BadLine, Table, excerpt, refuse_characters, repeated_names

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(file: IO[bytes]) -> Table:
    # Bytes that are not UTF-8 become half characters, so that each row with some is named.
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    try:
        return _read(text)
    finally:
        # The file is its opener's to close.
        text.detach()


def _read(text: TextIO) -> Table:
    table = Table(typed=False)
    # The module's own limit is too low for pictures in `data:` URLs.
    csv.field_size_limit(MAX_LINE_BYTES)
    records = _records(csv.reader(_lines(text), strict=True), table)
    line, names = next(records, (1, []))
    table.issues.extend(repeated_names(names, line))
    table.issues.extend(_otherwise_separated(names, line))
    if table.issues:
        # Under a header that cannot be trusted no cell has a name.
        table.is_whole = False
        return table
    for line, cells in records:
        try:
            table.rows.append(RawRow(line, _named(names, cells)))
        except BadLine as bad:
            table.issues.append(Issue(bad.code, bad.message, line, bad.column))
    return table


def _lines(text: TextIO) -> Iterator[str]:
    while line := text.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            message = f"The line has more than {MAX_LINE_BYTES} characters; no more of the table is read."
            raise BadLine(Code.TOO_LARGE, message)
        yield line


def _records(reader: Any, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Records with the line that each begins on, blank lines left out."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except BadLine as bad:
            table.issues.append(Issue(bad.code, bad.message, line))
            table.is_whole = False
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


def _named(names: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(names):
        message = f"The row has {len(cells)} cells, the header {len(names)}; quote cells that hold commas."
        raise BadLine(Code.SCHEMA_MISMATCH, message)
    row = dict(zip(names, cells, strict=True))
    refuse_characters(row)
    return row
