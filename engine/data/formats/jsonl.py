"""JSONL: one object a line."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from domain.manifest import Code, Issue
from engine.data.formats.chat import as_columns, is_chat
from engine.data.raw_rows import RawRow
from engine.data.tables import MAX_LINE_BYTES, BadLine, Table, excerpt, refuse_characters


def read_jsonl(file: IO[bytes]) -> Table:
    table = Table()
    for line, (raw, size) in enumerate(_lines(file), start=1):
        if size <= MAX_LINE_BYTES and not raw.strip():
            continue
        try:
            row = _parsed(raw, size)
            # The first line that can be read says what the file is.
            table.is_chat = is_chat(row) if not len(table.rows) else table.is_chat
            if table.is_chat:
                row, wrong = as_columns(row, line)
                table.issues += wrong
            table.rows.append(RawRow(line, row))
        except BadLine as bad:
            shown = excerpt(raw[:200].decode("utf-8", "replace").strip())
            table.issues.append(Issue(bad.code, bad.message, line, bad.column, shown))
    return table


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Each line and its size; of one that is too long only the beginning."""
    while raw := file.readline(MAX_LINE_BYTES + 1):
        size, rest = len(raw), raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
            size += len(rest)
        yield raw, size


def _parsed(raw: bytes, size: int) -> dict[str, Any]:
    if size > MAX_LINE_BYTES:
        raise BadLine(Code.TOO_LARGE, f"The line has {size} bytes; at most {MAX_LINE_BYTES} are read.")
    try:
        # Without its end: an object that is not closed would else be missed on the line behind it.
        text = raw.decode("utf-8").rstrip("\r\n")
        row = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        message = f"Byte {error.start + 1} of the line is not UTF-8; save the table as UTF-8."
        raise BadLine(Code.ENCODING_ERROR, message) from error
    except json.JSONDecodeError as error:
        message = f"This is not JSON: {error.msg} at character {error.colno}; write one object a line."
        raise BadLine(Code.INVALID_JSON, message) from error
    except RecursionError as error:
        raise BadLine(Code.INVALID_JSON, "The line is nested too deeply; write plain values.") from error
    except ValueError as error:
        message = "The line has a number that is too long; write it as text."
        raise BadLine(Code.INVALID_JSON, message) from error
    if not isinstance(row, dict):
        message = 'A line must be an object such as {"file_name": "1.png", "label": "cat"}.'
        raise BadLine(Code.INVALID_JSON, message)
    refuse_characters(row)
    return row


def _no_pair_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = excerpt(Counter(key for key, _ in pairs).most_common(1)[0][0])
        raise BadLine(Code.DUPLICATE_COLUMN, f"'{twice}' stands twice in this line; keep one.", twice)
    return row


def _no_constant(word: str) -> None:
    message = f"{word} is not JSON; write null for a missing value."
    raise BadLine(Code.INVALID_JSON, message)


_DECODER = json.JSONDecoder(object_pairs_hook=_no_pair_twice, parse_constant=_no_constant)
