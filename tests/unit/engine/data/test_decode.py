"""Pictures and sounds become arrays as they look and sound; what cannot be read is refused by code."""

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from engine.data import decode, limits, probe
from engine.data.decode import Undecodable
from support.datasets import png, wav

RED, WHITE = [255, 0, 0], [255, 255, 255]


def saved(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def sine(rate: int, seconds: float = 1.0, pitch: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)


def refused(call: Any, *given: Any, **options: Any) -> str:
    with pytest.raises(Undecodable) as error:
        call(*given, **options)
    return str(error.value.code)


def test_a_picture_keeps_its_colours() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)

    decoded = decode.image(png(pixels))

    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGBA", (2, 2), (255, 0, 0, 255)),
        Image.new("RGB", (2, 2), "red").quantize(4),
        Image.new("CMYK", (2, 2), (0, 255, 255, 0)),
    ],
    ids=["alpha", "palette", "cmyk"],
)
def test_every_kind_of_red_is_red(picture: Image.Image) -> None:
    decoded = decode.image(saved(picture, "TIFF" if picture.mode == "CMYK" else "PNG"))

    assert decoded.tolist() == [[RED] * 2] * 2


def test_transparency_lies_on_white() -> None:
    assert decode.image(saved(Image.new("RGBA", (1, 1), (0, 0, 0, 0)))).tolist() == [[WHITE]]
    half = decode.image(saved(Image.new("RGBA", (1, 1), (255, 0, 0, 128))))[0, 0]
    assert abs(half.astype(int) - [255, 127, 127]).max() <= 1


def test_a_transparent_palette_colour_lies_on_white() -> None:
    picture = Image.new("P", (1, 1), 3)
    picture.putpalette([7] * 768)

    assert decode.image(saved(picture, "GIF", transparency=3)).tolist() == [[WHITE]]


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.array([[0, 257 * 100, 65535]], np.uint16)

    assert decode.image(png(grey))[0, :, 0].tolist() == [0, 100, 255]


def test_one_bit_is_black_and_white() -> None:
    assert decode.image(saved(Image.new("1", (1, 1), 1))).tolist() == [[WHITE]]


def test_a_picture_taken_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (40, 20), "red")

    assert decode.image(saved(picture, "JPEG", exif=exif)).shape == (40, 20, 3)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_a_film_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}

    film = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)

    assert decode.image(film)[0, 0].tolist() == RED


@pytest.mark.parametrize("call", [decode.image, probe.probe_image])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_that_was_cut_off_is_refused_by_check_and_decoder_alike(call: Any, format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = saved(Image.fromarray(noise), format)

    call(whole)

    assert refused(call, whole[: len(whole) * 3 // 5]) == "unreadable_media"


@pytest.mark.parametrize("call", [decode.image, probe.probe_image])
def test_a_picture_of_too_many_pixels_is_refused(call: Any) -> None:
    assert refused(call, saved(Image.new("1", (9000, 9000)))) == "too_large"


def test_a_picture_beyond_what_pillow_allows_is_too_large_too() -> None:
    assert refused(probe.probe_image, saved(Image.new("1", (15_000, 15_000)))) == "too_large"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable_media"),
        (b"this is no picture", "unreadable_media"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unreadable_media"),
        (b"\0\0\0\x18ftypheic", "unsupported_codec"),
        (saved(Image.new("F", (2, 2)), "TIFF"), "unsupported_codec"),
    ],
    ids=["empty", "text", "postscript", "heic", "float"],
)
def test_what_is_no_picture_is_refused(data: bytes, code: str) -> None:
    assert refused(decode.image, data) == code
    assert refused(probe.probe_image, data) == code


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_a_sound_is_mono_at_the_rate_that_was_asked_for(format: str) -> None:
    stereo = np.stack([sine(44_100), np.zeros(44_100)], axis=1)

    decoded = decode.audio(wav(stereo, 44_100, format), sampling_rate=16_000)

    assert decoded.dtype == np.float32
    assert abs(len(decoded) - 16_000) <= 1200
    middle = decoded[4000:12_000]
    spectrum = np.abs(np.fft.rfft(middle))
    assert abs(np.argmax(spectrum) * 16_000 / len(middle) - 440) < 5
    assert abs(np.abs(middle).max() - 0.25) < 0.02


def test_a_sound_at_the_right_rate_is_not_touched() -> None:
    decoded = decode.audio(wav(sine(16_000)), sampling_rate=16_000)

    np.testing.assert_allclose(decoded, sine(16_000), atol=1e-4)


def test_what_lies_behind_max_seconds_is_not_read() -> None:
    assert len(decode.audio(wav(sine(8000, 3), 8000), sampling_rate=16_000, max_seconds=0.5)) == 8000


def test_a_sound_that_would_fill_the_memory_is_refused_unless_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = wav(sine(8000, 2), 8000)
    monkeypatch.setattr(limits, "MAX_SAMPLES", 10_000)

    assert refused(decode.audio, data, sampling_rate=8000) == "too_large"
    assert refused(probe.probe_audio, data) == "too_large"
    assert len(decode.audio(data, sampling_rate=8000, max_seconds=1)) == 8000
    probe.probe_audio(data, max_seconds=1)


def test_a_sound_that_was_cut_off_is_refused_by_check_and_decoder_alike() -> None:
    data = wav(np.random.default_rng(0).uniform(-1, 1, 48_000), format="FLAC")[:30_000]

    assert refused(decode.audio, data, sampling_rate=16_000) == "unreadable_media"
    assert refused(probe.probe_audio, data) == "unreadable_media"


def test_samples_that_are_no_numbers_are_refused() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0.0, np.nan], np.float32), 16_000, format="WAV", subtype="FLOAT")

    assert refused(decode.audio, buffer.getvalue(), sampling_rate=16_000) == "unreadable_media"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable_media"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "unreadable_media"),
        (b"\x1aE\xdf\xa3 a film", "unreadable_media"),
        (wav(np.zeros(0)), "zero_duration"),
    ],
    ids=["empty", "half a header", "half a film", "no length"],
)
def test_what_is_no_sound_is_refused(data: bytes, code: str) -> None:
    assert refused(decode.audio, data, sampling_rate=16_000) == code
    assert refused(probe.probe_audio, data) == code
