"""Films, pictures and sounds from their bytes to arrays: Plait beside the obvious loop and Hugging Face's `datasets`.

    pip install --target hf --no-deps datasets==5.2.0 'dill<0.4.2' 'multiprocess<0.70.20' pandas xxhash python-dateutil six
    PYTHONPATH=hf:. OMP_NUM_THREADS=1 python -m benchmarks.engine.loading [--quick] [--note "a quiet machine"]

All give the same: of a film `num_frames` RGB frames whose shorter side is 224, of a picture its RGB pixels, of a sound
mono samples at 16 kHz. One thread each, in turns, `rounds` times; the order of the turns rotates.

- `loop`: PyAV decodes every frame, and the wanted ones are kept; Pillow; soundfile and scipy.
- `datasets`: `Dataset.with_transform` over bytes. Its own decoding of films and sounds wants torchcodec, and `Audio()` cannot
  even hold bytes without it: so `Video(decode=False)` with the `read_video_pyav` of transformers' documents, which ends at
  the last wanted frame, and `Value("binary")` with soundfile and scipy. `Image()` decodes by itself.
- `datasets_mapped`: the same by `Dataset.map`, read back from its Arrow file as numpy.
- `plait`: `engine.data.values.read_value`; `plait_cached`: what a trained tower does in its later epochs.
  `plait_hashed`: the cache asked with bytes that are hashed first. What the cache does not keep is decoded by all three.
"""

import argparse
import csv
import io
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import version
from math import gcd
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image
from scipy.signal import resample_poly

from benchmarks.engine.video_decoding import ROOT, clip, length, middles
from domain.manifest import ColumnType
from engine.data.entries import Entries
from engine.data.media_cache import KEPT, MediaCache, is_worth
from engine.data.values import Reading, read_value

SIDE, RATE = 224, 16_000
CODECS, SIZES, GOPS, WANTED = ("h264", "vp9"), ((320, 240), (1280, 720)), (12, 250), (4, 16)
SECONDS, CLIPS = 10, 1
#: What may be compared with: the better of these.
OTHERS = ("loop", "datasets")

