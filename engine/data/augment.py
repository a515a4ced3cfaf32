"""Random changes of decoded values, for training: of seed, epoch, row and part alone, whichever thread makes them.

Nothing is changed in place: what a cache holds stays as it is. Loads no torch.
"""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.manifest import ColumnType

#: By name: how much of it. `domain.augment` says what the names are, and which a type has.
Amounts = Mapping[str, float]
#: The row's number, the part's number in its cell, and its value -> another value of the same type.
Change = Callable[[int, int, Any], Any]

#: Of a crop's sides, over those of the picture: as torchvision's RandomResizedCrop has it.
_RATIOS = (3 / 4, 4 / 3)
#: Decibels: noise is `noise` to `noise` + this softer than the sound.
_NOISE_RANGE = 20.0
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def change_of(column: str, kind: ColumnType, amounts: Amounts, seed: int, epoch: int) -> Change:
    """What is done to the values of `column`, of type `kind`, in this epoch."""
    return partial(_changed, _CHANGES[kind], amounts, (seed, epoch, zlib.crc32(column.encode())))


def _changed(
    change: Callable[..., Any], amounts: Amounts, of: tuple[int, ...], row: int, part: int, value: Any
) -> Any:
    return change(value, amounts, np.random.default_rng([*of, row, part]))


def seen(pixels: NDArray[np.uint8], amounts: Amounts, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture [height, width, 3], or a film [frames, height, width, 3], whose frames are all changed alike."""
    if (least := amounts.get("crop")) is not None:
        pixels = _cropped(pixels, least, rng)
    if rng.random() < amounts.get("flip", 0.0):
        pixels = pixels[..., ::-1, :]
    if most := amounts.get("colour"):
        pixels = _coloured(pixels, *(1 + rng.uniform(-most, most, 3)))
    return np.ascontiguousarray(pixels)


def _cropped(pixels: NDArray[np.uint8], least: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    area, ratio = rng.uniform(least, 1), np.exp(rng.uniform(*np.log(_RATIOS)))
    height, width = pixels.shape[-3:-1]
    rows = max(1, min(height, round(height * float(np.sqrt(area / ratio)))))
    columns = max(1, min(width, round(width * float(np.sqrt(area * ratio)))))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    return pixels[..., top : top + rows, left : left + columns, :]


def _coloured(
    pixels: NDArray[np.uint8], brightness: float, contrast: float, saturation: float
) -> NDArray[np.uint8]:
    x = pixels.astype(np.float32) * np.float32(brightness)
    grey = (x @ _GREY)[..., None]
    x = grey + (x - grey) * np.float32(saturation)
    mean = grey.mean()
    x = mean + (x - mean) * np.float32(contrast)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def heard(samples: NDArray[np.float32], amounts: Amounts, rng: np.random.Generator) -> NDArray[np.float32]:
    """A sound [samples]."""
    if most := amounts.get("shift"):
        samples = _shifted(samples, int(rng.uniform(-most, most) * len(samples)))
    if most := amounts.get("gain"):
        samples = samples * np.float32(10 ** (rng.uniform(-most, most) / 20))
    if (softer := amounts.get("noise")) is not None:
        power = float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0
        deviation = np.sqrt(power) * 10 ** (-(softer + rng.uniform(0, _NOISE_RANGE)) / 20)
        samples = samples + rng.standard_normal(len(samples), dtype=np.float32) * np.float32(deviation)
    return samples


def _shifted(samples: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    moved = np.zeros_like(samples)
    if by >= 0:
        moved[by:] = samples[: len(samples) - by]
    else:
        moved[:by] = samples[-by:]
    return moved


def said(text: str, amounts: Amounts, rng: np.random.Generator) -> str:
    """Some words are left out, as in EDA (Wei and Zou 2019, arXiv:1901.11196); one stays."""
    words = text.split()
    stays = rng.random(len(words)) >= amounts.get("drop", 0.0)
    if not words or stays.all():
        return text
    kept = [word for word, stay in zip(words, stays, strict=True) if stay]
    return " ".join(kept or [words[int(rng.integers(len(words)))]])


_CHANGES: dict[ColumnType, Callable[..., Any]] = {
    ColumnType.TEXT: said,
    ColumnType.IMAGE: seen,
    ColumnType.AUDIO: heard,
    ColumnType.VIDEO: seen,
}
