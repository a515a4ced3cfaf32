"""Sounds through an image encoder: the log-mel spectrogram as a picture. Knows no column and no file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from domain.towers import Tower
from engine.data.lengths import DEFAULT_MAX_SECONDS
from engine.models import image
from engine.models.parts import Parts
from engine.models.pretrained import open_processor

#: Speech recognition's usual frames: 25 ms every 10 ms.
RATE, FRAME, HOP, MELS = 16_000, 400, 160, 128
#: What is softer than the loudest by more is as black as silence.
RANGE_DB = 80.0
#: Raised when the pictures change.
VERSION = 1
#: Among a tower's options: its sounds are drawn.
OPTION = "spectrogram"

_FILTERS = mel_filter_bank(FRAME // 2 + 1, MELS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
_WINDOW = window_function(FRAME, "hann")


def open_parts(folder: Path, tower: Tower) -> Parts:
    """The image encoder in `folder`, whose inputs are sounds of `max_seconds`: longer ones are cut, behind shorter ones is
    silence, so that a second is as wide in each picture."""
    pictures = image.open_parts(folder, tower)
    processor = open_processor(AutoImageProcessor, folder, backend="pil")
    side, seconds = tower.image_size or _side(processor), tower.max_seconds or DEFAULT_MAX_SECONDS

    def prepare(sounds: Sequence[np.ndarray]) -> Mapping[str, Tensor]:
        drawn = [picture(sound, seconds, side) for sound in sounds]
        # They have the size already, and what a crop cuts off would be the lowest, the highest, and the ends.
        exact = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_last"}
        return {"pixel_values": processor(images=drawn, return_tensors="pt", **exact)["pixel_values"]}

    options = {**pictures.options, "max_seconds": seconds, OPTION: VERSION}
    silence = np.zeros(RATE, dtype=np.float32)
    return replace(
        pictures,
        prepare=prepare,
        options=options,
        example=silence,
        sampling_rate=RATE,
        max_seconds=seconds,
        frame_size=None,
    )


def picture(sound: NDArray[np.float32], seconds: float, side: int) -> NDArray[np.uint8]:
    """[samples] -> [side, side, 3], three channels alike: time goes right, pitch goes up, the loudest is white."""
    whole = np.zeros(max(round(seconds * RATE), FRAME), dtype=np.float64)
    heard = sound[: len(whole)]
    whole[: len(heard)] = heard
    powers = spectrogram(whole, _WINDOW, FRAME, HOP, power=2.0, mel_filters=_FILTERS, mel_floor=1e-10)
    decibels = 10 * np.log10(powers)
    # Of silence nothing is louder than the floor, and all of it is black.
    loudest = max(decibels.max(), -100.0 + RANGE_DB)
    grey = np.clip(255 * (1 + (decibels - loudest) / RANGE_DB), 0, 255).astype(np.uint8)
    drawn = Image.fromarray(grey[::-1]).resize((side, side), Image.Resampling.BILINEAR)
    return np.repeat(np.asarray(drawn)[:, :, None], 3, axis=2)


def _side(processor: Any) -> int:
    """What the network reads: what is cut out, or else what is resized to."""
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    return int(size.height or size.shortest_edge)