Load = Callable[[int], np.ndarray]
Times = dict[str, list[float]]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="a few cells, one round: whether it runs at all")
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--note", default="", help="what else to say of the run, as a column")
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine")
    options = asked.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for about, media, reading in cells(options.quick):
            found = measured(Path(folder), media, reading, 1 if options.quick else options.rounds)
            rows.append({**about, "kilobytes": len(media[0]) // 1000, **found})
            print(*(f"{name}={value}" for name, value in rows[-1].items()), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "loading.csv", rows, options.note)


def cells(is_quick: bool) -> Any:
    """What is loaded, the bytes of a few, and how they are read."""
    codecs, sizes, gops = (CODECS[:1], SIZES[:1], GOPS[:1]) if is_quick else (CODECS, SIZES, GOPS)
    for codec in codecs:
        for size in sizes:
            for gop in gops:
                films = [clip(codec, size, gop, SECONDS)] * CLIPS
                for wanted in WANTED:
                    about = {"medium": "film", "kind": f"{codec} {size[0]}x{size[1]} {SECONDS} s"}
                    reading = Reading(ColumnType.VIDEO, num_frames=wanted, frame_size=SIDE)
                    yield {**about, "gop": gop, "frames": wanted}, films, reading
    for kind, picture in pictures().items():
        yield (
            {"medium": "picture", "kind": kind, "gop": "", "frames": 1},
            [picture] * CLIPS,
            Reading(ColumnType.IMAGE),
        )
    for kind, sound in sounds().items():
        reading = Reading(ColumnType.AUDIO, sampling_rate=RATE, max_seconds=30.0)
        yield {"medium": "sound", "kind": kind, "gop": "", "frames": 1}, [sound] * CLIPS, reading


def pictures() -> dict[str, bytes]:
    found = {}
    for kind, size in (
        ("PNG", (96, 96)),
        ("PNG", (224, 224)),
        ("JPEG", (500, 375)),
        ("WEBP", (500, 375)),
        ("JPEG", (4000, 3000)),
    ):
        coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize(size).save(buffer, kind, quality=85)
        found[f"{kind} {size[0]}x{size[1]}"] = buffer.getvalue()
    return found


def sounds() -> dict[str, bytes]:
    found = {}
    for kind, rate, seconds in (
        ("WAV", 16_000, 1),
        ("WAV", 44_100, 10),
        ("FLAC", 44_100, 10),
        ("MP3", 44_100, 10),
    ):
        time_s = np.arange(rate * seconds) / rate
        noise = np.random.default_rng(0).standard_normal(len(time_s))
        buffer = io.BytesIO()
        tone = 0.3 * np.sin(2 * np.pi * 220 * time_s) + 0.02 * noise
        soundfile.write(buffer, tone.astype(np.float32), rate, format=kind)
        found[f"{kind} {rate} Hz {seconds} s"] = buffer.getvalue()
    return found


def measured(folder: Path, media: Sequence[bytes], reading: Reading, rounds: int) -> dict[str, Any]:
    contenders = made(folder, media, reading)
    expected = contenders["plait"](0)
    took: Times = {name: [] for name in contenders}
    for name, load in contenders.items():
        # Warm, and the same thing: nobody leaves out what another does.
        got = load(0)
        assert got.shape == expected.shape, (name, got.shape, expected.shape)
        assert np.abs(got.astype(float) - expected).mean() < (0.01 if reading.sampling_rate else 4), name
    burned: Times = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began, cpu = time.perf_counter(), time.process_time()
            for one in range(len(media)):
                contenders[name](one)
            burned[name].append((time.process_time() - cpu) / len(media))
            took[name].append((time.perf_counter() - began) / len(media))
    return row(took, burned, reading.num_frames or 1)


def row(took: Times, burned: Times, frames: int) -> dict[str, Any]:
    """Medians and spread. Of CPU seconds, too: those hardly depend on who else uses the cores."""
    found: dict[str, Any] = {}
    for name, seconds in took.items():
        found[f"{name}_per_s"] = round(1 / median(seconds), 2)
        found[f"{name}_per_s_low"] = round(1 / max(seconds), 2)
        found[f"{name}_per_s_high"] = round(1 / min(seconds), 2)
        found[f"{name}_frames_per_s"] = round(frames / median(seconds), 1)
    for name in ("plait", "plait_hashed", "plait_cached"):
        ratios = over_best(took, name)
        found[f"{name}_over_best"] = round(median(ratios), 2)
        found[f"{name}_over_best_low"] = round(min(ratios), 2)
        found[f"{name}_over_best_high"] = round(max(ratios), 2)
        found[f"{name}_over_best_cpu"] = round(median(over_best(burned, name)), 2)
    return found


def over_best(times: Times, name: str) -> list[float]:
    """Of each round: the better of the others over ours."""
    best = [min(times[other][n] for other in OTHERS if other in times) for n in range(len(times[name]))]
    return [theirs / max(ours, 1e-9) for theirs, ours in zip(best, times[name], strict=True)]


def made(folder: Path, media: Sequence[bytes], reading: Reading) -> dict[str, Load]:
    cache = MediaCache(Entries(folder / "media", 2**34))
    read, digests = cache.cached(read_value, KEPT), [sha256(data).digest() for data in media]
    kept = [is_worth(data, reading, read(data, reading)) for data in media]
    by_hand = BY_HAND[reading.kind]

    def cached(one: int) -> np.ndarray:
        # As `engine.data.dataset.LiveColumn` does.
        value = cache.find(digests[one], reading) if kept[one] else None
        return read_value(media[one], reading) if value is None else value

    found: dict[str, Load] = {"loop": lambda one: by_hand(media[one], reading, False)}
    found |= of_datasets(folder, media, reading)
    found |= {
        "plait": lambda one: read_value(media[one], reading),
        "plait_hashed": lambda one: read(media[one], reading),
        "plait_cached": cached,
    }
    return found


def of_datasets(folder: Path, media: Sequence[bytes], reading: Reading) -> dict[str, Load]:
    try:
        import datasets
    except ImportError:
        print("datasets is not installed: its columns are left out")
        return {}
    datasets.disable_progress_bars()
    by_hand = BY_HAND[reading.kind]
    of = {
        ColumnType.VIDEO: datasets.Video(decode=False),
        ColumnType.AUDIO: datasets.Value("binary"),
        ColumnType.IMAGE: datasets.Image(),
    }[reading.kind]
    bare = reading.kind is ColumnType.AUDIO
    rows = {"cell": [data if bare else {"bytes": data, "path": None} for data in media]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features({"cell": of}))

    def one_of(cell: Any) -> np.ndarray:
        if reading.kind is ColumnType.IMAGE:
            return np.array(cell.convert("RGB"))
        return by_hand(cell if bare else cell["bytes"], reading, True)

    live = table.with_transform(lambda batch: {"value": [one_of(cell) for cell in batch["cell"]]})
    shape = one_of(table[0]["cell"]).shape
    flat = datasets.Features(
        {"value": datasets.List(datasets.Value("float32" if reading.kind is ColumnType.AUDIO else "uint8"))}
    )
    mapped = table.map(
        lambda row: {"value": one_of(row["cell"]).reshape(-1)},
        features=flat,
        remove_columns=["cell"],
        cache_file_name=str(folder / f"{time.monotonic_ns()}.arrow"),
    ).with_format("numpy")
    return {
        "datasets": lambda one: live[one]["value"],
        "datasets_mapped": lambda one: mapped[one]["value"].reshape(shape),
    }


def film_by_hand(data: bytes, reading: Reading, ends_early: bool) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        chosen = set(middles(length(container), reading.num_frames or 0))
        last = max(chosen)
        width, height = scaled(stream.codec_context.width, stream.codec_context.height)
        kept = []
        for number, frame in enumerate(container.decode(stream)):
            if ends_early and number > last:
                break
            if number in chosen:
                kept.append(frame.to_ndarray(format="rgb24", width=width, height=height))
        return np.stack(kept)


def scaled(width: int, height: int) -> tuple[int, int]:
    small = min(SIDE / min(width, height), 1)
    return round(width * small), round(height * small)


def picture_by_hand(data: bytes, _reading: Reading, _: bool) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def sound_by_hand(data: bytes, _reading: Reading, _: bool) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    factor = gcd(rate, RATE)
    mono = samples.mean(axis=1)
    return mono if rate == RATE else resample_poly(mono, RATE // factor, rate // factor).astype(np.float32)


BY_HAND: dict[ColumnType, Callable[[bytes, Reading, bool], np.ndarray]] = {
    ColumnType.VIDEO: film_by_hand,
    ColumnType.IMAGE: picture_by_hand,
    ColumnType.AUDIO: sound_by_hand,
}


def write(path: Path, rows: list[dict[str, Any]], note: str) -> None:
    """The rows, each with what they were measured on."""
    machine = {
        "note": note,
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("av", "pillow", "soundfile")},
    }
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, *machine])
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)


if __name__ == "__main__":
    main()
