"""What a request for predictions carries: a JSON body or a form, and its cells as the job's row will keep them."""

import re
import shutil
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryDirectory
from typing import Any

from flask import current_app, request

from api import requests
from api.parts import Held, Media, Part, read_parts
from db.blobs import Blobs, part_key
from db.tables import File
from domain import predictions
from domain.errors import BadRequest, InvalidSpec, TooLarge
from domain.predictions import FileRef, Flaw, Predict, Row
from domain.shapes import parse

#: Most bytes of a JSON body: media stand in it as data: URLs.
JSON_LIMIT = 64 * 1024 * 1024
#: A large body may hold media, but no millions of values: those cost many times their bytes.
_MOST_VALUES = 1_000_000
#: All media columns of all rows, and the options.
_MOST_PARTS = 1024 + 16
#: Characters of all texts together.
_TEXTS = 8 * 1024 * 1024
_CELL = re.compile(r"(.+?)(?:\[(\d{1,4})\](?:\[(\d{1,2})\])?)?", re.DOTALL)
_PLAIN_OPTIONS = ("model", "on_bad_input")

#: Large bodies are taken to pieces one after the other: each needs several times its size.
_large = threading.Lock()


@contextmanager
def received(max_bytes: int) -> Iterator[Predict]:
    """The request's body. What its cells hold may lie on the disk until the block ends."""
    if request.mimetype == "multipart/form-data":
        request.max_content_length = max_bytes + requests.JSON_LIMIT
        with TemporaryDirectory(dir=current_app.config["SPOOL"], prefix=".form-") as folder:
            yield parse(Predict, _form(Path(folder)))
    else:
        requests.refuse_other_types()
        request.max_content_length = JSON_LIMIT
        with SpooledTemporaryFile(requests.JSON_LIMIT, dir=current_app.config["SPOOL"]) as spool:
            shutil.copyfileobj(request.stream, spool, 1024 * 1024)
            is_large = spool.tell() > requests.JSON_LIMIT
            spool.seek(0)
            with _large if is_large else nullcontext():
                yield parse(Predict, _json(spool.read(), is_large))


