"""Opens films: their packets, and the times at which each is shown. Knows no pixels."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import dropwhile
from typing import Any

from av.container import InputContainer

from domain.manifest import Code
from engine.data import containers, limits
from engine.data.limits import Undecodable
from engine.data.schedule import Schedule, Shot

WHAT = "film"
#: Every frame is a key frame.
_INTRA = frozenset({"mjpeg", "prores", "dnxhd", "png", "rawvideo"})
#: Their decoders begin at any key frame and give the same as from the beginning.
_CAN_JUMP = _INTRA | {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv"}
_CAN_JUMP |= {"vp8", "vp9", "av1", "libdav1d", "theora"}
#: AVI has no times of showing, and of these FFmpeg cannot guess them.
_UNTIMED = ("avi", frozenset({"h264", "hevc"}))
#: Recorded from wherever someone tuned in.
_STREAMS = frozenset({"mpegts", "mpeg", "h264", "hevc", "m4v", "mpegvideo"})
_USUAL_RATE = Fraction(25)


@dataclass(frozen=True)
class Track:
    """A film's pictures, not yet decoded."""

    stream: Any
    packets: Sequence[Any]
    schedule: Schedule
    tick: Fraction
    #: Whether frames are told by their number: their times are missing or broken.
    is_counted: bool


@contextmanager
def opened(data: bytes, max_seconds: float | None) -> Iterator[tuple[InputContainer, Track]]:
    with containers.opened(data, WHAT) as container:
        stream = containers.track(container, "video")
        if stream is None:
            message = "there are no moving pictures in this file; send a film, or write null"
            raise Undecodable(Code.UNREADABLE_MEDIA, message)
        context = containers.decoder(container, stream, WHAT, "H.264, VP9 or AV1")
        limits.check_pixels(context.width, context.height, "a frame of the film")
        yield container, _gathered(container, stream, len(data), max_seconds)


def _gathered(container: InputContainer, stream: Any, size: int, max_seconds: float | None) -> Track:
    packets: Iterable[Any] = containers.packets(container, stream, size, WHAT)
    if container.format.name in _STREAMS:
        # What comes before the first key frame has lost what it needs.
        packets = dropwhile(lambda packet: not packet.is_keyframe, packets)
    kept = _wanted(packets, stream, max_seconds)
    is_untimed = container.format.name == _UNTIMED[0] and stream.codec_context.name in _UNTIMED[1]
    is_counted = is_untimed or _has_broken_times(kept)
    track = (_counted if is_counted else _timed)(stream, kept)
    schedule = _cut(track.schedule, max_seconds, track.tick)
    if not schedule.shown:
        raise limits.no_length(WHAT)
    seconds = (schedule.end - schedule.stamps[0]) * track.tick
    if seconds > limits.MAX_FILM_SECONDS:
        message = f"the film says that it lasts {float(seconds):.0f} s; cut it, or write its times anew"
        raise Undecodable(Code.TOO_LARGE, message)
    return replace(track, schedule=schedule)


def _wanted(packets: Iterable[Any], stream: Any, max_seconds: float | None) -> list[Any]:
    """The packets up to `max_seconds`. No frame is decoded after it is shown."""
    kept: list[Any] = []
    begin = math.inf
    for packet in packets:
        kept.append(packet)
        if packet.pts is not None and not packet.is_discard:
            begin = min(begin, packet.pts)
        seconds = 0 if packet.dts is None else (packet.dts - begin) * stream.time_base
        if max_seconds is not None and seconds > max_seconds:
            break
    return kept


def _has_broken_times(packets: Sequence[Any]) -> bool:
    stamps = [packet.pts for packet in packets if not packet.is_discard]
    return any(packet.pts is None for packet in packets) or len(set(stamps)) < len(stamps)


def _timed(stream: Any, packets: Sequence[Any]) -> Track:
    # Of a stream that was cut, frames shown before its first key frame are lost, too.
    begin = packets[0].pts if packets and packets[0].is_keyframe else -math.inf
    shots = [Shot(p.pts, p.is_keyframe, not p.is_discard and p.pts >= begin) for p in packets]
    last = max(
        (p for p, shot in zip(packets, shots, strict=True) if shot.is_shown),
        key=lambda p: p.pts,
        default=None,
    )
    if last is None:
        return Track(stream, packets, Schedule((), 0), stream.time_base, False)
    usual = round(1 / (_rate(stream) * stream.time_base))
    can_jump = stream.codec_context.name in _CAN_JUMP
    schedule = Schedule(shots, last.pts + max(last.duration or usual, 1), can_jump)
    return Track(stream, packets, schedule, stream.time_base, False)


def _counted(stream: Any, packets: Sequence[Any]) -> Track:
    shots = [Shot(number, packet.is_keyframe) for number, packet in enumerate(packets)]
    return Track(stream, packets, Schedule(shots, len(shots), False), 1 / _rate(stream), True)


def _rate(stream: Any) -> Fraction:
    return stream.average_rate or stream.guessed_rate or _USUAL_RATE


def _cut(schedule: Schedule, max_seconds: float | None, tick: Fraction) -> Schedule:
    if max_seconds is None or not schedule.shown:
        return schedule
    end = min(schedule.end, schedule.stamps[0] + max(1, round(max_seconds / tick)))
    shots = [replace(shot, is_shown=shot.is_shown and shot.stamp < end) for shot in schedule.shots]
    return replace(schedule, shots=shots, end=end)
