"""Sounds that soundfile cannot open, and the sound of films, to one channel of numbers.

Time is counted in samples from the track's first one: a track that begins later than the film, or that leaves a gap, is
neither shifted nor filled, and what an encoder put before and behind the sound is dropped where the file says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from domain.manifest import Code
from engine.data import containers, limits
from engine.data.limits import Undecodable

_WHAT = "sound"
#: Packets read beyond what is wanted: an encoder's silence before the sound is at most so long.
_LEAD_S = 0.5


@dataclass(frozen=True)
class _Track:
    """The packets that are wanted, and how long the whole track is."""

    stream: Any
    packets: Sequence[Any]
    seconds: float


def probe(data: bytes, max_seconds: float | None) -> float:
    """The sound's length in seconds; raises Undecodable unless it is there up to `max_seconds` and can be decoded."""
    with containers.opened(data, _WHAT) as container:
        track = _wanted(container, len(data), max_seconds)
        next(_frames(track))
        # A file that was cut off ends in the middle of a packet.
        track.stream.codec_context.flush_buffers()
        _decoded(track.stream.codec_context, track.packets[-1])
        return track.seconds


def mono(data: bytes, max_seconds: float | None) -> tuple[NDArray[np.float32], int]:
    """The mean of all channels up to `max_seconds`, and its sampling rate."""
    with containers.opened(data, _WHAT) as container:
        frames = _frames(_wanted(container, len(data), max_seconds))
        first = next(frames)
        rate, done, blocks = first.sample_rate, 0, []
        for frame in chain([first], frames):
            if frame.sample_rate != rate:
                raise limits.damaged(_WHAT, "its sampling rate changes")
            blocks.append(_mixed(frame))
            done += len(blocks[-1])
            wanted = limits.wanted_samples(done, rate, max_seconds)
            if wanted < done:
                break
        return np.concatenate(blocks)[:wanted], rate


def _wanted(container: InputContainer, size: int, max_seconds: float | None) -> _Track:
    stream = containers.track(container, "audio")
    if stream is None:
        raise Undecodable(Code.ZERO_DURATION, "there is no sound in this file; give it one, or write null")
    context = containers.decoder(container, stream, _WHAT, "WAV, FLAC or AAC")
    limits.check_rate(context.sample_rate)
    context.thread_count = 1
    said = containers.said_seconds(container, stream)
    if said is not None:
        limits.wanted_samples(said * context.sample_rate, context.sample_rate, max_seconds)
    kept: list[Any] = []
    seconds, is_enough = 0.0, False
    for packet in containers.packets(container, stream, size, _WHAT):
        if not is_enough:
            kept.append(packet)
        seconds += float((packet.duration or 0) * stream.time_base)
        limits.wanted_samples(seconds * context.sample_rate, context.sample_rate, max_seconds)
        is_enough = max_seconds is not None and seconds > max_seconds + _LEAD_S
        if is_enough and said is not None:
            seconds = said
            break
    if not kept:
        raise limits.no_length(_WHAT)
    return _Track(stream, kept, seconds or said or 0.0)


def _frames(track: _Track) -> Iterator[Any]:
    is_empty = True
    for packet in [*track.packets, None]:
        for frame in _decoded(track.stream.codec_context, packet):
            is_empty = False
            yield frame
    if is_empty:
        raise limits.no_length(_WHAT)


def _decoded(context: Any, packet: Any) -> Sequence[Any]:
    frames: Sequence[Any] = context.decode(packet)
    if any(frame.is_corrupt for frame in frames):
        raise limits.damaged(_WHAT, "a part of it cannot be decoded")
    return frames


def _mixed(frame: Any) -> NDArray[np.float32]:
    """The mean of a frame's channels in -1..1, whatever its numbers are."""
    samples = frame.to_ndarray()  # [channels, samples], or [1, samples * channels] where channels alternate
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mean = samples.mean(axis=0, dtype=np.float64)
    if samples.dtype == np.uint8:
        mean = (mean - 128) / 128
    elif samples.dtype.kind == "i":
        mean /= 2.0 ** (8 * samples.itemsize - 1)
    return mean.astype(np.float32)
