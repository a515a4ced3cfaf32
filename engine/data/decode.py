"""Media bytes to arrays. Refuses what is hostile, unreadable or empty; never puts anything in its place."""

from math import gcd

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from domain.manifest import Code
from engine.data import limits
from engine.data.limits import Undecodable
from engine.data.probe import open_picture, reading, sound_file
from engine.data.schedule import Sampling

__all__ = ["Undecodable", "audio", "image", "video"]

#: Samples of all channels held at once while they are mixed.
_BLOCK = 2**20


def image(data: bytes) -> NDArray[np.uint8]:
    """A picture as `[height, width, 3]` RGB, upright; transparency lies on white, of a film the first frame."""
    with open_picture(data) as picture:
        upright = ImageOps.exif_transpose(picture)
        return np.array(_rgb(upright), dtype=np.uint8)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns almost every pixel white.
        grey = np.asarray(picture, dtype=np.uint16) / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return picture.convert("RGB")


def audio(data: bytes, *, sampling_rate: int, max_seconds: float | None = None) -> NDArray[np.float32]:
    """A sound as mono `[samples]` at `sampling_rate`; what lies behind `max_seconds` is not read."""
    mono, rate = _heard(data, sampling_rate, max_seconds)
    if not np.isfinite(mono).all():
        message = "the sound holds samples that are no numbers; write it anew"
        raise Undecodable(Code.UNREADABLE_MEDIA, message)
    if rate != sampling_rate:
        # It takes a second to load, which a training without such a sound need not wait.
        from scipy.signal import resample_poly

        factor = gcd(rate, sampling_rate)
        mono = resample_poly(mono, sampling_rate // factor, rate // factor)
    return np.ascontiguousarray(mono, dtype=np.float32)


def video(
    data: bytes,
    *,
    num_frames: int,
    sampling: Sampling = "uniform",
    max_seconds: float | None = None,
    size: int | None = None,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """A film as `[<= num_frames, height, width, 3]` RGB, upright, with square pixels; transparency lies on white.

    `uniform` takes the frames on the screen in the middles of `num_frames` equal parts of the film, `head` the first
    frames. A film that has fewer frames gives all of them, and a frame that is on the screen at several of the times comes
    once: nothing is repeated. What lies behind `max_seconds` is not read. `size` makes the shorter side no longer than
    that (never larger): an image encoder wants the side to which it resizes.
    """
    from engine.data import video

    return video.decode(
        data, num_frames=num_frames, sampling=sampling, max_seconds=max_seconds, size=size, threads=threads
    )


def _heard(data: bytes, wanted_rate: int, max_seconds: float | None) -> tuple[NDArray[np.float32], int]:
    """The sound at the rate that it has."""
    sound = sound_file(data)
    if sound is None:
        # What soundfile can open need not wait for FFmpeg's libraries to load.
        from engine.data import tracks

        mono, rate = tracks.mono(data, max_seconds)
        _check_room(len(mono), rate, wanted_rate)
        return mono, rate
    with reading(sound):
        frames = limits.wanted_samples(sound.frames, sound.samplerate, max_seconds)
        _check_room(frames, sound.samplerate, wanted_rate)
        return _mono(sound, frames), sound.samplerate


def _check_room(samples: int, rate: int, wanted_rate: int) -> None:
    if samples * wanted_rate > limits.MAX_SAMPLES * rate:
        raise Undecodable(Code.TOO_LARGE, "the sound is too long to be resampled; set max_seconds")


def _mono(sound: soundfile.SoundFile, frames: int) -> NDArray[np.float32]:
    mono = np.empty(frames, np.float32)
    done = 0
    while done < frames:
        wanted = min(frames - done, max(1, _BLOCK // sound.channels))
        block = sound.read(wanted, dtype="float32", always_2d=True)  # [samples, channels]
        if not len(block):
            break
        mono[done : done + len(block)] = block.mean(axis=1)
        done += len(block)
    # Of MP3 the length is only estimated.
    if not done or (done < frames and sound.format != "MP3"):
        raise limits.cut_off("sound")
    return mono[:done]
