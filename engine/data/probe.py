"""Whether bytes are a picture or a sound that can be decoded, without making arrays of them. Knows no rows."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from struct import error as StructError

import soundfile
from PIL import Image, ImageOps

from domain.manifest import Code

#: 64 megapixels are a large camera's; as RGBA they take 256 MB.
MAX_PIXELS = 64 * 2**20
#: Of one channel: 46 minutes at 48 kHz.
MAX_SAMPLES = 2**27
_RATES = range(1000, 384_001)

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

#: Beginnings of media files that are whole, but of a kind that is not read here.
_OTHER_KINDS = (b"\x1aE\xdf\xa3", b"#!AMR", b"0&\xb2u", b"FLV\1", b"wvpk", b"MAC ", b"\xff\xf1", b"\xff\xf9")


class Undecodable(Exception):
    """These bytes cannot be used; `code` is one of `domain.manifest.Code`, `message` says what to do."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def probe_image(data: bytes) -> None:
    """Raises Undecodable unless the picture can be read to its end."""
    with open_picture(data) as picture:
        picture.draft("RGB", _SMALL)
        # Loads it, and reads the same metadata as the decoder will.
        ImageOps.exif_transpose(picture, in_place=True)


def probe_audio(data: bytes, max_seconds: float | None = None) -> float:
    """The sound's length in seconds; raises Undecodable unless it is there up to `max_seconds`."""
    with open_sound(data) as sound:
        last = wanted_frames(sound, max_seconds) - 1
        # Of MP3 the length is only estimated, so that its last frame may not be there.
        if sound.format != "MP3" and sound.seekable():
            sound.seek(last)
            if not len(sound.read(1)):
                raise cut_off()
        return float(sound.frames / sound.samplerate)


@contextmanager
def open_picture(data: bytes) -> Iterator[Image.Image]:
    """The picture behind `data`, not yet loaded; what goes wrong inside the block is Undecodable too."""
    try:
        with Image.open(io.BytesIO(data), formats=_PICTURES) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_many_pixels()
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


@contextmanager
def open_sound(data: bytes) -> Iterator[soundfile.SoundFile]:
    """The sound behind `data`, not yet read; what goes wrong inside the block is Undecodable too."""
    try:
        sound = soundfile.SoundFile(io.BytesIO(data))
    except _SOUND_ERRORS as error:
        raise _no_sound(data, error) from error
    try:
        with sound:
            if sound.frames <= 0:
                raise Undecodable(Code.ZERO_DURATION, "the sound has no length; replace it, or write null")
            if sound.samplerate not in _RATES:
                message = f"a sampling rate of {sound.samplerate} Hz cannot be read; resample it"
                raise Undecodable(Code.UNSUPPORTED_CODEC, message)
            yield sound
    except _SOUND_ERRORS as error:
        message = f"the sound is damaged or cut off ({error}); replace it"
        raise Undecodable(Code.UNREADABLE_MEDIA, message) from error


def wanted_frames(sound: soundfile.SoundFile, max_seconds: float | None) -> int:
    """How many frames are read; raises Undecodable for a sound that would not fit in memory."""
    frames: int = sound.frames
    if max_seconds is not None:
        frames = min(frames, max(1, round(max_seconds * sound.samplerate)))
    if frames > MAX_SAMPLES:
        seconds = MAX_SAMPLES // sound.samplerate
        message = f"the sound is longer than {seconds} s; cut it, or set max_seconds"
        raise Undecodable(Code.TOO_LARGE, message)
    return frames


def cut_off() -> Undecodable:
    return Undecodable(Code.UNREADABLE_MEDIA, "the sound ends before its header says; replace it")


def _no_sound(data: bytes, error: Exception) -> Undecodable:
    if _is_other_kind(data):
        message = "this kind of sound cannot be read; save it as WAV, FLAC, Ogg or MP3"
        return Undecodable(Code.UNSUPPORTED_CODEC, message)
    # libsndfile names the object that it reads from, which says nothing to a user.
    why = str(error).rpartition(">: ")[2]
    return Undecodable(
        Code.UNREADABLE_MEDIA, f"this is not a sound that can be read ({why}); send WAV, FLAC, Ogg or MP3"
    )


def _is_other_kind(data: bytes) -> bool:
    return data[4:8] == b"ftyp" or data.startswith(_OTHER_KINDS)


def _too_many_pixels() -> Undecodable:
    return Undecodable(Code.TOO_LARGE, f"the picture has more than {MAX_PIXELS} pixels; make it smaller")
