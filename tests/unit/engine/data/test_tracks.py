"""Sounds that soundfile cannot open, and the sound of films: what is read of them, and what is refused."""

import io
import subprocess
import sys
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from engine.data import decode, limits, probe
from engine.data.decode import Undecodable
from support import zoo
from support.zoo import Film, Tone

HZ = 16_000


def refused(call: Any, *given: Any, **options: Any) -> str:
    with pytest.raises(Undecodable) as error:
        call(*given, **options)
    return str(error.value.code)


def refused_by_both(data: bytes) -> str:
    code = refused(probe.probe_audio, data)
    assert refused(decode.audio, data, sampling_rate=HZ) == code
    return code


def wave(seconds: float, pitch: float = zoo.PITCH, rate: int = 48_000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def written(
    container: str, codec: str, *tracks: np.ndarray, starts: tuple[float, ...] = (0.0,), marks: Any = ()
) -> bytes:
    """Tracks in mono at 48 kHz, each written once for every start."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        streams = [out.add_stream(codec, rate=48_000) for _ in tracks]
        for stream in streams:
            stream.layout = "mono"
        for stream, mark in zip(streams, marks, strict=False):
            stream.disposition = mark
        for stream, samples in zip(streams, tracks, strict=True):
            for start in starts:
                frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
                frame.rate, frame.time_base = 48_000, Fraction(1, 48_000)
                frame.pts = round(start * 48_000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return buffer.getvalue()


#: The samples that a block of TTA has at 48 kHz.
_BLOCK = 48_000 * 256 // 245


def ten_hours() -> bytes:
    """Silence in large blocks of a lossless codec."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("tta", rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, _BLOCK), np.int16), "s16p", "mono")
        frame.rate, frame.pts = 48_000, 0
        block = (stream.encode(frame) + stream.encode(None))[0]
        length = block.duration
        for number in range(10 * 3600 * 48_000 // length):
            packet = av.Packet(bytes(block))
            packet.stream, packet.time_base = stream, block.time_base
            packet.pts = packet.dts = number * length
            packet.duration = length
            out.mux(packet)
    return buffer.getvalue()


def test_the_silence_that_an_encoder_puts_before_a_sound_is_dropped() -> None:
    sound = decode.audio(zoo.heard(Tone("ipod", "aac", layout="mono")), sampling_rate=48_000)

    # A thousand samples of silence would make this half as loud as the tone itself.
    assert np.abs(sound[:40_000] - wave(1.0)[:40_000]).mean() < 0.03


def test_a_track_that_begins_later_than_its_film_is_not_shifted() -> None:
    data = zoo.filmed(Film("matroska", "libx264", sound="pcm_s16le", sound_starts_s=0.5))

    sound = decode.audio(data, sampling_rate=48_000)

    assert len(sound) == 2 * 48_000
    np.testing.assert_allclose(sound, wave(2.0), atol=1e-3)


def test_a_gap_in_a_track_is_not_filled() -> None:
    data = written("matroska", "pcm_f32le", wave(0.5), starts=(0.0, 10.0))

    assert len(decode.audio(data, sampling_rate=48_000)) == 48_000
    assert probe.probe_audio(data) == pytest.approx(1.0, abs=0.01)


def test_max_seconds_counts_what_is_heard_and_no_gap() -> None:
    data = written("matroska", "pcm_f32le", wave(0.5), starts=(0.0, 10.0))

    assert len(decode.audio(data, sampling_rate=48_000, max_seconds=0.8)) == 0.8 * 48_000


def test_many_channels_become_their_mean() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("pcm_f32le", rate=48_000)
        stream.layout = "5.1"
        loud_left = np.zeros((4800, 6), np.float32)
        loud_left[:, 0] = 0.6
        frame = av.AudioFrame.from_ndarray(loud_left.reshape(1, -1), "flt", "5.1")
        frame.rate = 48_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    np.testing.assert_allclose(decode.audio(buffer.getvalue(), sampling_rate=48_000), 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("marks", "pitch"),
    [((Disposition.default, Disposition.dub), 300), ((Disposition.dub, Disposition.default), 700)],
    ids=["first", "second"],
)
def test_of_several_tracks_the_one_marked_as_default_is_heard(marks: Any, pitch: float) -> None:
    data = written("matroska", "flac", wave(0.5, 300), wave(0.5, 700), marks=marks)

    assert zoo.pitch(decode.audio(data, sampling_rate=HZ), HZ) == pytest.approx(pitch, abs=2)


def test_of_several_tracks_without_a_mark_the_first_is_heard() -> None:
    data = written("mpegts", "mp2", wave(0.5, 300), wave(0.5, 700))

    assert zoo.pitch(decode.audio(data, sampling_rate=HZ), HZ) == pytest.approx(300, abs=2)


def test_a_film_without_sound_has_none() -> None:
    assert refused_by_both(zoo.filmed(Film("mp4", "libx264", frames=2))) == "zero_duration"


def test_ten_hours_are_refused_but_their_first_seconds_can_be_read() -> None:
    data = ten_hours()

    assert refused_by_both(data) == "too_large"
    assert len(decode.audio(data, sampling_rate=HZ, max_seconds=5)) == 5 * HZ
    assert probe.probe_audio(data, max_seconds=5) == pytest.approx(36_000, rel=0.01)


def test_a_sound_that_would_fill_the_memory_is_refused_unless_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = zoo.heard(Tone("ipod", "alac"))
    monkeypatch.setattr(limits, "MAX_SAMPLES", 40_000)

    assert refused_by_both(data) == "too_large"
    assert len(decode.audio(data, sampling_rate=HZ, max_seconds=0.5)) == HZ // 2


@pytest.mark.parametrize(
    "kind",
    [
        Tone("ipod", "aac"),
        Tone("mp4", "aac", muxing={"movflags": "frag_keyframe+empty_moov"}),
        Tone("matroska", "flac"),
        Tone("webm", "libopus"),
        Tone("wv", "wavpack"),
        Tone("tta", "tta"),
        Tone("avi", "pcm_s16le"),
        Tone("flv", "libmp3lame", rate=44_100),
        Tone("adts", "aac"),
        Tone("ac3", "ac3"),
    ],
    ids=lambda kind: f"{kind.container} {kind.codec} {dict(kind.muxing) or ''}",
)
def test_a_sound_that_was_cut_off_is_refused_by_check_and_decoder_alike(kind: Tone) -> None:
    whole = zoo.heard(kind)

    assert refused_by_both(whole[: len(whole) * 3 // 5 + 7]) == "unreadable_media"


def test_of_a_sound_that_was_cut_off_the_whole_part_can_be_read() -> None:
    whole = zoo.heard(Tone("matroska", "flac", seconds=3))
    half = whole[: len(whole) // 2]

    assert refused_by_both(half) == "unreadable_media"
    assert len(decode.audio(half, sampling_rate=HZ, max_seconds=0.5)) == HZ // 2
    assert probe.probe_audio(half, max_seconds=0.5) == pytest.approx(3, abs=0.05)


def test_a_part_that_cannot_be_decoded_is_not_guessed() -> None:
    data = bytearray(zoo.heard(Tone("matroska", "flac")))
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)

    assert refused(decode.audio, bytes(data), sampling_rate=HZ) == "unreadable_media"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"this is no sound",
        b"\0\0\0\x20ftypM4A ",
        b"\x1aE\xdf\xa3 a film",
        b"#!AMR\n",
        b"0&\xb2u\x8ef\xcf\x11",
    ],
    ids=["empty", "text", "m4a", "webm", "amr", "wma"],
)
def test_half_a_header_is_refused(data: bytes) -> None:
    assert refused_by_both(data) in ("unreadable_media", "zero_duration")


def test_who_reads_common_sounds_and_pictures_does_not_wait_for_ffmpeg() -> None:
    program = """
import io, sys
from support.datasets import png, wav
import numpy as np
from engine.data import decode, probe
for format in ("WAV", "FLAC", "OGG", "MP3"):
    sound = wav(np.zeros(4800), format=format)
    probe.probe_audio(sound)
    decode.audio(sound, sampling_rate=16_000)
decode.image(png(np.zeros((2, 2, 3), np.uint8)))
sys.exit("av" in sys.modules)
"""

    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
