"""Media bytes to arrays. Refuses what is hostile, unreadable or empty; never puts anything in its place."""

from math import gcd

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from domain.manifest import Code
from engine.data.probe import MAX_SAMPLES, Undecodable, cut_off, open_picture, open_sound, wanted_frames

__all__ = ["Undecodable", "audio", "image"]

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
    with open_sound(data) as sound:
        frames = wanted_frames(sound, max_seconds)
        if frames * sampling_rate > MAX_SAMPLES * sound.samplerate:
            raise Undecodable(Code.TOO_LARGE, "the sound is too long to be resampled; set max_seconds")
        mono, rate = _mono(sound, frames), sound.samplerate
    if not np.isfinite(mono).all():
        message = "the sound holds samples that are no numbers; write it anew"
        raise Undecodable(Code.UNREADABLE_MEDIA, message)
    if rate != sampling_rate:
        # It takes a second to load, which a training without such a sound need not wait.
        from scipy.signal import resample_poly

        factor = gcd(rate, sampling_rate)
        mono = resample_poly(mono, sampling_rate // factor, rate // factor)
    return np.ascontiguousarray(mono, dtype=np.float32)


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
        raise cut_off()
    return mono[:done]
