"""Media that are far more than they seem, or have no end: real bytes, a few kilobytes to some megabytes each."""

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

#: Of sounds that last.
HOURS = 10


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, rows: int) -> bytes:
    """A grey picture of which only the first `rows` are there; all of them for a picture that is whole."""
    packed = zlib.compressobj(9)
    lines = b"".join(packed.compress(bytes(1 + width)) for _ in range(rows)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", lines), (b"IEND", b""))
    )


def png_with_text(megabytes: int) -> bytes:
    """A small picture, with a comment that unpacks to far more."""
    data = b"comment\0\0" + zlib.compress(bytes(megabytes * 2**20), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    small = saved(Image.new("L", (8, 8)), "PNG")
    return small[:33] + chunk + small[33:]


def gif(width: int, height: int) -> bytes:
    small = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    small[6:10] = struct.pack("<HH", width, height)
    return bytes(small)


def endless_gif(frames: int) -> bytes:
    small = saved(Image.new("P", (1, 1)), "GIF")
    # Up to the colour table's end; then the same frame again and again, and no trailer.
    start = small.index(b",", 13)
    frame = b"!\xf9\4\0\x0a\0\0\0" + small[start:-1]
    return small[:start] + frame * frames


def webp(side: int) -> bytes:
    """A picture whose header says `side` (14 bits)."""
    small = bytearray(saved(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    place = small.index(b"VP8L") + 9
    (word,) = struct.unpack_from("<I", small, place)
    struct.pack_into("<I", small, place, word & ~0xFFFFFFF | (side - 1) | (side - 1) << 14)
    return bytes(small)


def jpeg(width: int, height: int) -> bytes:
    small = bytearray(saved(Image.new("RGB", (8, 8)), "JPEG"))
    place = small.index(b"\xff\xc0") + 5
    small[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(small)


def tiff(width: int, height: int) -> bytes:
    """Packed by deflate, as one strip of which there is only the beginning."""
    small = bytearray(saved(Image.new("L", (8, 8)), "TIFF", compression="tiff_adobe_deflate"))
    (place,) = struct.unpack_from("<I", small, 4)
    (entries,) = struct.unpack_from("<H", small, place)
    for entry in range(place + 2, place + 2 + 12 * entries, 12):
        (tag,) = struct.unpack_from("<H", small, entry)
        if tag in (256, 257, 278):
            struct.pack_into("<HIHH", small, entry + 2, 4, 1, 0, 0)
            struct.pack_into("<I", small, entry + 8, width if tag == 256 else height)
    return bytes(small)


def wav_that_says(samples: int, rate: int = 16_000) -> bytes:
    """One second, and a header that says more."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(rate, np.int16), rate, format="WAV")
    data = bytearray(buffer.getvalue())
    struct.pack_into("<I", data, 4, min(2**32 - 1, 36 + 2 * samples))
    struct.pack_into("<I", data, 40, min(2**32 - 1, 2 * samples))
    return bytes(data)


def flac(hours: float, rate: int = 8000) -> bytes:
    """Silence."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, format="FLAC") as out:
        minute = np.zeros(60 * rate, np.int16)
        for _ in range(round(hours * 60)):
            out.write(minute)
    return buffer.getvalue()


def silence(container: str, codec: str, hours: float, *, rate: int = 48_000, film: bool = False) -> bytes:
    """Silence whose packets are all the same one, in a film of one frame if it is a `film`."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        if film:
            pictures: Any = out.add_stream("libx264", rate=1)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream(codec, rate=rate, layout="mono")
        if film:
            out.mux([*pictures.encode(av.VideoFrame(64, 48, "yuv420p")), *pictures.encode()])
        packet, size = _packet(sound, rate)
        for number in range(round(hours * 3600 * rate / size)):
            copy = av.Packet(packet)
            copy.stream, copy.time_base = sound, Fraction(1, rate)
            copy.pts = copy.dts = number * size
            copy.duration = size
            out.mux(copy)
    return buffer.getvalue()


def _packet(sound: Any, rate: int) -> tuple[bytes, int]:
    """A packet from the middle of silence, and how many samples it holds."""
    found: list[bytes] = []
    context = sound.codec_context
    context.open(strict=False)
    size = context.frame_size
    for number in range(8):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.float32), format="fltp", layout="mono")
        if context.format.name != "fltp":
            frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.int16), format="s16", layout="mono")
        frame.rate, frame.pts = rate, number * size
        found += [bytes(packet) for packet in sound.encode(frame)]
    return found[-1], size
