"""Opens films and sounds that lie in memory, by FFmpeg's libraries. Knows tracks and packets, and no pixels.

FFmpeg sees the bytes and nothing else: no format that names other files is tried, and no protocol is allowed.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

# It takes 0.1 s to load: who wants this module imports it when a file needs it.
import av
import av.logging
from av.container import InputContainer
from av.stream import Discard, Disposition

from domain.manifest import Code
from engine.data import limits
from engine.data.limits import Undecodable

#: Playlists, lists of files, patterns of names, devices, subtitles and pictures are none of these.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    *(
        "avi",
        "flv",
        "asf",
        "mpegts",
        "mpeg",
        "ogg",
        "mxf",
        "nut",
        "rm",
        "dv",
        "gif",
        "apng",
        "ivf",
        "obu",
        "av1",
    ),
    *("h264", "hevc", "m4v", "mpegvideo", "mjpeg", "yuv4mpegpipe"),
    *("wav", "w64", "aiff", "au", "caf", "flac", "mp3", "aac", "ac3", "eac3", "dts", "amr", "amrnb", "amrwb"),
    *("wv", "tta", "ape", "tak", "mpc", "mpc8", "truehd", "mlp"),
)
#: Their headers say how long the file is; of others FFmpeg guesses it from what is there.
_SAY_LENGTH = frozenset({"matroska,webm", "avi", "flv", "asf", "wv", "tta", "ape"})
_MOV = _FORMATS[0]
#: A header may be this much wrong, in seconds and as a share.
_SLACK_S, _SLACK = 0.25, 0.02
_MICROSECONDS = 1_000_000
#: FFmpeg has one log for all threads.
_SUMMING_UP = Lock()

OPTIONS = {
    "format_whitelist": ",".join(_FORMATS),
    "protocol_whitelist": "none",
    "max_pixels": str(limits.MAX_PIXELS),
}
#: What PyAV raises on hostile bytes, besides its own errors.
_ERRORS = (av.FFmpegError, ValueError, TypeError, OverflowError, ArithmeticError)

# Nothing goes to stderr: what is wrong with a file is said by its exception.
av.logging.set_level(None)


@contextmanager
def opened(data: bytes, what: str) -> Iterator[InputContainer]:
    """The `what` ("film" or "sound") behind `data`; what goes wrong inside the block is Undecodable, too."""
    try:
        container = av.open(
            io.BytesIO(data), "r", options=OPTIONS, metadata_errors="ignore", buffer_size=2**18
        )
    except _ERRORS as error:
        kinds = "MP4, WebM, MKV, MOV or AVI" if what == "film" else "WAV, FLAC, Ogg, MP3 or M4A"
        message = f"this is not a {what} that can be read ({reason(error)}); send {kinds}"
        raise Undecodable(Code.UNREADABLE_MEDIA, message) from error
    try:
        with container:
            yield container
    except _ERRORS as error:
        raise limits.damaged(what, reason(error)) from error


def reason(error: Exception) -> str:
    """What FFmpeg says, without the words that mean nothing to a user."""
    return error.strerror or "unknown" if isinstance(error, av.FFmpegError) else str(error)


def track(container: InputContainer, kind: str) -> Any:
    """The first track that is marked as default, else the first; None without any. A cover is no film."""
    found = [s for s in container.streams if s.type == kind and not s.disposition & _COVER]
    marked = [s for s in found if s.disposition & Disposition.default]
    return next(iter(marked or found), None)


_COVER = Disposition.attached_pic | Disposition.timed_thumbnails


def decoder(container: InputContainer, stream: Any, what: str, convert_to: str) -> Any:
    """The track's decoder; raises Undecodable where there is none."""
    if stream.codec_context is None:
        name = _codec_name(container, stream.index)
        message = f"the {what}'s codec ({name}) cannot be decoded here; convert it to {convert_to}"
        raise Undecodable(Code.UNSUPPORTED_CODEC, message)
    return stream.codec_context


def _codec_name(container: Any, track: int) -> str:
    """Of a codec without a decoder PyAV tells no name, but FFmpeg writes it into its summary of a file."""
    with _SUMMING_UP:
        av.logging.set_level(av.logging.INFO)
        try:
            summary: str = container.dumps_format()
        finally:
            av.logging.set_level(None)
    found = re.search(
        rf"Stream #0:{track}\b.*?: (?:Video|Audio): (\w{{1,20}})(?: \((\w{{1,20}}) /)?", summary
    )
    names = [name for name in found.groups() if name not in (None, "none")] if found else []
    return names[0] if names else "unknown"


def packets(container: InputContainer, stream: Any, size: int, what: str) -> Iterator[Any]:
    """The track's packets in the order of decoding; at the end of a file that was cut off, Undecodable."""
    if container.format.name == _MOV:
        # It leaves out the bytes of the others; elsewhere their times tell where the file should end.
        for other in container.streams:
            other.discard = Discard.none if other is stream else Discard.all
    count, room, end_s = 0, 2 * size + 2**20, 0.0
    for packet in container.demux():
        end_s = max(end_s, _end_s(packet))
        if packet.stream is not stream or (packet.size == 0 and packet.dts is None):
            continue
        if packet.is_corrupt:
            raise limits.cut_off(what)
        count, room = count + 1, room - packet.size
        if count > limits.MAX_PACKETS or room < 0:
            # A table of a few bytes can name the same bytes again and again.
            message = f"the {what} has no end, or a broken index; cut it, or write it anew"
            raise Undecodable(Code.TOO_LARGE, message)
        # An empty one says that the frame before it stays.
        if packet.size:
            yield packet
    if _is_cut_off(container, stream, count, end_s):
        raise limits.cut_off(what)


def said_seconds(container: InputContainer, stream: Any) -> float | None:
    """How long the track is by the header; None where FFmpeg would only guess."""
    if container.format.name not in _SAY_LENGTH | {_MOV}:
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / _MICROSECONDS if container.duration else None


def _end_s(packet: Any) -> float:
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is None or packet.time_base is None:
        return 0.0
    return float((stamp + (packet.duration or 0)) * packet.time_base)


def _is_cut_off(container: InputContainer, stream: Any, count: int, end_s: float) -> bool:
    if container.format.name == _MOV:
        return count < len(stream.index_entries)
    if container.format.name not in _SAY_LENGTH or not container.duration:
        return False
    said = container.duration / _MICROSECONDS
    return end_s < (container.start_time or 0) / _MICROSECONDS + said * (1 - _SLACK) - _SLACK_S
