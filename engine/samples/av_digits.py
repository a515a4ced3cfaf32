"""AV-digits: real handwritten digits and synthetic speech, each made hard, so that together they tell more.

Pictures: scikit-learn's 1797 digits (UCI, 8x8), rebuilt from the principal components that hold 80 % of the
variance, plus N(0, .1) noise, drawn at 96 px without smoothing: the squares make them as hard as the sounds.
Sounds: the digit's name by eSpeak NG in one of its voice variants, somewhere within 1 s at 16 kHz, in
low-passed noise 7 dB louder than the speech's own active samples. Groups are the voices: no voice and no
picture is in two splits. What a frozen encoder tells of each is in docs/data.md.
"""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image
from scipy import signal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from engine.samples.building import built
from engine.samples.speech import Word, speak, voices

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PX, RATE = 96, 16_000
PICTURE_VARIANCE, PICTURE_NOISE = 0.8, 0.1
SNR_DB, NOISE_HZ = -7.0, 4000.0
#: A sample of speech counts as active above this part of the word's peak.
ACTIVE = 0.02
#: Of ten voices seven train, one validates and two test.
SPLITS = ("train",) * 7 + ("validation",) + ("test",) * 2
#: Raised when the bytes for a seed change.
VERSION = 2


@dataclass(frozen=True)
class Recipe:
    """All that the bytes depend on; kept beside them as `built.json`."""

    seed: int
    limit: int | None
    version: int = VERSION


def build(
    out: Path, *, seed: int = 0, limit: int | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Writes `out/metadata.jsonl` with its media, and the same as `<out>.zip`; returns the zip's path.

    Seeded: the same seed and limit give the same bytes. A finished set is kept; two builds at once are harmless.
    """
    recipe = Recipe(seed, limit)
    doing = "Building AV-digits: drawing digits and speaking them …"
    return built(
        out, asdict(recipe), partial(_write, seed=seed, limit=limit), progress or (lambda _: None), doing
    )


def _write(out: Path, seed: int, limit: int | None) -> None:
    rng = np.random.default_rng(seed)
    pixels, digits = load_digits(return_X_y=True)
    names = voices()
    order = rng.permutation(len(names))
    split_of = {names[v]: SPLITS[i % len(SPLITS)] for i, v in enumerate(order)}
    spoken_by = deal_voices(digits, len(names), rng)
    drawn = pictures(pixels / 16.0, rng)
    chosen = range(len(digits) if limit is None else min(limit, len(digits)))
    words = [
        Word(
            WORDS[digits[n]],
            "en-us",
            names[spoken_by[n]],
            int(rng.integers(140, 201)),
            int(rng.integers(30, 71)),
        )
        for n in chosen
    ]
    rate, spoken = speak(words)
    for folder in ("images", "sounds"):
        (out / folder).mkdir(parents=True)
    lines = []
    for n, (word, wave) in enumerate(zip(words, spoken, strict=True)):
        image, audio = f"images/{n:04}.png", f"sounds/{n:04}.wav"
        Image.fromarray(drawn[n]).resize((PX, PX), Image.Resampling.NEAREST).save(out / image)
        (out / audio).write_bytes(_wav(noisy(placed(wave, rate, rng), rng)))
        row = {
            "id": f"d{n:04}",
            "image_file_name": image,
            "audio_file_name": audio,
            "label": str(digits[n]),
            "voice": word.voice,
            "split": split_of[word.voice],
        }
        lines.append(json.dumps(row))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def deal_voices(digits: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deals each digit's pictures to the voices in turn, so that every voice says every digit alike often."""
    dealt = np.empty(len(digits), dtype=np.int64)
    for digit in range(10):
        own = rng.permutation(np.flatnonzero(digits == digit))
        dealt[own] = (np.arange(len(own)) + int(rng.integers(count))) % count
    return dealt


def pictures(pixels: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """`[digits, 8, 8]`: what the strongest components leave of each digit, with noise."""
    components = PCA(PICTURE_VARIANCE, random_state=0).fit(pixels)
    rebuilt = components.inverse_transform(components.transform(pixels))
    noisy = np.clip(rebuilt + rng.normal(0, PICTURE_NOISE, pixels.shape), 0, 1)
    return (noisy.reshape(-1, 8, 8) * 255).astype(np.uint8)


def placed(wave: NDArray[np.float32], rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The word without the silence around it, at 16 kHz, somewhere within one second."""
    factor = np.gcd(rate, RATE)
    sound = signal.resample_poly(wave, RATE // factor, rate // factor).astype(np.float64)
    active = np.flatnonzero(np.abs(sound) > ACTIVE * np.abs(sound).max())
    sound = sound[active[0] : active[-1] + 1][:RATE]
    start = int(rng.integers(0, RATE - len(sound) + 1))
    placed = np.zeros(RATE)
    placed[start : start + len(sound)] = sound
    return placed


def noisy(sound: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    active = np.abs(sound) > ACTIVE * np.abs(sound).max()
    low_pass = signal.butter(2, NOISE_HZ, fs=RATE, output="sos")
    noise = signal.sosfilt(low_pass, rng.normal(size=RATE))
    noise *= np.sqrt((sound[active] ** 2).mean() / (noise**2).mean()) * 10 ** (-SNR_DB / 20)
    mixed = sound + noise
    return (mixed / np.abs(mixed).max() * 0.9).astype(np.float32)


def _wav(sound: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
