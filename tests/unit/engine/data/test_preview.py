"""The first rows of a data set as a page can show them."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from domain.manifest import Schema
from engine.data.manifest import open_dataset
from engine.data.preview import preview
from support.datasets import png, wav, zip_of


def previewed(
    folder: Path, rows: Sequence[dict[str, Any] | str], media: dict[str, bytes], **schema: Any
) -> list[Any]:
    path = zip_of(folder / "a.zip", rows, media)
    with open_dataset(path, schema=Schema.model_validate(schema)) as dataset:
        shown = preview(dataset)
    # It is what a file of JSON can hold.
    return json.loads(json.dumps(shown, allow_nan=False))  # type: ignore[no-any-return]


def test_every_type_of_cell_is_shown_as_what_it_is(tmp_path: Path) -> None:
    media = {"1.png": png(np.full((300, 600, 3), 200, np.uint8)), "1.wav": wav(np.linspace(0, 1, 16_000))}
    row = {"id": "r", "image_file_name": "1.png", "audio_file_name": "1.wav", "text": "x" * 600, "price": 1.5}

    (shown,) = previewed(tmp_path, [{**row, "open": True, "label": "a", "split": "dev"}], media)

    assert (shown["line"], shown["id"], shown["label"], shown["split"]) == (1, "r", "a", "validation")
    cells = shown["cells"]
    picture = Image.open(io.BytesIO(base64.b64decode(cells["image"]["thumbnail"].partition(",")[2])))
    assert (cells["image"]["width"], cells["image"]["height"], picture.size) == (600, 300, (128, 64))
    assert np.abs(np.asarray(picture, dtype=int) - 200).max() < 10
    assert cells["audio"]["seconds"] == 1.0
    waveform = cells["audio"]["waveform"]
    assert len(waveform) == 100
    assert np.allclose(waveform, np.linspace(0.01, 1, 100), atol=0.03)
    assert cells["text"] == {"type": "text", "text": "x" * 500, "characters": 600}
    assert cells["price"] == {"type": "number", "value": 1.5}
    assert cells["open"] == {"type": "category", "value": "true"}


def test_what_is_missing_is_null_and_what_is_broken_says_why(tmp_path: Path) -> None:
    rows = [
        {"image_file_name": None, "label": "a"},
        {"image_file_name": "1.png"},
        {"image_file_name": "2.png"},
    ]

    first, second, third = previewed(tmp_path, rows, {"1.png": b"no picture"})

    assert first["cells"]["image"] is None
    assert second["cells"]["image"]["error"]["code"] == "unreadable_media"
    assert third["cells"]["image"]["error"]["code"] == "missing_media"


def test_no_more_than_the_first_rows_are_shown(tmp_path: Path) -> None:
    shown = previewed(tmp_path, [{"text": f"row {n}"} for n in range(30)], {})

    assert [row["cells"]["text"]["text"] for row in shown] == [f"row {n}" for n in range(10)]


def test_a_picture_in_the_table_is_shown_without_its_bytes_in_the_name(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(png(np.zeros((4, 4, 3), np.uint8))).decode()

    (shown,) = previewed(tmp_path, [{"photo": url}], {})

    assert shown["cells"]["photo"]["name"] == "data:image/png;base64,…"


def test_long_words_are_cut_and_numbers_are_those_of_json(tmp_path: Path) -> None:
    rows = [{"id": "i" * 9999, "text": "a", "label": 1e999}, {"text": "b", "label": ["l" * 9999] * 99}]

    first, second = previewed(tmp_path, [json.dumps(row).replace("Infinity", "1e999") for row in rows], {})

    assert (len(first["id"]), first["label"]) == (500, None)
    assert (len(second["label"]), len(second["label"][0])) == (50, 500)
