"""A few frames of a film, beside the two obvious loops: `python -m benchmarks.engine.video_decoding [--quick] [--out folder]`.

`everything` decodes all and converts what it keeps; `seeking` seeks to each wanted time and decodes on from there. All
have one thread and take turns; each round is one call of each, from the bytes to the array.
"""

import argparse
import csv
import io
import os
import platform
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from PIL import Image

from engine.data import decode

ROOT = Path(__file__).parents[2]
CODECS = {
    "h264": ("mp4", "libx264", {"preset": "fast"}),
    "vp9": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}
SIZES = ((320, 240), (1280, 720))
GOPS = (12, 30, 60, 250)
WANTED = (4, 16)
FPS, SECONDS = 25, 15


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument(
        "--quick", action="store_true", help="one small clip, one round: whether it runs at all"
    )
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine")
    options = asked.parse_args()
    rows = []
    sizes, rounds, seconds = (SIZES[:1], 1, 2) if options.quick else (SIZES, 7, SECONDS)
    for codec in CODECS:
        for size in sizes:
            for gop in GOPS:
                data = clip(codec, size, gop, seconds)
                for wanted in WANTED:
                    rows.append(
                        {"codec": codec, "size": f"{size[0]}x{size[1]}", "gop": gop, "frames": wanted}
                    )
                    rows[-1] |= measured(data, wanted, rounds)
                    print(*(f"{name}={value}" for name, value in rows[-1].items()), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "video_decoding.csv", rows)


def clip(codec: str, size: tuple[int, int], gop: int, seconds: int) -> bytes:
    """A camera that moves over a blurred ground; `gop` frames from one key frame to the next."""
    container, encoder, options = CODECS[codec]
    width, height = size
    coarse = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize((2 * width, 2 * height)))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(encoder, rate=FPS, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.options |= {"keyint_min": str(gop)}
        for number in range(FPS * seconds):
            seen = ground[number % height :, 2 * number % width :][:height, :width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(seen), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def measured(data: bytes, wanted: int, rounds: int) -> dict[str, Any]:
    contenders: dict[str, Callable[[bytes, int], np.ndarray]] = {
        "ours": lambda data, wanted: decode.video(data, num_frames=wanted),
        "everything": everything,
        "seeking": seeking,
    }
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            began = time.perf_counter()
            got = call(data, wanted)
            took[name].append(time.perf_counter() - began)
            assert len(got) == wanted
    row: dict[str, Any] = {f"{name}_ms": round(1000 * median(times), 1) for name, times in took.items()}
    for name in ("everything", "seeking"):
        ratios = [theirs / ours for ours, theirs in zip(took["ours"], took[name], strict=True)]
        row[f"{name}_over_ours"] = round(median(ratios), 2)
    return row


def everything(data: bytes, wanted: int) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        chosen = set(middles(length(container), wanted))
        frames = enumerate(container.decode(stream))
        return np.stack([frame.to_ndarray(format="rgb24") for number, frame in frames if number in chosen])


def seeking(data: bytes, wanted: int) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        pictures = []
        for number in middles(length(container), wanted):
            at = round(number / FPS / stream.time_base)
            container.seek(at, stream=stream)
            frame = next(frame for frame in container.decode(stream) if frame.pts >= at)
            pictures.append(frame.to_ndarray(format="rgb24"))
        return np.stack(pictures)


def length(container: Any) -> int:
    return round(container.duration / av.time_base * FPS)


def middles(total: int, wanted: int) -> list[int]:
    return [(2 * part + 1) * total // (2 * wanted) for part in range(wanted)]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """The rows, each with what they were measured on."""
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "av": version("av")}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *machine])
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)


if __name__ == "__main__":
    main()
