"""Reads rows to predict from a JSONL or CSV file, written as training data is: media by their paths beside it."""

import csv
import io
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from plait.errors import LocalFileError
from plait.inputs import Value, media_type

Row = dict[str, Value]

_SUFFIXES = ("_file_names", "_file_name")
_BARE = ("file_name", "file_names")
_IDS = ("id", "row_id")
#: What training data has beside its features.
_NO_FEATURES = ("label", "target", "labels", "split")
_PROBLEMS_SHOWN = 20


@dataclass
class Reading:
    """The rows of one file, and what was left out of them."""

    folder: Path
    #: The columns that the model reads, where that is known.
    columns: Collection[str] | None
    #: Whether a medium that cannot be sent is left out, instead of ending all.
    mask: bool
    is_csv: bool = False
    rows: list[Row] = field(default_factory=list)
    #: Columns that are not sent, since the model does not read them.
    unread: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    #: What was left out because of `mask`.
    masked: list[str] = field(default_factory=list)

    def add(self, line: int, cells: Mapping[str, Any]) -> None:
        row: Row = {"id": next((str(cells[key]) for key in _IDS if _is_word(cells.get(key))), str(line))}
        for key, cell in cells.items():
            column = self._column(key, cell)
            if key in _IDS or not self._is_read(column, key):
                continue
            where = f"line {line}, column {column}"
            if row.get(column) is not None:
                self.problems.append(f"{where}: two keys give it a value; keep one")
                continue
            try:
                row[column] = self._value(key, cell)
            except _NotSent as problem:
                row[column] = None
                told = self.masked if self.mask and problem.is_media else self.problems
                told.append(f"{where}: {problem}")
        self.rows.append(row)

    def _is_read(self, column: str, key: str) -> bool:
        is_read = column in self.columns if self.columns is not None else key not in _NO_FEATURES
        if not is_read:
            self.unread.add(key)
        return is_read

    def _column(self, key: str, cell: Any) -> str:
        """`image_file_name` is the column `image`; a bare `file_name` fills the one for its kind of medium."""
        if key in (self.columns or ()):
            return key
        if key not in _BARE:
            suffix = next((suffix for suffix in _SUFFIXES if key.endswith(suffix)), "")
            return key.removesuffix(suffix) or key
        first = cell[0] if isinstance(cell, list) and cell else cell
        kind = _kind(first) if isinstance(first, str) else None
        if self.columns and kind not in self.columns and len(self.columns) == 1:
            return next(iter(self.columns))
        return kind or key

    def _value(self, key: str, cell: Any) -> Value:
        if cell is None or cell == "":
            return None
        if isinstance(cell, list):
            return [self._part(key, part) for part in cell] or None
        if self.is_csv and ";" in str(cell) and key.endswith(_BARE) and not self._exists(cell):
            return self._value(key, [part for part in map(str.strip, cell.split(";")) if part])
        return self._one(key, cell)

    def _part(self, key: str, cell: Any) -> Value:
        if cell is None or cell == "" or isinstance(cell, list):
            raise _NotSent("a list holds no null, no empty text and no other list", is_media=False)
        return self._one(key, cell)

    def _exists(self, cell: str) -> bool:
        """A name with a semicolon in it, or a data: URL, which has one, is one file."""
        return cell.startswith("data:") or (
            len(cell) <= 1024 and "\0" not in cell and (self.folder / cell).exists()
        )

    def _one(self, key: str, cell: Any) -> Value:
        if isinstance(cell, Mapping) and set(cell) in ({"file_id"}, {"text"}):
            return dict(cell)
        if isinstance(cell, bool):
            return cell
        if isinstance(cell, (int, float)):
            return str(cell)
        if not isinstance(cell, str):
            message = "it must be text, a number, true or false, a path to a picture or sound, or null"
            raise _NotSent(message, is_media=False)
        is_path = key.endswith(_BARE)
        if cell.startswith("data:") or (not is_path and not self._is_file(cell)):
            return cell
        if is_path and cell.startswith("file-") and not (self.folder / cell).exists():
            return {"file_id": cell}
        return self._medium(cell)

    def _is_file(self, cell: str) -> bool:
        """Whether a cell that may be text names a picture or sound that is there."""
        if len(cell) > 1024 or "\n" in cell or "\0" in cell or _kind(cell) is None:
            return False
        return (self.folder / cell).is_file()

    def _medium(self, cell: str) -> Path:
        if "\0" in cell:
            raise _NotSent("this is not the path of a file", is_media=True)
        if "://" in cell:
            raise _NotSent(
                f"{cell!r}: addresses are not fetched; name a file beside the table", is_media=True
            )
        path = (self.folder / cell).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            # A table from elsewhere must not send what lies elsewhere on this machine.
            raise _NotSent(f"{cell!r} leads out of the table's folder", is_media=True)
        if not path.is_file():
            raise _NotSent(f"there is no file {cell!r} beside the table", is_media=True)
        return path


class _NotSent(Exception):
    def __init__(self, message: str, *, is_media: bool) -> None:
        super().__init__(message)
        self.is_media = is_media


def read(
    path: Path, columns: Collection[str] | None, *, mask: bool, tell: Callable[[str], None]
) -> list[Row]:
    """All rows; `-` is JSONL from stdin. Every problem is found before anything is sent."""
    is_stdin = str(path) == "-"
    is_csv = path.suffix.lower() == ".csv"
    reading = Reading(Path() if is_stdin else path.parent, columns, mask, is_csv)
    for line, cells in _lines(_text(path), is_csv=is_csv, problems=reading.problems):
        reading.add(line, cells)
    if reading.problems:
        more = len(reading.problems) - _PROBLEMS_SHOWN
        details = reading.problems[:_PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        # Masked are media only: what is left is to be corrected.
        mend = (
            "Correct these lines." if mask else "Correct these lines, or predict without bad media: --mask."
        )
        raise LocalFileError(f"{path} has problems, and nothing was sent:", details=details, hint=mend)
    if not reading.rows:
        raise LocalFileError(
            f"{path} has no rows.", hint="Write one JSON object a line, or a CSV with a header."
        )
    for problem in reading.masked:
        tell(f"{problem}; left out (--mask).")
    if reading.unread:
        tell(f"Not sent, since they are no inputs of the model: {', '.join(sorted(reading.unread))}.")
    return reading.rows


def _text(path: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalFileError(f"{path} cannot be read: {error}.", hint="Save it as UTF-8.") from None


def _lines(text: str, *, is_csv: bool, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return _csv(text, problems) if is_csv else _jsonl(text, problems)


def _csv(text: str, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in table:
            if None in cells or None in cells.values():
                problems.append(f"line {table.line_num}: it has not as many cells as the header")
            else:
                yield table.line_num, cells
    except csv.Error as error:
        problems.append(f"line {table.line_num}: this is not CSV: {error}")


def _jsonl(text: str, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        try:
            cells = json.loads(raw)
        except (ValueError, RecursionError) as error:
            problems.append(f"line {line}: this is not JSON: {error}")
            continue
        if isinstance(cells, dict):
            yield line, cells
        else:
            problems.append(f"line {line}: write one JSON object a line")


def _is_word(cell: Any) -> bool:
    return isinstance(cell, (str, int, float)) and cell != ""


def _kind(cell: str) -> str | None:
    """`image`, `audio` or `video`, by the extension."""
    kind = media_type(Path(PurePosixPath(cell).name)).partition("/")[0]
    return kind if kind in ("image", "audio", "video") else None
