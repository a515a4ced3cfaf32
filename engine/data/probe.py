"""Whether bytes are a picture, sound or film that can be decoded, without making arrays of them. Knows no rows."""

import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from struct import error as StructError
from typing import TYPE_CHECKING

import soundfile
from PIL import Image, ImageOps

from domain.manifest import Code, ColumnType
from engine.data import limits
from engine.data.limits import Undecodable

if TYPE_CHECKING:
    from engine.data.video import Film

__all__ = [
    "Probe",
    "Probed",
    "Undecodable",
    "is_silent",
    "open_picture",
    "probe_audio",
    "probe_image",
    "probe_media",
    "probe_video",
    "reading",
    "sound_file",
]

#: Pillow knows more formats; some call other programs, and none is common in data sets.
_PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
#: Whole or real numbers of unknown range: any scale that we chose would be a guess.
_UNSCALED = ("I", "F")
#: Checked at this size: JPEG then skips most of the arithmetic, but still reads every byte.
_SMALL = (32, 32)

#: What Pillow's parsers raise on hostile bytes; they check little before they index and unpack.
_PICTURE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    StructError,
    zlib.error,
)
_SOUND_ERRORS = (soundfile.SoundFileError, OSError, ValueError, TypeError, OverflowError)


@dataclass(frozen=True)
class Probed:
    """What a medium turned out to be; None is what its kind does not have."""

    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    has_audio: bool = False


#: A medium's bytes, its kind and how many seconds of it are read -> what it is; raises Undecodable.
Probe = Callable[[bytes, ColumnType, float | None], Probed]


def probe_media(data: bytes, kind: ColumnType, max_seconds: float | None = None) -> Probed:
    """The plain `Probe`: in this process."""
    if kind is ColumnType.IMAGE:
        probe_image(data)
        return Probed()
    if kind is ColumnType.AUDIO:
        return Probed(probe_audio(data, max_seconds), has_audio=True)
    film = probe_video(data, max_seconds)
    return Probed(film.seconds, film.width, film.height, film.frames, film.has_audio)


def probe_image(data: bytes) -> None:
    """Raises Undecodable unless the picture can be read to its end."""
    with open_picture(data) as picture:
        picture.draft("RGB", _SMALL)
        # Loads it, and reads the same metadata as the decoder will.
        ImageOps.exif_transpose(picture, in_place=True)


def probe_audio(data: bytes, max_seconds: float | None = None) -> float:
    """The sound's length in seconds; raises Undecodable unless it is there up to `max_seconds`."""
    sound = sound_file(data)
    if sound is None:
        # What soundfile can open need not wait for FFmpeg's libraries to load.
        from engine.data import tracks

        return tracks.probe(data, max_seconds)
    with reading(sound):
        last = limits.wanted_samples(sound.frames, sound.samplerate, max_seconds) - 1
        # Of MP3 the length is only estimated, so that its last frame may not be there.
        if sound.format != "MP3" and sound.seekable():
            sound.seek(last)
            if not len(sound.read(1)):
                raise limits.cut_off("sound")
        return float(sound.frames / sound.samplerate)


def probe_video(data: bytes, max_seconds: float | None = None) -> "Film":
    """What the film is; raises Undecodable unless it is there up to `max_seconds` and its first frame can be decoded."""
    from engine.data import video

    return video.probe(data, max_seconds)


@contextmanager
def open_picture(data: bytes) -> Iterator[Image.Image]:
    """The picture behind `data`, not yet loaded; what goes wrong inside the block is Undecodable too."""
    try:
        with Image.open(io.BytesIO(data), formats=_PICTURES) as picture:
            limits.check_pixels(picture.width, picture.height, "the picture")
            if picture.mode in _UNSCALED:
                message = "pictures of 32 bits a pixel have no known range; save it with 8 or 16 bits"
                raise Undecodable(Code.UNSUPPORTED_CODEC, message)
            yield picture
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels() from error
    except Image.UnidentifiedImageError as error:
        if _is_other_kind(data):
            message = "this kind of picture cannot be read; save it as PNG, JPEG or WebP"
            raise Undecodable(Code.UNSUPPORTED_CODEC, message) from error
        message = "this is not a picture; send a PNG, JPEG, WebP, GIF, BMP or TIFF file"
        raise Undecodable(Code.UNREADABLE_MEDIA, message) from error
    except _PICTURE_ERRORS as error:
        message = f"the picture is damaged or cut off ({error}); replace it"
        raise Undecodable(Code.UNREADABLE_MEDIA, message) from error


def sound_file(data: bytes) -> soundfile.SoundFile | None:
    """The sound behind `data`, not yet read; None if soundfile does not know such files."""
    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except _SOUND_ERRORS:
        return None


@contextmanager
def reading(sound: soundfile.SoundFile) -> Iterator[None]:
    """Closes the sound; what is wrong with it, or goes wrong inside the block, is Undecodable."""
    try:
        with sound:
            if sound.frames <= 0:
                raise limits.no_length("sound")
            limits.check_rate(sound.samplerate)
            yield
    except _SOUND_ERRORS as error:
        raise limits.damaged("sound", error) from error


def _is_other_kind(data: bytes) -> bool:
    """Whether it is whole, but of a kind that is no picture that is read here."""
    return data[4:8] == b"ftyp"


def _too_many_pixels() -> Undecodable:
    message = f"the picture has more than {limits.MAX_PIXELS} pixels; make it smaller"
    return Undecodable(Code.TOO_LARGE, message)


def is_silent(data: bytes) -> bool:
    """Whether it is a film, or another file that FFmpeg knows, without a sound track.

    What cannot be opened at all is not silent: whoever reads it says what is wrong.
    """
    # It takes 0.1 s to load, which data without films need not wait.
    from engine.data import containers

    try:
        with containers.opened(data, "sound") as container:
            return containers.track(container, "audio") is None
    except Undecodable:
        return False
