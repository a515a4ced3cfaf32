"""How much of a media file is read, and the refusal of what is more or no good. Knows no library that decodes."""

from domain.manifest import Code

#: 64 megapixels are a large camera's; as RGBA they take 256 MB.
MAX_PIXELS = 64 * 2**20
#: Of one channel: 46 minutes at 48 kHz.
MAX_SAMPLES = 2**27
#: Hertz.
RATES = range(1000, 384_001)
#: Of one film: what a network sees at once is tens of frames.
MAX_FRAMES = 1024
#: Of all frames of one film together.
MAX_FRAME_BYTES = 2**30
#: A day: what claims to last longer has broken times.
MAX_FILM_SECONDS = 24 * 3600
#: Of one track: more than ten hours at 50 frames a second.
MAX_PACKETS = 2**21


class Undecodable(Exception):
    """These bytes cannot be used; `code` is one of `domain.manifest.Code`, `message` says what to do."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def wanted_samples(samples: float, rate: int, max_seconds: float | None) -> int:
    """How many of a sound's `samples` are read; raises Undecodable if they would not fit in memory."""
    if max_seconds is not None:
        samples = min(samples, max(1, round(max_seconds * rate)))
    if samples > MAX_SAMPLES:
        message = f"the sound is longer than {MAX_SAMPLES // rate} s; cut it, or set max_seconds"
        raise Undecodable(Code.TOO_LARGE, message)
    return int(samples)


def check_rate(rate: int) -> None:
    if rate not in RATES:
        message = f"a sampling rate of {rate} Hz cannot be read; resample it"
        raise Undecodable(Code.UNSUPPORTED_CODEC, message)


def check_pixels(width: int, height: int, what: str) -> None:
    if width * height > MAX_PIXELS:
        raise Undecodable(Code.TOO_LARGE, f"{what} has more than {MAX_PIXELS} pixels; make it smaller")


def no_length(what: str) -> Undecodable:
    return Undecodable(Code.ZERO_DURATION, f"the {what} has no length; replace it, or write null")


def damaged(what: str, why: object) -> Undecodable:
    return Undecodable(Code.UNREADABLE_MEDIA, f"the {what} is damaged or cut off ({why}); replace it")


def cut_off(what: str) -> Undecodable:
    return Undecodable(Code.UNREADABLE_MEDIA, f"the {what} ends before its header says; replace it")
