"""What all formats of tables share: a row as it was written, and what is wrong with one. Knows no format."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.manifest import Code, Issue
from engine.data.issues import Issues
from engine.data.raw_rows import RawRows
from engine.data.spool import Spool

MAX_LINE_BYTES = 16 * 2**20
#: Besides the media in it. It is written to disk once more while it is read.
MAX_TABLE_BYTES = 4 * 2**30
#: Lists in lists in lists: no column is made of them, and a deep one could not be read back.
_DEEPEST = 50


@dataclass
class Table:
    rows: RawRows = field(default_factory=RawRows)
    issues: Issues = field(default_factory=Issues)
    #: In CSV every cell is a string, and what it means is inferred.
    typed: bool = True
    #: False where lines were lost that nobody can count.
    is_whole: bool = True
    #: Its lines are messages, and the columns are made of them.
    is_chat: bool = False
    #: The media files that lay in cells.
    embedded: Spool | None = None


class BadLine(Exception):
    """This line cannot be read as a row; the next one may be."""

    def __init__(self, code: Code, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.column = code, message, column


def excerpt(value: object) -> str:
    """A value as an issue shows it: short, and safe to store anywhere."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return printable(str(value)[:200].encode("utf-8", "backslashreplace").decode())


def printable(text: str) -> str:
    """With control characters as escapes: data from elsewhere must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def refuse_characters(cells: dict[str, Any]) -> None:
    """Half characters and NUL cannot be stored or tokenised: they are named here, not met later."""
    for key, cell in cells.items():
        for text in _strings(key, cell):
            if not text.isascii() and not _is_utf8(text):
                message = "The line holds what is not UTF-8; save the table as UTF-8."
                raise BadLine(Code.ENCODING_ERROR, message, excerpt(key))
            if "\0" in text:
                raise BadLine(Code.ENCODING_ERROR, "The line holds a NUL character; remove it.", excerpt(key))


def _strings(*values: Any) -> Iterator[str]:
    """Those among the values and inside of them: a list of labels holds words, too."""
    depth, left = 0, list(values)
    while left:
        if depth > _DEEPEST:
            raise BadLine(Code.INVALID_JSON, "The line is nested too deeply; write plain values.")
        inner: list[Any] = []
        for value in left:
            if isinstance(value, str):
                yield value
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, dict):
                inner += [*value, *value.values()]
        depth, left = depth + 1, inner


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def repeated_names(names: Sequence[str], line: int | None) -> Iterator[Issue]:
    """A header's or schema's names that stand twice."""
    for name, count in Counter(names).items():
        if name and count > 1:
            message = f"Two columns are named '{excerpt(name)}'; rename one."
            yield Issue(Code.DUPLICATE_COLUMN, message, line, excerpt(name))
