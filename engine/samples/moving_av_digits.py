"""Moving AV-digits: one second of film in which a handwritten digit moves in one of 8 directions and is spoken.

The pictures and sounds are those of AV-digits (`av_digits` says how they are made hard), the digit's squares drawn at
40 px over noise, past the middle of 96 px, at a speed of its own. Eight frames (MPEG-4) and the sound (AAC) lie in one MP4; every tenth
training clip has no sound track. Each direction goes through the same places as its opposite, so that only the frames' order
tells the two apart. The label is the digit, the direction, or both. Groups are the voices: no voice and no digit's picture is in
two splits. What frozen encoders tell of it is in docs/data.md.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from engine.samples.av_digits import RATE, SPLITS, WORDS, deal_voices, noisy, pictures, placed
from engine.samples.building import built
from engine.samples.speech import Word, speak, voices

Label = Literal["digit", "direction", "both"]

#: Clockwise, and where each leads, in pixels to the right and down.
DIRECTIONS = {
    "right": (1, 0),
    "down-right": (1, 1),
    "down": (0, 1),
    "down-left": (-1, 1),
    "left": (-1, 0),
    "up-left": (-1, -1),
    "up": (0, -1),
    "up-right": (1, -1),
}
PX, DIGIT_PX, FRAMES = 96, 40, 8
#: Pixels from the first frame to the last, and how far from the middle the way may pass.
TRAVEL_PX, OFF_PX = (24, 48), 10
#: AAC comes in blocks of 1024 samples; one more would be longer than the film.
SAMPLES = RATE // 1024 * 1024
#: Of each frame's own noise, in grey values.
NOISE = 20.0
#: Of the training clips one of so many is silent.
SILENT_EVERY = 10
#: Raised when the bytes for a seed change.
VERSION = 1

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """All that the bytes depend on: the first `limit` digits, or all, and what is to be learned of them."""

    seed: int = 0
    limit: int | None = None
    label: Label = "both"
    version: int = VERSION


DEFAULT = Recipe()


def build(out: Path, recipe: Recipe = DEFAULT, progress: Callable[[str], None] | None = None) -> Path:
    """Writes `out/metadata.jsonl` with its clips, and the same as `<out>.zip`; returns the zip's path.

    The same recipe gives the same bytes, and one that differs in its label the same clips. A finished set is kept.
    """
    doing = "Building moving AV-digits: filming digits and speaking them …"
    return built(out, asdict(recipe), partial(_write, recipe=recipe), progress or (lambda _: None), doing)


def _write(out: Path, recipe: Recipe) -> None:
    rng = np.random.default_rng(recipe.seed)
    pixels, digits = load_digits(return_X_y=True)
    names = voices()
    order = rng.permutation(len(names))
    split_of = {names[v]: SPLITS[i % len(SPLITS)] for i, v in enumerate(order)}
    spoken_by = deal_voices(digits, len(names), rng)
    shapes = pictures(pixels / 16.0, rng)
    # Dealt, so that every digit goes every way alike often.
    ways = rng.permutation(np.arange(len(digits)) % len(DIRECTIONS))
    chosen = range(len(digits) if recipe.limit is None else min(recipe.limit, len(digits)))
    words = [_word(WORDS[digits[n]], names[spoken_by[n]], rng) for n in chosen]
    rate, spoken = speak(words)
    (out / "clips").mkdir(parents=True)
    lines, trained = [], 0
    for n, (word, wave) in enumerate(zip(words, spoken, strict=True)):
        split, way, clip = split_of[word.voice], list(DIRECTIONS)[ways[n]], f"clips/{n:04}.mp4"
        trained += split == "train"
        is_silent = split == "train" and trained % SILENT_EVERY == 0
        sound = noisy(placed(wave, rate, rng), rng)[:SAMPLES]
        (out / clip).write_bytes(mp4(_moved(shapes[n], way, rng), None if is_silent else sound))
        label = _label(str(digits[n]), way, recipe.label)
        row = {"id": f"m{n:04}", "clip_file_name": clip, "label": label, "voice": word.voice, "split": split}
        lines.append(json.dumps(row))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def _word(text: str, voice: str, rng: np.random.Generator) -> Word:
    return Word(text, "en-us", voice, int(rng.integers(140, 201)), int(rng.integers(30, 71)))


def _label(digit: str, way: str, kind: Label) -> str | list[str]:
    return {"digit": digit, "direction": way}.get(kind) or [digit, way]


def _moved(shape: Grey, way: str, rng: np.random.Generator) -> Sequence[Grey]:
    """The frames, [PX, PX] each: the brighter of digit and background, with noise over both."""
    picture = Image.fromarray(shape).resize((DIGIT_PX, DIGIT_PX), Image.Resampling.NEAREST)
    step = np.array(DIRECTIONS[way]) / np.hypot(*DIRECTIONS[way]) * rng.uniform(*TRAVEL_PX)
    middle = PX / 2 + rng.uniform(-OFF_PX, OFF_PX, 2)
    frames = []
    for share in np.linspace(-0.5, 0.5, FRAMES):
        left, top = np.round(middle + share * step - DIGIT_PX / 2).astype(int)
        frame = Image.new("L", (PX, PX))
        # What would lie outside is cut off.
        frame.paste(picture, (int(left), int(top)))
        seen = np.asarray(frame) + rng.normal(0, NOISE, (PX, PX))
        frames.append(np.clip(seen, 0, 255).astype(np.uint8))
    return frames


def mp4(frames: Sequence[Grey], sound: NDArray[np.float32] | None) -> bytes:
    """One second: MPEG-4 with AAC, or without a sound track. Equal input gives equal bytes, which x264 does not promise."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        film: Any = out.add_stream("mpeg4", rate=len(frames))
        film.codec_context.thread_count = 1
        film.width, film.height, film.pix_fmt = PX, PX, "yuv420p"
        track: Any = None if sound is None else out.add_stream("aac", rate=RATE, layout="mono")
        for frame in frames:
            out.mux(film.encode(av.VideoFrame.from_ndarray(frame, "gray")))
        out.mux(film.encode())
        if sound is not None:
            heard = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
            heard.sample_rate, heard.pts = RATE, 0
            out.mux(track.encode(heard))
            out.mux(track.encode())
    return buffer.getvalue()
