"""One row's cells: which are there, which are missing, which cannot be used. Knows no network."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageOps

from domain.manifest import Code, ColumnType
from engine.data.infer import as_number, is_missing
from engine.data.probe import Undecodable
from engine.data.rows import category_name
from engine.data.values import Read, Reading
from engine.infer.answers import Problem

#: Encoders cut long before; a tokenizer takes seconds for a book.
MAX_TEXT_BYTES = 2**20

_WANTED = {
    ColumnType.TEXT: "a text",
    ColumnType.IMAGE: "a picture's bytes (over HTTP: a file_id or a data: URL)",
    ColumnType.AUDIO: "a sound's bytes (over HTTP: a file_id or a data: URL)",
    ColumnType.VIDEO: "a film's bytes (over HTTP: a file_id or a data: URL)",
    ColumnType.NUMBER: "a finite number",
    ColumnType.CATEGORY: "a word, a whole number, true or false",
}
#: What PNG holds without loss; other pictures are brought to RGB first.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass
class Cells:
    """One row, sorted by what the model reads; what is found unusable later is noted in `failed`."""

    values: dict[str, Any]
    missing: list[str]
    failed: dict[str, Problem] = field(default_factory=dict)
    unknown: Problem | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def used(self) -> list[str]:
        return sorted(name for name in self.values if name not in self.failed)

    def error(self, *, masks: bool) -> Problem | None:
        """Why the row gets no prediction: `masks` says that failed cells are passed over."""
        if self.unknown is not None:
            return self.unknown
        if self.failed and not masks:
            return self.failed[min(self.failed)]
        if not self.used:
            message = f"the row has none of the model's columns; give at least one of: {self._columns()}"
            return Problem(Code.ALL_MODALITIES_MISSING, message)
        return None

    def _columns(self) -> str:
        return ", ".join(sorted([*self.values, *self.missing]))


def sort_out(row: Mapping[str, Any], towers: Mapping[str, int], ignored: frozenset[str]) -> Cells:
    """`towers` are the columns that the model reads, and how many files a cell of each may have; `ignored` are columns
    of the training data that it does not read (its label, say).
    """
    given = {name: row[name] for name in towers if not _is_missing(row.get(name))}
    cells = Cells(given, [name for name in towers if name not in given])
    flaws = {
        name: _flaw_of_list(value, towers[name]) for name, value in given.items() if isinstance(value, list)
    }
    for name in row:
        if name in ignored:
            cells.warnings.append(f"column '{name}' is not read by this model")
        elif name not in towers and cells.unknown is None:
            message = f"the model has no column '{name[:100]}'; its columns are: {', '.join(towers)}"
            cells.unknown = Problem("unknown_column", message, name)
    cells.failed = {
        name: Problem(value.code, value.message, name)
        for name, value in given.items()
        if isinstance(value, Problem)
    }
    cells.failed |= {name: Problem(*flaw, name) for name, flaw in flaws.items() if flaw}
    return cells


def _flaw_of_list(parts: list[Any], most: int) -> tuple[str, str] | None:
    """What is wrong with several files in one cell, beside what is wrong with one of them."""
    if len(parts) > most:
        return (
            Code.TOO_LARGE,
            f"the list has {len(parts)} files, at most {most} are read; leave some out",
        )
    if any(isinstance(part, list) or _is_missing(part) for part in parts):
        return Code.SCHEMA_MISMATCH, "a list holds files or texts: no null, no empty text, no other list"
    return next(((part.code, part.message) for part in parts if isinstance(part, Problem)), None)


def with_sounds(
    row: Mapping[str, Any],
    towers: Sequence[str],
    sounds: Mapping[str, str],
    is_silent: Callable[[bytes], bool],
) -> dict[str, Any]:
    """`row` with the sound of its films: a film is given once. What the row itself says of a sound counts.

    `sounds` are the model's columns of sounds and the columns of films that they belong to. A film without a sound track
    has no sound; one that is only heard is no column of its own.
    """
    given = dict(row)
    for sound, film in sounds.items():
        if film in row and sound not in row:
            given[sound] = _heard(row[film], is_silent)
    return {name: value for name, value in given.items() if name in towers or name not in sounds.values()}


def _heard(film: Any, is_silent: Callable[[bytes], bool]) -> Any:
    """What has a sound track, of one film or several; None if nothing has."""
    if isinstance(film, list):
        return [part for part in film if not _is_silent(part, is_silent)]
    return None if _is_silent(film, is_silent) else film


def _is_silent(film: Any, is_silent: Callable[[bytes], bool]) -> bool:
    """A cell that cannot be read is not: reading it says why."""
    if _is_missing(film) or isinstance(film, Problem):
        return False
    try:
        return is_silent(_bytes(film, ColumnType.VIDEO))
    except Undecodable:
        return False


def _is_missing(value: Any) -> bool:
    """As in training data. An array is never compared: that would compare its elements."""
    return (isinstance(value, str | None) and is_missing(value)) or (isinstance(value, list) and not value)


def read_cell(value: Any, reading: Reading, read: Read) -> Any:
    """What the cell means to an encoder. Raises Undecodable."""
    if reading.kind is ColumnType.NUMBER:
        return _number(value)
    if reading.kind is ColumnType.CATEGORY:
        return category(value)
    data = _bytes(value, reading.kind)
    if reading.kind is ColumnType.TEXT and len(data) > MAX_TEXT_BYTES:
        raise Undecodable(Code.TOO_LARGE, f"the text has more than {MAX_TEXT_BYTES} bytes; shorten it")
    try:
        return read(data, reading)
    except UnicodeDecodeError as error:
        raise Undecodable(Code.ENCODING_ERROR, f"the text is not UTF-8 ({error}); convert it") from error


def _number(value: Any) -> float:
    """A number, or a text that writes one: on a command line and in CSV every cell is a text."""
    number = as_number(value.item() if isinstance(value, np.number) else value)
    if number is None:
        raise _mismatch(ColumnType.NUMBER)
    return number


def category(value: Any) -> str:
    """The word that training data would have there. Raises Undecodable."""
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, str | int):
        raise _mismatch(ColumnType.CATEGORY)
    return category_name(plain)


def _mismatch(kind: ColumnType) -> Undecodable:
    return Undecodable(Code.SCHEMA_MISMATCH, f"this column takes {_WANTED[kind]}, or null if it is missing")


def _bytes(value: Any, kind: ColumnType) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str) and kind is ColumnType.TEXT:
        return _encoded(value)
    if isinstance(value, Path):
        return _file(value)
    if isinstance(value, Image.Image | np.ndarray) and kind is ColumnType.IMAGE:
        return _picture(value)
    if isinstance(value, tuple) and len(value) == 2 and kind is ColumnType.AUDIO:
        return _sound(*value)
    raise _mismatch(kind)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        message = "the text holds half of a surrogate pair, which is no character; mend or remove it"
        raise Undecodable(Code.ENCODING_ERROR, message) from error


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise Undecodable(Code.MISSING_MEDIA, f"the file cannot be read ({why}); send it again") from error


def _picture(value: Any) -> bytes:
    """A picture in memory as PNG, without loss: it is then read, and limited, like any other."""
    buffer = io.BytesIO()
    try:
        picture = value if isinstance(value, Image.Image) else Image.fromarray(value)
        upright = ImageOps.exif_transpose(picture)
        kept = upright if upright.mode in _PNG_MODES else upright.convert("RGB")
        kept.save(buffer, "PNG", compress_level=0)
    except (OSError, ValueError, TypeError) as error:
        message = f"this is not a picture: {error}; give a PIL image or [height, width, 3] of uint8"
        raise Undecodable(Code.UNREADABLE_MEDIA, message) from error
    return buffer.getvalue()


def _sound(samples: Any, rate: Any) -> bytes:
    """Samples [samples] or [samples, channels] in -1..1 as a WAV file of floats, without loss."""
    buffer = io.BytesIO()
    try:
        data = np.asarray(samples, dtype=np.float32)
        soundfile.write(buffer, data, int(rate), format="WAV", subtype="FLOAT")
    except (soundfile.SoundFileError, ValueError, TypeError, OverflowError) as error:
        message = f"this is not a sound: {error}; give (samples, sampling rate)"
        raise Undecodable(Code.UNREADABLE_MEDIA, message) from error
    return buffer.getvalue()
