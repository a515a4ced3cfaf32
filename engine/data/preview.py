"""The first rows of a data set as a page can show them: small pictures, the outline of sounds. Loads no torch."""

import base64
import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from domain.manifest import ColumnType
from engine.data import decode
from engine.data.decode import Undecodable
from engine.data.manifest import Dataset, MediaRef, Row, Unreadable, Value
from engine.data.references import shown

ROWS = 10
#: Of a text; a page needs no more to tell rows apart.
_CHARACTERS = 500
#: The longer side of a small picture, in pixels, and its quality as WebP.
_SIDE, _QUALITY = 128, 70
#: How finely a sound's outline is drawn, and how much of the sound is looked at.
_PEAKS, _SECONDS, _RATE = 100, 60.0, 8000


def preview(dataset: Dataset, rows: int = ROWS) -> list[dict[str, Any]]:
    """`{line, id, label, split, cells}` of each of the first rows.

    A cell is None where nothing is; else `{type, ...}` with `text`, `value`, a picture's `width`, `height` and
    `thumbnail` (a `data:` URL), a sound's `seconds` (of at most 60) and `waveform` (100 peaks, 0 to 1), or the
    `error` that it cannot be read for.
    """
    return [_shown(dataset, row) for row in islice(dataset.rows, rows)]


def _shown(dataset: Dataset, row: Row) -> dict[str, Any]:
    cells = {
        name: _cell(dataset, value, dataset.schema.columns[name].type) for name, value in row.values.items()
    }
    return {"line": row.line, "id": row.id, "label": row.label, "split": row.split, "cells": cells}


def _cell(dataset: Dataset, value: Value, kind: ColumnType) -> dict[str, Any] | None:
    if value is None:
        return None
    told: dict[str, Any] = {"type": str(kind)}
    if isinstance(value, MediaRef):
        return told | {"name": shown(value.name)} | _media(dataset, value, kind)
    if kind is ColumnType.TEXT:
        return told | {"text": str(value)[:_CHARACTERS], "characters": len(str(value))}
    return told | {"value": value}


def _media(dataset: Dataset, ref: MediaRef, kind: ColumnType) -> dict[str, Any]:
    try:
        data = dataset.read(ref)
        return _picture(data) if kind is ColumnType.IMAGE else _sound(data)
    except (Unreadable, Undecodable) as error:
        return {"error": {"code": str(error.code), "message": error.message}}


def _picture(data: bytes) -> dict[str, Any]:
    picture = Image.fromarray(decode.image(data))
    width, height = picture.size
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    url = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"width": width, "height": height, "thumbnail": url}


def _sound(data: bytes) -> dict[str, Any]:
    samples = decode.audio(data, sampling_rate=_RATE, max_seconds=_SECONDS)
    return {"seconds": round(len(samples) / _RATE, 3), "waveform": list(_peaks(np.abs(samples)))}


def _peaks(loudness: Any) -> Iterator[float]:
    for part in np.array_split(loudness, min(_PEAKS, len(loudness))):
        yield round(float(min(part.max(), 1.0)), 3)
