"""Films become the frames that are asked for, as they look; what cannot be shown is refused by code."""

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from engine.data import decode, limits, probe
from engine.data.decode import Undecodable
from support import zoo
from support.datasets import wav
from support.zoo import Film, Tone

H264 = Film("mp4", "libx264", gop=8)
_X265 = "log-level=none:pools=1:frame-threads=1:keyint=12:bframes=4:open-gop=1"
#: Every way in which frames lean on one another; a dozen frames from key frame to key frame.
LEANING = {
    "h264, B-pyramid": ("mp4", "libx264", {"preset": "fast", "bf": "3"}),
    "h264, open groups": (
        "mpegts",
        "libx264",
        {"preset": "fast", "bf": "3", "x264-params": "open-gop=1:keyint=12"},
    ),
    "h264, no key frame but the first": ("matroska", "libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "hevc, open groups": ("mp4", "libx265", {"preset": "fast", "x265-params": _X265}),
    "mpeg2, open groups": ("vob", "mpeg2video", {"bf": "2"}),
    "mpeg4": ("avi", "mpeg4", {"bf": "2"}),
    "vp8, hidden frames": ("webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
    "vp9, hidden frames": (
        "webm",
        "libvpx-vp9",
        {"deadline": "good", "cpu-used": "5", "lag-in-frames": "16"},
    ),
    "av1": ("mp4", "libsvtav1", {"preset": "10"}),
    "ms-mpeg4": ("avi", "msmpeg4", {}),
    "mjpeg": ("avi", "mjpeg", {}),
}


def refused(call: Any, *given: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(Undecodable) as error:
        call(*given, **options)
    return str(error.value.code), error.value.message


def moving(container: str, codec: str, options: dict[str, str], frames: int = 60) -> bytes:
    """A camera that moves over a ground of coloured spots."""
    if codec == zoo.AV1:
        return (zoo.KEPT / "moving-av1.mp4").read_bytes()
    coarse = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize((256, 192)))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options=dict(options))
        stream.width, stream.height = 128, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = 12, 1
        for number in range(frames):
            seen = ground[number % 96 :, 2 * number % 128 :][:96, :128]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(seen), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def every_frame(data: bytes) -> np.ndarray:
    """The obvious way: all frames from the beginning."""
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def numbers(pictures: np.ndarray) -> list[int]:
    return [zoo.number(picture) for picture in pictures]


@pytest.mark.parametrize("name", LEANING)
def test_frames_that_are_reached_by_jumping_are_bit_for_bit_those_decoded_in_order(name: str) -> None:
    data = moving(*LEANING[name])
    in_order = every_frame(data)

    for wanted in (1, 2, 3, 5, 8, 16):
        middles = [(2 * part + 1) * len(in_order) // (2 * wanted) for part in range(wanted)]
        np.testing.assert_array_equal(decode.video(data, num_frames=wanted), in_order[middles])


@pytest.mark.parametrize("name", ["h264, B-pyramid", "hevc, open groups", "vp9, hidden frames"])
def test_more_threads_give_the_same_frames(name: str) -> None:
    data = moving(*LEANING[name])

    alone, together = (decode.video(data, num_frames=7, threads=threads) for threads in (1, 3))

    np.testing.assert_array_equal(alone, together)


def test_a_film_of_uneven_rate_is_looked_at_by_its_times() -> None:
    stamps = [0, 1, 2, 3, 20, 21, 22, 23]
    data = zoo.filmed(Film("matroska", "libx264", frames=8, stamps=stamps))

    assert numbers(decode.video(data, num_frames=4)) == [3, 5]


def test_a_film_of_few_frames_is_not_padded() -> None:
    data = zoo.filmed(Film("mp4", "libx264", frames=3))

    assert numbers(decode.video(data, num_frames=16)) == [0, 1, 2]


def test_a_film_of_one_frame_is_a_film() -> None:
    data = zoo.filmed(Film("mp4", "libx264", frames=1))

    assert numbers(decode.video(data, num_frames=4)) == [0]
    assert probe.probe_video(data).frames == 1


def test_the_head_of_a_film_is_its_first_frames() -> None:
    assert numbers(decode.video(zoo.filmed(H264), num_frames=3, sampling="head")) == [0, 1, 2]


def test_what_lies_behind_max_seconds_is_not_seen() -> None:
    data = zoo.filmed(H264)

    assert numbers(decode.video(data, num_frames=4, max_seconds=1)) == [1, 4, 7, 10]
    film, whole = probe.probe_video(data, max_seconds=1), probe.probe_video(data)
    assert (film.seconds, film.frames) == (pytest.approx(2), whole.frames / 2)


@pytest.mark.parametrize(
    ("turn", "corner", "shape"),
    [
        ((0, False, False), "upper left", (48, 64)),
        ((-90, False, False), "upper right", (64, 48)),
        ((180, False, False), "lower right", (48, 64)),
        ((90, False, False), "lower left", (64, 48)),
        ((0, True, False), "upper right", (48, 64)),
        ((0, False, True), "lower left", (48, 64)),
        ((-90, True, False), "upper left", (64, 48)),
        ((90, True, False), "lower right", (64, 48)),
        ((45, False, False), "upper left", (48, 64)),
    ],
)
def test_a_film_taken_sideways_is_turned_upright(
    turn: tuple[int, bool, bool], corner: str, shape: tuple[int, int]
) -> None:
    data = zoo.filmed(Film("mov", "libx264", frames=2, turn=turn))

    pictures = decode.video(data, num_frames=1)

    assert zoo.red_corner(pictures[0]) == corner
    assert pictures.shape[1:3] == shape
    found = probe.probe_video(data)
    assert (found.height, found.width) == shape


def test_oblong_pixels_become_square() -> None:
    data = zoo.filmed(Film("mp4", "libx264", frames=2, settings={"sample_aspect_ratio": Fraction(3, 2)}))

    assert decode.video(data, num_frames=1).shape == (1, 48, 96, 3)
    assert probe.probe_video(data).width == 96


def test_the_shorter_side_is_made_as_small_as_asked_for_and_never_larger() -> None:
    wide = zoo.filmed(Film("mp4", "libx264", frames=2, size=(128, 96)))
    high = zoo.filmed(Film("mp4", "libx264", frames=2, size=(128, 96), turn=(90, False, False)))

    assert decode.video(wide, num_frames=1, size=48).shape == (1, 48, 64, 3)
    assert decode.video(high, num_frames=1, size=48).shape == (1, 64, 48, 3)
    assert decode.video(wide, num_frames=1, size=1000).shape == (1, 96, 128, 3)


@pytest.mark.parametrize(("container", "codec", "pixels"), [("mov", "png", "rgba"), ("mov", "qtrle", "argb")])
def test_transparency_lies_on_white(container: str, codec: str, pixels: str) -> None:
    clear = np.zeros((48, 64, 4), np.uint8)
    clear[:, :32] = (0, 0, 255, 255)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        out.mux(stream.encode(av.VideoFrame.from_ndarray(clear, "rgba")))
        out.mux(stream.encode(None))

    picture = decode.video(buffer.getvalue(), num_frames=1)[0]

    assert picture[0, 0].tolist() == [0, 0, 255]
    assert picture[0, -1].tolist() == [255, 255, 255]


def test_a_film_among_other_tracks_is_found() -> None:
    """The second picture track is the one that is marked as default."""
    buffer = io.BytesIO()
    subtitles = io.BytesIO(b"1\n00:00:00,000 --> 00:00:01,000\na word\n")
    with av.open(subtitles, format="srt") as spoken, av.open(buffer, "w", format="matroska") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        words = out.add_stream_from_template(spoken.streams[0])
        for number, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.disposition = Disposition.default if number else Disposition.dub
        for number, stream in enumerate(streams):
            frame = av.VideoFrame.from_ndarray(zoo.frame(5 + number), "rgb24")
            frame.pts = 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        for line in spoken.demux():
            if line.size:
                line.stream = words
                out.mux(line)

    assert numbers(decode.video(buffer.getvalue(), num_frames=1)) == [6]


@pytest.mark.parametrize(
    "kind",
    [
        Film("mp4", "libx264", gop=8),
        Film("mp4", "libx264", gop=8, muxing={"movflags": "faststart"}),
        Film("mp4", "libx264", gop=8, muxing={"movflags": "frag_keyframe+empty_moov"}),
        Film("matroska", "libx264", gop=8),
        Film("webm", "libvpx", options={"deadline": "realtime"}),
        Film("avi", "mpeg4"),
        Film("flv", "flv"),
    ],
    ids=lambda kind: f"{kind.container} {dict(kind.muxing) or ''}",
)
def test_a_film_that_was_cut_off_is_refused_by_check_and_decoder_alike(kind: Film) -> None:
    whole = zoo.filmed(kind)
    half = whole[: len(whole) * 11 // 20]

    assert refused(probe.probe_video, half)[0] == "unreadable_media"
    assert refused(decode.video, half, num_frames=2)[0] == "unreadable_media"


def test_of_a_film_that_was_cut_off_the_whole_part_can_be_read() -> None:
    whole = zoo.filmed(Film("mp4", "mjpeg", pixels="yuvj420p", muxing={"movflags": "faststart"}))
    half = whole[: len(whole) * 3 // 4]

    film = probe.probe_video(half, max_seconds=0.5)
    assert (film.seconds, film.frames) == (pytest.approx(2), probe.probe_video(whole).frames / 4)
    assert numbers(decode.video(half, num_frames=2, max_seconds=0.5)) == [1, 4]


@pytest.mark.parametrize("name", ["h264, B-pyramid", "mpeg4", "mpeg2, open groups", "av1", "mjpeg"])
def test_a_frame_that_is_wanted_and_damaged_is_not_guessed(name: str) -> None:
    data = bytearray(moving(*LEANING[name]))
    for at in range(len(data) // 4, len(data) * 3 // 4, 97):
        data[at] ^= 0x5A

    assert refused(decode.video, bytes(data), num_frames=60)[0] == "unreadable_media"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable_media"),
        (b"this is no film", "unreadable_media"),
        (b"\0\0\0\x18ftypmp42", "unreadable_media"),
        (b"\x1aE\xdf\xa3 a film", "unreadable_media"),
        (wav(np.zeros(100)), "unreadable_media"),
        (zoo.heard(Tone("mp4", "aac", seconds=0.2)), "unreadable_media"),
        (zoo.filmed(Film("webp", "libwebp_anim", pixels="bgra", frames=2)), "unreadable_media"),
        (zoo.filmed(Film("mp4", "libx264", frames=1)).replace(b"avc1", b"zzzz"), "unsupported_codec"),
        (zoo.filmed(Film("avi", "mpeg4", frames=0)), "zero_duration"),
    ],
    ids=[
        "empty",
        "text",
        "half a header",
        "webm",
        "wav",
        "sound in mp4",
        "webp",
        "no such codec",
        "no frames",
    ],
)
def test_what_is_no_film_is_refused(data: bytes, code: str) -> None:
    assert refused(probe.probe_video, data)[0] == code
    assert refused(decode.video, data, num_frames=4)[0] == code


def test_a_codec_that_is_not_decoded_is_named_with_what_to_do() -> None:
    unknown = zoo.filmed(Film("mp4", "libx264", frames=1)).replace(b"avc1", b"zzzz")
    known = zoo.filmed(Film("mp4", "libx264", frames=1)).replace(b"avc1", b"evc1")

    assert "zzzz" in refused(probe.probe_video, unknown)[1]
    assert refused(probe.probe_video, known)[1].endswith(
        "codec (evc) cannot be decoded here; convert it to H.264, VP9 or AV1"
    )


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("mp3", "libmp3lame"), ("flac", "flac")])
def test_a_sound_with_a_cover_is_no_film(container: str, codec: str) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        sound, cover = out.add_stream(codec, rate=48_000), out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(zoo.frame(3), "rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), "fltp", "stereo")
        silence.rate = 48_000
        out.mux(sound.encode(silence))
        out.mux(sound.encode(None))
    data = buffer.getvalue()

    assert refused(probe.probe_video, data)[0] == "unreadable_media"
    assert probe.probe_audio(data) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ("MAX_PIXELS", 64 * 48 - 1),
        ("MAX_FRAMES", 9),
        ("MAX_FRAME_BYTES", 64 * 48 * 3 * 9),
        ("MAX_PACKETS", 9),
    ],
)
def test_a_film_that_would_fill_the_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    data = zoo.filmed(H264)
    monkeypatch.setattr(limits, limit, most)

    assert refused(decode.video, data, num_frames=10)[0] == "too_large"


def test_a_film_that_claims_to_last_for_days_is_refused_unless_it_is_cut() -> None:
    days = 3 * 24 * 3600 * zoo.RATE
    data = zoo.filmed(Film("matroska", "libx264", frames=4, stamps=[0, 1, 2, days]))

    assert refused(decode.video, data, num_frames=2)[0] == "too_large"
    assert numbers(decode.video(data, num_frames=2, max_seconds=0.25)) == [0, 2]


def test_a_film_whose_frames_have_one_time_is_counted() -> None:
    """25 frames a second are taken where times say nothing."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="nut") as out:
        stream = out.add_stream("mjpeg", rate=zoo.RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(zoo.FRAMES):
            frame = av.VideoFrame.from_ndarray(zoo.frame(number), "rgb24")
            for packet in stream.encode(frame):
                packet.pts = packet.dts = 0
                out.mux(packet)

    assert numbers(decode.video(buffer.getvalue(), num_frames=4)) == [3, 9, 15, 21]


def test_nothing_is_said_aloud_about_a_broken_film(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(zoo.filmed(H264))
    data[60:900] = bytes(840)
    capfd.readouterr()

    refused(decode.video, bytes(data), num_frames=24)

    assert capfd.readouterr() == ("", "")
