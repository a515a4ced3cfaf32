"""Small real films and sounds of many kinds, made on the spot: what was put in is known.

The grey of a film's frame tells its number, a red corner its upper left; a sound is a tone of 440 Hz.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import av
import numpy as np

PITCH = 440.0
RATE = 12
FRAMES = 24
_DARKEST, _STEP = 20, 9
#: These have no rate of their own.
_BITS = {"wmav1": 128_000, "wmav2": 128_000, "libopencore_amrnb": 12_200}


@dataclass(frozen=True)
class Film:
    """How a film is made. `stamps` are twelfths of a second, one a frame; none means one after another."""

    container: str
    codec: str
    pixels: str = "yuv420p"
    frames: int = FRAMES
    size: tuple[int, int] = (64, 48)
    options: Mapping[str, str] = field(default_factory=dict)
    muxing: Mapping[str, str] = field(default_factory=dict)
    gop: int | None = None
    stamps: Sequence[int] | None = None
    #: Its codec, or none.
    sound: str | None = None
    sound_rate: int = 48_000
    sound_starts_s: float = 0.0
    sound_options: Mapping[str, str] = field(default_factory=dict)
    sound_layout: str = "stereo"
    #: What is set on the stream of the pictures besides.
    settings: Mapping[str, Any] = field(default_factory=dict)
    turn: tuple[int, bool, bool] | None = None

    @property
    def seconds(self) -> float:
        return (self.stamps[-1] + 1 if self.stamps else self.frames) / RATE


@dataclass(frozen=True)
class Tone:
    """How a sound is made."""

    container: str
    codec: str
    rate: int = 48_000
    layout: str = "stereo"
    seconds: float = 1.0
    options: Mapping[str, str] = field(default_factory=dict)
    muxing: Mapping[str, str] = field(default_factory=dict)


#: SVT-AV1, the one encoder in PyAV's wheel, gives a process of root real-time priority for good: all that it starts then starves
#: what else there is. So these films are kept, as it made them for another user.
AV1 = "libsvtav1"
KEPT = Path(__file__).parents[1] / "golden" / "films"


def frame(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """`[height, width, 3]`: the frame of this number."""
    picture = np.full((height, width, 3), _DARKEST + _STEP * number, np.uint8)
    picture[: height // 4, : width // 4] = (255, 0, 0)
    return picture


def number(picture: np.ndarray) -> int:
    """The number that a frame shows in its lower right half."""
    height, width = picture.shape[:2]
    return round((float(picture[height // 2 :, width // 2 :].mean()) - _DARKEST) / _STEP)


def red_corner(picture: np.ndarray) -> str:
    """Where the red corner is: `upper left` and so on."""
    height, width = picture.shape[:2]
    redness = picture[..., 0].astype(int) - picture[..., 1]
    halves = redness[: height // 2], redness[height // 2 :]
    upper = halves[0].sum() > halves[1].sum()
    left = redness[:, : width // 2].sum() > redness[:, width // 2 :].sum()
    return f"{'upper' if upper else 'lower'} {'left' if left else 'right'}"


def pitch(sound: np.ndarray, rate: int) -> float:
    """The loudest frequency of a sound's middle."""
    middle = sound[len(sound) // 5 : len(sound) * 4 // 5]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16 * len(middle)))
    return float(np.argmax(spectrum)) * rate / (16 * len(middle))


def filmed(kind: Film) -> bytes:
    """The bytes of such a film."""
    if kind.codec == AV1:
        return (KEPT / f"{kind.container}-av1.{kind.container}").read_bytes()
    if "faststart" in kind.muxing.get("movflags", ""):
        # The muxer reads its own file again.
        with NamedTemporaryFile(suffix=".mp4") as file:
            _film(kind, file.name)
            return file.read()
    buffer = io.BytesIO()
    _film(kind, buffer)
    return buffer.getvalue()


def _film(kind: Film, file: Any) -> None:
    with av.open(file, "w", format=kind.container, container_options=dict(kind.muxing)) as out:
        pictures = out.add_stream(kind.codec, rate=RATE, options=dict(kind.options))
        pictures.width, pictures.height, pictures.pix_fmt = *kind.size, kind.pixels
        pictures.codec_context.thread_count = 1
        if kind.gop is not None:
            pictures.codec_context.gop_size = kind.gop
        if kind.stamps is not None:
            pictures.codec_context.time_base = Fraction(1, RATE)
        for name, value in kind.settings.items():
            setattr(pictures.codec_context, name, value)
        if kind.turn:
            pictures.set_display_rotation(*kind.turn)
        sound = (
            _sound_stream(out, kind.sound, kind.sound_rate, kind.sound_layout, kind.sound_options)
            if kind.sound
            else None
        )
        # Else a film of no frames would not even have a header.
        out.start_encoding()
        for n in range(kind.frames):
            made = av.VideoFrame.from_ndarray(frame(n, *kind.size), "rgb24")
            made.pts = kind.stamps[n] if kind.stamps else n
            made.time_base = Fraction(1, RATE)
            out.mux(pictures.encode(made))
            if sound is not None:
                _write_tone(out, sound, n / RATE, 1 / RATE, kind.sound_starts_s)
        out.mux(pictures.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))


def heard(kind: Tone) -> bytes:
    """The bytes of such a sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind.container, container_options=dict(kind.muxing)) as out:
        sound = _sound_stream(out, kind.codec, kind.rate, kind.layout, kind.options)
        for tenth in range(round(kind.seconds * 10)):
            _write_tone(out, sound, tenth / 10, 0.1)
        out.mux(sound.encode(None))
    return buffer.getvalue()


def _sound_stream(out: Any, codec: str, rate: int, layout: str, options: Mapping[str, str] = {}) -> Any:
    sound = out.add_stream(codec, rate=rate, options=dict(options))
    sound.layout = layout
    if codec in _BITS:
        sound.codec_context.bit_rate = _BITS[codec]
    return sound


def _write_tone(out: Any, sound: Any, begin_s: float, seconds: float, shift_s: float = 0.0) -> None:
    first, last = (round(at * sound.rate) for at in (begin_s, begin_s + seconds))
    wave = 0.5 * np.sin(2 * np.pi * PITCH * np.arange(first, last) / sound.rate)
    channels = len(sound.layout.channels)
    made = av.AudioFrame.from_ndarray(
        np.tile(wave.astype(np.float32), (channels, 1)), "fltp", sound.layout.name
    )
    made.rate, made.pts = sound.rate, first + round(shift_s * sound.rate)
    made.time_base = Fraction(1, sound.rate)
    out.mux(sound.encode(made))