def _json(data: bytes, is_large: bool) -> dict[str, Any]:
    if is_large and sum(data.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise TooLarge(f"The body is no media but more than {_MOST_VALUES} values; send fewer rows.")
    return requests.json_object(data)


def _form(folder: Path) -> dict[str, Any]:
    """The form as the JSON body that it stands for; the value of a file part is a Part."""
    body: dict[str, Any] = {}
    cells: list[Part] = []
    limits = {"memory": predictions.ROW_BYTES, "each": predictions.INLINE_BYTES}
    for part in read_parts(folder, most=_MOST_PARTS, **limits):
        if part.name == "json":
            told = requests.json_object(part.text(requests.JSON_LIMIT).encode())
        elif part.name in Predict.model_fields and not part.is_file:
            told = {part.name: _option(part)}
        else:
            told = {}
            cells.append(part)
        if twice := body.keys() & told.keys():
            raise _sent_twice(min(twice))
        body |= told
    rows = body.setdefault("inputs", [])
    # Rows that are none are the shape's to refuse.
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        for part in cells:
            _place(rows, part)
    return body


def _option(part: Part) -> Any:
    text = part.text(requests.JSON_LIMIT)
    return text if part.name in _PLAIN_OPTIONS else requests.read_json(text.encode(), param=part.name)


def _place(rows: list[dict[str, Any]], part: Part) -> None:
    """`image` belongs to the first row, `image[3]` to the fourth; `image[3][1]` is the second file of that cell."""
    match = _CELL.fullmatch(part.name or "")
    if match is None:
        raise BadRequest("A part of the form has no name; name it after its column.", code="invalid_form")
    column, number = match[1], int(match[2] or 0)
    if number >= predictions.MOST_ROWS:
        message = f"the rows of a request are numbered from 0 to {predictions.MOST_ROWS - 1}"
        raise InvalidSpec([{"path": part.name[:200], "code": "too_long", "message": message}])
    rows.extend({} for _ in range(number + 1 - len(rows)))
    row, value = rows[number], part if part.is_file else part.text(requests.JSON_LIMIT)
    path = f"inputs.{number}.{column[:200]}"
    if match[3] is None:
        if row.get(column) is not None:
            raise _sent_twice(path)
        row[column] = value
    else:
        _place_among(row, column, int(match[3]), value, path)


def _place_among(row: dict[str, Any], column: str, place: int, value: Any, path: str) -> None:
    """Into a list, whose other files may stand in the JSON; null keeps a place free."""
    cells = [] if row.get(column) is None else row[column]
    if not isinstance(cells, list) or (place < len(cells) and cells[place] is not None):
        raise _sent_twice(f"{path}.{place}")
    cells.extend(None for _ in range(place + 1 - len(cells)))
    cells[place] = value
    row[column] = cells


def _sent_twice(path: str) -> InvalidSpec:
    return InvalidSpec([{"path": path, "code": "sent_twice", "message": "was sent twice; send it once"}])


class Intake:
    """Turns rows into what the job's row keeps of them: small media inside, large ones in the blob store."""

    def __init__(self, blobs: Blobs, owner: str, files: Mapping[str, File]) -> None:
        self._blobs, self._owner, self._files = blobs, owner, files
        self._room, self._texts = predictions.ROW_BYTES, _TEXTS
        self._stored: dict[str, dict[str, Any]] = {}

    def row(self, number: int, row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
        """The row as it is kept, and as it tells equal requests from others: media by their hash."""
        kept: dict[str, Any] = {"id": row.id or str(number), "values": {}, "problems": {}}
        told = {}
        for column, value in row.cells.items():
            found, told[column] = self._several(value) if isinstance(value, list) else self._one(value)
            if isinstance(found, Flaw):
                kept["problems"][column] = {"code": found.code, "message": found.message}
                found = None
            kept["values"][column] = found
        return kept, {"id": kept["id"], "cells": told}

    def _several(self, values: list[Any]) -> tuple[Any, Any]:
        """An empty list is nothing, as in a data set."""
        found: list[Any] = []
        told = [["media", value.sha256] if isinstance(value, Part) else value for value in values]
        flaw = predictions.flaw_of_list(values)
        for number, value in enumerate([] if flaw else values, start=1):
            kept, told[number - 1] = self._one(value)
            if isinstance(kept, Flaw):
                flaw = flaw or replace(kept, message=f"file {number} of {len(values)}: {kept.message}")
            found.append(kept)
        return flaw or ({"several": found} if found else None), {"several": told}

    def _one(self, value: Any) -> tuple[Any, Any]:
        """A cell as it is kept, and as equal ones are told."""
        cell = value if isinstance(value, Part) else predictions.read_cell(value)
        media = Held(cell) if isinstance(cell, bytes) else cell
        return self._kept(media), ["media", media.sha256] if isinstance(media, Held | Part) else value

    def _kept(self, cell: Media | str | bool | FileRef | Flaw | None) -> Any:
        if isinstance(cell, str):
            self._texts -= len(cell)
            if self._texts < 0:
                raise TooLarge(f"The texts have more than {_TEXTS} characters together; send fewer rows.")
        elif isinstance(cell, FileRef):
            return self._file(cell)
        elif isinstance(cell, Held | Part):
            return self._media(cell)
        return cell

    def _file(self, cell: FileRef) -> dict[str, Any] | Flaw:
        file = self._files.get(cell.id)
        if file is None:
            return predictions.absent(cell.id)
        return {"blob": file.blob, "sha256": file.sha256, "bytes": file.bytes, "file": file.id}

    def _media(self, media: Media) -> dict[str, Any] | Flaw:
        """Equal bytes are stored once, however many rows hold them."""
        if media.bytes == 0:
            return predictions.empty()
        if media.bytes <= min(predictions.INLINE_BYTES, self._room):
            self._room -= media.bytes
            with media.open() as stream:
                return {"inline": b64encode(stream.read()).decode()}
        if media.sha256 not in self._stored:
            key = part_key(self._owner, len(self._stored))
            with media.open() as stream:
                stored = self._blobs.write(key, stream)
            self._stored[stored.sha256] = {"blob": key, **stored._asdict()}
        return self._stored[media.sha256]
