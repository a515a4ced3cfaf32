"""The first rows of a data set as a page can show them: small pictures, the outline of sounds. Loads no torch."""

import base64
import io
import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domain.manifest import ColumnType
from engine.data.limits import Undecodable
from engine.data.manifest import Dataset, MediaRef, Row, Several, Unreadable, Value
from engine.data.media import Media
from engine.data.references import shown
from engine.data.silence import silenced
from engine.data.values import Reading

ROWS = 10
#: Of a text, an id, a label; a page needs no more to tell rows apart.
_CHARACTERS = 500
#: Columns of a row, and labels of a cell.
_COLUMNS, _LABELS = 20, 50
#: The longer side of a small picture, in pixels, and its quality as WebP.
_SIDE, _QUALITY = 128, 70
#: How finely a sound's outline is drawn, and how much of the sound is looked at.
_PEAKS, _SECONDS, _RATE = 100, 60.0, 8000


def preview(
    dataset: Dataset,
    rows: int = ROWS,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """`{line, id, label, split, cells}` of each of the first rows.

    A cell is None where nothing is; else `{type, ...}` with `text`, `value`, a picture's `width`, `height` and
    `thumbnail` (a `data:` URL), a sound's `seconds` (of at most 60) and `waveform` (100 peaks, 0 to 1), a film's
    `seconds`, `frames`, `has_audio` and a picture's three, or the `error` that it cannot be read for. A cell of several
    files shows the first and says with `files` how many there are, one of several texts with `texts`.
    """
    return [_shown(dataset, row) for row in islice(dataset.rows, rows) if not should_stop()]


def _shown(dataset: Dataset, row: Row) -> dict[str, Any]:
    columns = dataset.schema.columns
    row = silenced(dataset, row, columns)
    some = islice(row.values.items(), _COLUMNS)
    cells = {name: _cell(dataset, value, columns[name].type) for name, value in some}
    told = {"line": row.line, "id": _brief(row.id), "label": _brief(row.label), "split": row.split}
    return {**told, "cells": cells}


def _brief(value: Any) -> Any:
    """Short enough for a page, and a number that JSON knows."""
    if isinstance(value, tuple):
        return [_brief(word) for word in value[:_LABELS]]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value[:_CHARACTERS] if isinstance(value, str) else value


def _cell(dataset: Dataset, value: Value, kind: ColumnType) -> dict[str, Any] | None:
    if value is None:
        return None
    told: dict[str, Any] = {"type": str(kind)}
    if isinstance(value, Several):
        told["texts" if kind is ColumnType.TEXT else "files"] = len(value.parts)
        value = value.parts[0]
    if isinstance(value, MediaRef):
        return told | {"name": shown(value.name)} | _media(dataset, value, kind)
    if kind is ColumnType.TEXT:
        return told | {"text": str(value)[:_CHARACTERS], "characters": len(str(value))}
    return told | {"value": _brief(value)}


def _media(dataset: Dataset, ref: MediaRef, kind: ColumnType) -> dict[str, Any]:
    try:
        data = dataset.read(ref)
        return _SHOWN[kind](data, dataset.media)
    except (Unreadable, Undecodable) as error:
        return {"error": {"code": str(error.code), "message": error.message}}


def _picture(data: bytes, media: Media) -> dict[str, Any]:
    pixels = media.read(data, Reading(ColumnType.IMAGE))
    return {"width": pixels.shape[1], "height": pixels.shape[0], "thumbnail": _small(pixels)}


def _film(data: bytes, media: Media) -> dict[str, Any]:
    """The frame in the middle stands for it: many films begin with a black one."""
    film = media.probe(data, ColumnType.VIDEO, None)
    (frame, *_) = media.read(data, Reading(ColumnType.VIDEO, num_frames=1, frame_size=_SIDE))
    told = {"width": film.width, "height": film.height, "seconds": round(film.seconds or 0.0, 3)}
    return {**told, "frames": film.frames, "has_audio": film.has_audio, "thumbnail": _small(frame)}


def _small(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _sound(data: bytes, media: Media) -> dict[str, Any]:
    samples = media.read(data, Reading(ColumnType.AUDIO, sampling_rate=_RATE, max_seconds=_SECONDS))
    return {"seconds": round(len(samples) / _RATE, 3), "waveform": list(_peaks(np.abs(samples)))}


def _peaks(loudness: Any) -> Iterator[float]:
    for part in np.array_split(loudness, min(_PEAKS, len(loudness))):
        yield round(float(min(part.max(), 1.0)), 3)


_SHOWN = {ColumnType.IMAGE: _picture, ColumnType.AUDIO: _sound, ColumnType.VIDEO: _film}
