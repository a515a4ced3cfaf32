"""A tiny data set that can be learned: coloured pictures, tones and words, one class each."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

_WORDS = ("low", "middle", "high", "higher", "highest", "top")


def tiny_av(
    folder: Path, *, rows: int = 48, classes: int = 3, seed: int = 0, missing: float = 0.0, px: int = 32
) -> Path:
    """Writes `tiny.zip` with columns image, audio (0.5 s at 16 kHz), text and label, in three splits."""
    rng = np.random.default_rng(seed)
    target = folder / "tiny.zip"
    lines = []
    with zipfile.ZipFile(target, "w") as out:
        for n in range(rows):
            kind = n % classes
            row = {
                "id": f"r{n}",
                "image_file_name": f"images/{n}.png",
                "audio_file_name": f"sounds/{n}.wav",
                "text": f"a {_WORDS[kind]} tone, number {n}",
                "label": f"class-{kind}",
                "split": "test" if n % 8 == 7 else "validation" if n % 8 == 6 else "train",
            }
            dropped = ["image_file_name", "audio_file_name"][int(rng.integers(2))]
            if rng.random() < missing:
                row[dropped] = None
            if row["image_file_name"]:
                out.writestr(row["image_file_name"], _picture(kind, px, rng))
            if row["audio_file_name"]:
                out.writestr(row["audio_file_name"], _tone(kind, rng))
            lines.append(json.dumps(row))
        out.writestr("metadata.jsonl", "\n".join(lines) + "\n")
    return target


def _picture(kind: int, px: int, rng: np.random.Generator) -> bytes:
    pixels = rng.integers(0, 80, (px, px, 3))
    pixels[..., kind % 3] += 150
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _tone(kind: int, rng: np.random.Generator) -> bytes:
    time = np.arange(8000) / 16000
    sound = 0.5 * np.sin(2 * np.pi * 220 * 2**kind * time) + 0.05 * rng.standard_normal(8000)
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.astype(np.float32), 16000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
