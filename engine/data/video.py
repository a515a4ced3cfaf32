"""Films to frames: only what must be decoded for the wanted times is decoded."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from domain.manifest import Code
from engine.data import containers, frames, limits
from engine.data.films import WHAT, Track, opened
from engine.data.limits import Undecodable
from engine.data.schedule import Sampling

#: Their decoders can leave out a frame that no other needs, and the rest is the same.
_CAN_SKIP = frozenset({"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video"})
#: Their decoders patch damaged frames without marking them, unless they are told to stop there.
_STRICT = frozenset({"hevc", "mjpeg"})


@dataclass(frozen=True)
class Film:
    """What a film is, as it would be shown: upright, with square pixels."""

    seconds: float
    #: As far as it is read; counted without decoding: a few codecs have packets that show nothing.
    frames: int
    #: Frames a second, on average.
    rate: float
    width: int
    height: int
    has_audio: bool
    codec: str


def probe(data: bytes, max_seconds: float | None = None) -> Film:
    """Raises Undecodable unless the film is there up to `max_seconds` and begins with a frame that can be decoded."""
    with opened(data, max_seconds) as (container, track):
        _prepare(track.stream.codec_context, threads=1)
        frame = next((frame for _, frame in _decoded(track, range(len(track.packets)))), None)
        if frame is None:
            raise limits.no_length(WHAT)
        _sound(frame)
        matrix = frames.matrix_of(frame)
        width, height = frames.shape(track.stream, None)
        if frames.lies_on_its_side(matrix):
            width, height = height, width
        schedule = track.schedule
        read_s = float((schedule.end - schedule.stamps[0]) * track.tick)
        # Of a film of which only the beginning is read the header says how long it is.
        seconds = (
            read_s
            if max_seconds is None
            else max(read_s, containers.said_seconds(container, track.stream) or 0)
        )
        has_audio = containers.track(container, "audio") is not None
        shown = len(schedule.shown)
        name = track.stream.codec_context.codec.canonical_name
        return Film(seconds, shown, shown / read_s, width, height, has_audio, name)


def decode(
    data: bytes,
    *,
    num_frames: int,
    sampling: Sampling = "uniform",
    max_seconds: float | None = None,
    size: int | None = None,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """`[<= num_frames, height, width, 3]`; `engine.data.decode.video` says more."""
    with opened(data, max_seconds) as (_, track):
        count = min(num_frames, len(track.schedule.shown))
        if count > limits.MAX_FRAMES:
            message = f"{count} frames are too many at once; at most {limits.MAX_FRAMES} are read"
            raise Undecodable(Code.TOO_LARGE, message)
        width, height = frames.shape(track.stream, size)
        frames.check_bytes(count, width, height)
        _prepare(track.stream.codec_context, threads)
        times = track.schedule.times(count, sampling)
        try:
            return _stacked(_found(track, times), count, width, height)
        except (_Missed, av.FFmpegError):
            # A packet that shows nothing, or a key frame that is none: whatever is wrong is found on the long way.
            return _stacked(_watched(track, times), count, width, height)


def _stacked(found: Iterable[Any], most: int, width: int, height: int) -> NDArray[np.uint8]:
    """The pixels of at least one frame and at most so many; each frame goes as soon as it is converted."""
    number, stack = 0, np.empty(0, np.uint8)
    for number, frame in enumerate(found, start=1):
        picture = frames.pixels(frame, width, height)
        if number == 1:
            stack = np.empty((most, *picture.shape), np.uint8)
        stack[number - 1] = picture
    return stack[:number]


def _prepare(context: Any, threads: int) -> None:
    context.thread_count = threads
    context.thread_type = "AUTO" if threads > 1 else "NONE"
    context.options = {"max_pixels": str(limits.MAX_PIXELS)}
    if context.name in _STRICT:
        context.options |= {"err_detect": "explode"}


class _Missed(Exception):
    """A wanted frame did not come out of the packets that should bring it."""


def _found(track: Track, times: Sequence[int]) -> Iterator[Any]:
    """The frames on the screen at these times, by decoding only what they need."""
    seen = track.schedule.seen(times)
    if track.is_counted:
        raise _Missed
    wanted = {track.schedule.shots[shot].stamp for shot in seen}
    for run in track.schedule.ranges(seen):
        for stamp, frame in _decoded(track, run, wanted):
            if stamp in wanted and not frame.is_corrupt:
                wanted.remove(stamp)
                yield frame
    if wanted:
        raise _Missed


def _watched(track: Track, times: Sequence[int]) -> Iterator[Any]:
    """The same by watching the film from its beginning: each frame is on the screen until the next one."""
    pending, on_screen, since = deque(times), None, 0
    for stamp, frame in _decoded(track, range(len(track.packets))):
        if on_screen is not None and pending[0] < stamp:
            while pending and pending[0] < stamp:
                _check_near(track, pending.popleft(), since)
            yield _sound(on_screen)
            if not pending:
                return
        on_screen, since = frame, stamp
    if on_screen is None:
        raise limits.damaged(WHAT, "none of its frames can be decoded")
    for time in pending:
        _check_near(track, time, since)
    yield _sound(on_screen)


def _check_near(track: Track, time: int, stamp: int) -> None:
    """A packet may bring no frame, as half a picture does; several of them are damaged."""
    if not track.is_counted and track.schedule.between(time, stamp) > 1:
        raise limits.damaged(WHAT, "a frame that is wanted cannot be decoded")


def _sound(frame: Any) -> Any:
    """A frame that FFmpeg had to guess at is none."""
    if frame.is_corrupt:
        raise limits.damaged(WHAT, "a frame that is wanted cannot be decoded")
    return frame


def _decoded(track: Track, run: range, wanted: Collection[int] | None = None) -> Iterator[tuple[int, Any]]:
    """What the packets of a run bring, in the order of showing; frames that nobody wants or needs may be left out."""
    context, last = track.stream.codec_context, -1
    needed = wanted if context.name in _CAN_SKIP else None
    context.flush_buffers()
    for number in [*run, None]:
        packet = None if number is None else track.packets[number]
        if packet is not None:
            context.skip_frame = "DEFAULT" if needed is None or packet.pts in needed else "NONREF"
        for frame in context.decode(packet):
            last = last + 1 if track.is_counted or frame.pts is None else frame.pts
            yield last, frame
