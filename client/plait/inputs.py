"""Rows to predict as a request: text as it is, small media inside the JSON, larger ones as files beside it."""

import base64
import errno
import json
import math
import mimetypes
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from plait.errors import LocalFileError
from plait.transport import Part

#: What one request may hold.
MOST_ROWS = 256
#: Files beside the JSON.
MOST_MEDIA = 1024
#: Up to here a picture or sound travels as a data URL, as long as all of them together stay small.
_INLINE_BYTES, _ALL_INLINE_BYTES = 64 * 1024, 1024 * 1024
_UNKNOWN = "application/octet-stream"

#: Text, a number, a category's word, whole number, True or False, media on this machine, media as bytes,
#: `{"file_id": "file-…"}`, or None for what is missing; a list of texts or media for several in one cell. A text that
#: looks like an address or a data: URL is written `{"text": "…"}`.
Value = str | float | PathLike[str] | bytes | Mapping[str, Any] | list[Any] | None

_TYPES = mimetypes.MimeTypes()
for _suffix, _kind in {
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".webp": "image/webp",
}.items():
    _TYPES.add_type(_kind, _suffix)


@dataclass
class Packed:
    """A request's inputs: the JSON of the rows, and the files that go beside it. `close` closes those."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)
    _inline: int = 0

    def __enter__(self) -> "Packed":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, row: Mapping[str, Value]) -> None:
        place = len(self.rows)
        cells: dict[str, Any] = {}
        self.rows.append(cells)
        for column, value in row.items():
            if isinstance(value, list):
                cells[column] = [
                    self._cell(f"{column}[{place}][{number}]", f"inputs[{place}][{column!r}][{number}]", part)
                    for number, part in enumerate(value)
                ]
            else:
                cells[column] = self._cell(f"{column}[{place}]", f"inputs[{place}][{column!r}]", value)
                if cells[column] is None and value is not None:
                    # It goes beside the JSON.
                    del cells[column]

    def _cell(self, part: str, path: str, value: Value) -> Any:
        """What stands in the JSON; None also where the value is sent as the form's `part`."""
        if isinstance(value, (bytes, bytearray, PathLike)):
            return self._media(part, path, value)
        if value is None or isinstance(value, (str, int)):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise TypeError(f"{path}: a number must be finite, or None if it is missing")
            return value
        if isinstance(value, Mapping) and set(value) in ({"file_id"}, {"text"}):
            return dict(value)
        raise TypeError(f"{path}: {_wrong(value)}")

    def _media(self, part: str, where: str, value: bytes | bytearray | PathLike[str]) -> str | None:
        path = None if isinstance(value, (bytes, bytearray)) else Path(value)
        kind = media_type(path) if path else _UNKNOWN
        try:
            size = path.stat().st_size if path else len(value)  # type: ignore[arg-type]
            if size <= _INLINE_BYTES and self._inline + size <= _ALL_INLINE_BYTES:
                self._inline += size
                return _data_url(path.read_bytes() if path else value, kind)  # type: ignore[arg-type]
            if len(self.parts) == MOST_MEDIA:
                raise _too_many(where, f"one request takes no more than {MOST_MEDIA} large files")
            source = self._open.enter_context(path.open("rb")) if path else bytes(value)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise _too_many(where, "this process may open no more files (ulimit -n)") from None
            message = f"{where}: {path} cannot be read: {error.strerror}."
            raise LocalFileError(message) from None
        name = path.name.encode("utf-8", "replace").decode() if path else "bytes"
        self.parts.append((part, (name, source, kind)))
        return None


def pack(inputs: Sequence[Mapping[str, Value]]) -> Packed:
    """Raises LocalFileError for media that cannot be read, TypeError for a value that is none of `Value`."""
    packed = Packed()
    try:
        for row in inputs:
            packed.add(row)
    except BaseException:
        packed.__exit__()
        raise
    return packed


def media_type(path: Path) -> str:
    """By the extension; the server looks at the bytes."""
    return _TYPES.guess_type(path.name)[0] or _UNKNOWN


def weight(row: Mapping[str, Value]) -> tuple[int, int, int]:
    """About how many bytes of JSON a row is, how many of files, and how many files, small ones too."""
    text = files = media = 0
    cells = [
        (column, part)
        for column, value in row.items()
        for part in (value if isinstance(value, list) else [value])
    ]
    for column, value in cells:
        text += len(column) + 8
        media += isinstance(value, (bytes, bytearray, PathLike))
        if isinstance(value, str):
            text += len(value.encode("utf-8", "replace"))
        elif isinstance(value, (bytes, bytearray)):
            files += len(value)
        elif isinstance(value, PathLike):
            path = Path(value)
            files += path.stat().st_size if path.is_file() else 0
        elif value is not None:
            text += len(json.dumps(value))
    return text, files, media


def _data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _too_many(where: str, why: str) -> LocalFileError:
    hint = 'Give fewer at once, or upload them and name each by its id: {"file_id": "file-…"}.'
    return LocalFileError(f"{where}: {why}.", hint=hint)


def _wrong(value: object) -> str:
    if isinstance(value, Mapping):
        return 'a mapping must be {"file_id": "file-…"} or {"text": "…"}'
    kinds = (
        "text, a number, True or False, a pathlib.Path, bytes, {'file_id': …}, None, or a plain list of such"
    )
    return f"a value is {kinds}, not {type(value).__name__}"
