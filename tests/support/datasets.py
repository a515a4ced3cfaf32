"""Small data sets made on the spot, out of real pictures and sounds."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageDraw

_COLOURS = ((220, 40, 40), (40, 200, 60), (50, 70, 230), (230, 200, 40), (200, 60, 210), (40, 200, 210))
_COLOUR_WORDS = ("red", "green", "blue", "yellow", "purple", "turquoise")
_RATE = 16_000


def tiny_av(
    folder: Path, *, rows: int = 48, classes: int = 3, seed: int = 0, missing: float = 0.0, px: int = 32
) -> Path:
    """`tiny.zip`: image, audio (0.5 s at 16 kHz), text, label and split. Each column alone tells the class.

    `missing` is the share of rows that lack one of the three. Of five rows of a class, three train, one
    validates and one tests. The same arguments give the same bytes.
    """
    rng = np.random.default_rng(seed)
    lines, media = [], {}
    for n in range(rows):
        kind = n % classes
        row: dict[str, Any] = {
            "id": f"r{n}",
            "image_file_name": f"images/{n}.png",
            "audio_file_name": f"sounds/{n}.wav",
            "text": f"a {_COLOUR_WORDS[kind % 6]} shape with {3 + kind} corners, take {n}",
            "label": f"class-{kind}",
            "split": ("train", "train", "validation", "train", "test")[n // classes % 5],
        }
        media[row["image_file_name"]] = png(shape(kind, px, rng))
        media[row["audio_file_name"]] = wav(tone(kind, rng))
        if rng.random() < missing:
            dropped = ("image_file_name", "audio_file_name", "text")[int(rng.integers(3))]
            media.pop(row[dropped], None)
            row[dropped] = None
        lines.append(row)
    return zip_of(folder / "tiny.zip", lines, media)


def zip_of(path: Path, rows: Sequence[Mapping[str, Any] | str], media: Mapping[str, bytes]) -> Path:
    """A zip of `media` and a metadata.jsonl; a row that is a string is written as it stands."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(zipfile.ZipInfo("metadata.jsonl"), "".join(line + "\n" for line in lines))
        for name, data in media.items():
            out.writestr(zipfile.ZipInfo(name), data)
    return path


def shape(kind: int, px: int, rng: np.random.Generator) -> np.ndarray:
    """A polygon of `kind` + 3 corners in the class's colour, somewhere near the middle, on noise."""
    picture = Image.fromarray(rng.integers(0, 60, (px, px, 3), dtype=np.uint8))
    x, y = (int(rng.integers(px * 2 // 5, px * 3 // 5)) for _ in range(2))
    circle, turn = (x, y, px // 3), int(rng.integers(360))
    ImageDraw.Draw(picture).regular_polygon(circle, kind + 3, turn, fill=_COLOURS[kind % 6])
    return np.asarray(picture)


def tone(kind: int, rng: np.random.Generator, seconds: float = 0.5) -> np.ndarray:
    """A tone of the class's pitch with some noise."""
    time = np.arange(int(seconds * _RATE)) / _RATE
    pitch = 220.0 * 1.6**kind
    return 0.5 * np.sin(2 * np.pi * (pitch * time + rng.random())) + 0.05 * rng.standard_normal(len(time))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def wav(samples: np.ndarray, rate: int = _RATE, format: str = "WAV") -> bytes:
    """`samples` are [samples] or [samples, channels] in -1..1."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.astype(np.float32), rate, format=format)
    return buffer.getvalue()
