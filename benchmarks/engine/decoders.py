"""Decoding in processes beside decoding in threads: `python -m benchmarks.engine.decoders [--quick] [--out folder]`.

Both have as many threads that ask as the machine has cores, take turns, and end with arrays in this process. CPU is that
of this process and of its decoders together, which a busy machine changes less than the time on the clock.
"""

import argparse
import csv
import io
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import psutil
import soundfile
from PIL import Image

from domain.manifest import ColumnType
from engine.data.decoders.pool import Decoders
from engine.data.values import Reading, read_value

ROOT = Path(__file__).parents[2]
RATE, FPS = 44_100, 25
PICTURE, SOUND = Reading(ColumnType.IMAGE), Reading(ColumnType.AUDIO, sampling_rate=16_000, max_seconds=30)
FILM = Reading(ColumnType.VIDEO, num_frames=8, frame_size=224)


@dataclass(frozen=True)
class Medium:
    name: str
    data: bytes
    reading: Reading
    #: Of one round.
    items: int


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument(
        "--quick", action="store_true", help="two rounds of a few items: whether it runs at all"
    )
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine")
    options = asked.parse_args()
    rows = []
    for medium in media():
        rows.append({"medium": medium.name, "bytes": len(medium.data)})
        rows[-1] |= measured(medium, 2 if options.quick else 15, options.quick)
        print(*(f"{name}={value}" for name, value in rows[-1].items()), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "decoders.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def media() -> Iterator[Medium]:
    noise = np.random.default_rng(0)
    coarse = Image.fromarray(noise.integers(0, 256, (100, 150, 3), dtype=np.uint8))
    yield Medium("8x8 PNG", saved(coarse.resize((8, 8)), "PNG"), PICTURE, 200)
    yield Medium("500x375 JPEG", saved(coarse.resize((500, 375)), "JPEG"), PICTURE, 60)
    yield Medium("1200x800 JPEG", saved(coarse.resize((1200, 800)), "JPEG"), PICTURE, 20)
    yield Medium("4000x3000 JPEG", saved(coarse.resize((4000, 3000)), "JPEG"), PICTURE, 2)
    tone = np.sin(np.arange(2 * RATE) / 20) * 0.3 + noise.normal(0, 0.01, 2 * RATE)
    for kind in ("WAV", "FLAC", "MP3"):
        buffer = io.BytesIO()
        soundfile.write(buffer, tone, RATE, format=kind)
        yield Medium(f"2 s {kind}", buffer.getvalue(), SOUND, 40)
    yield Medium("5 s H.264 film, 640x360", film(coarse.resize((1280, 720))), FILM, 4)


def saved(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def film(ground: Image.Image) -> bytes:
    """A camera that moves over a blurred ground."""
    pixels, buffer = np.asarray(ground), io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=FPS, options={"preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(5 * FPS):
            part = np.ascontiguousarray(pixels[number : number + 360, 2 * number : 2 * number + 640])
            frame = av.VideoFrame.from_ndarray(part, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def measured(medium: Medium, rounds: int, is_quick: bool) -> dict[str, Any]:
    """Medians over rounds; a ratio is one round's, and above 1 where the processes win."""
    cores, items = os.cpu_count() or 1, 4 if is_quick else medium.items
    found: dict[str, list[float]] = {name: [] for name in ("threads", "processes", "alone", "asked")}
    cpu: dict[str, list[float]] = {"threads": [], "processes": []}
    with Decoders() as decoders, ThreadPoolExecutor(cores) as callers:

        def everything(read: Callable[[bytes, Reading], Any]) -> None:
            for _ in callers.map(lambda _: read(medium.data, medium.reading), range(items * cores)):
                pass

        for read in (read_value, decoders.read):
            # Until there are as many processes as are of use.
            for _ in range(2 if is_quick else 10):
                everything(read)
        for _ in range(rounds):
            for name, read in (("threads", read_value), ("processes", decoders.read)):
                began, used = time.perf_counter(), spent(decoders)
                everything(read)
                found[name].append((time.perf_counter() - began) / items / cores)
                cpu[name].append((spent(decoders) - used) / items / cores)
            for name, read in (("alone", read_value), ("asked", decoders.read)):
                began = time.perf_counter()
                for _ in range(items):
                    read(medium.data, medium.reading)
                found[name].append((time.perf_counter() - began) / items)
        processes = len(decoders.pids)
    ratios = [a / b for a, b in zip(found["threads"], found["processes"], strict=True)]
    added = [b - a for a, b in zip(found["alone"], found["asked"], strict=True)]
    return {
        "threads_per_s": round(1 / median(found["threads"]), 1),
        "processes_per_s": round(1 / median(found["processes"]), 1),
        "processes_over_threads": round(median(ratios), 2),
        "threads_cpu_ms": round(1000 * median(cpu["threads"]), 3),
        "processes_cpu_ms": round(1000 * median(cpu["processes"]), 3),
        "added_ms_if_one_asks": round(1000 * median(added), 3),
        "processes": processes,
        "cores": cores,
        "python": platform.python_version(),
    }


def spent(decoders: Decoders) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in decoders.pids]
    return time.process_time() + sum(t.user + t.system for t in times)


if __name__ == "__main__":
    main()
