"""What many small entries cost: `python -m benchmarks.engine.cache_eviction [--entries 100000]`.

Of the cache of decoded media and of the features' shards: looking whether room must be made, making it (a tenth goes),
and reading while there are so many.
"""

import argparse
import csv
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from engine.data.cache import FeatureCache, evict
from engine.data.entries import Entries

ROOT = Path(__file__).parents[2]
_SIZE = 1000


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--entries", type=int, default=100_000)
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine")
    options = asked.parse_args()
    rows = [of_media(options.entries), of_shards(options.entries // 200)]
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "cache_eviction.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def of_media(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        kept, data = Entries(Path(folder), 2**40), os.urandom(_SIZE)
        keys = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]
        wrote = seconds(lambda: [kept.put(key, [data]) for key in keys])
        read = seconds(lambda: [kept.get(key) for key in keys[:: max(count // 10_000, 1)]])
        looked = median(seconds(kept.make_room) for _ in range(3))
        before, cpu = time.perf_counter(), time.process_time()
        dropped = Entries(Path(folder), count * 4096 - 1).make_room()
        made = time.perf_counter() - before
        return row("media", count, wrote / count, read / min(count, 10_000), looked, made, dropped) | {
            "making_room_cpu_s": round(time.process_time() - cpu, 3)
        }


def of_shards(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder) / "tower", 16)
        keys = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]
        features = torch.zeros(1, 16)
        wrote = seconds(lambda: [cache.append([key], features, 1.0) for key in keys])
        read = seconds(lambda: cache.read(keys))
        looked = median(seconds(lambda: evict(Path(folder), 2**40)) for _ in range(3))
        size = next(cache.folder.iterdir()).stat().st_size
        before, cpu = time.perf_counter(), time.process_time()
        evict(Path(folder), count * size * 9 // 10)
        made = time.perf_counter() - before
        dropped = count - len(list(cache.folder.iterdir()))
        return row("feature shards", count, wrote / count, read / count, looked, made, dropped) | {
            "making_room_cpu_s": round(time.process_time() - cpu, 3)
        }


def row(
    what: str, count: int, wrote: float, read: float, looked: float, made: float, dropped: int
) -> dict[str, Any]:
    found = {
        "cache": what,
        "entries": count,
        "write_us": round(wrote * 1e6, 1),
        "read_us": round(read * 1e6, 1),
        "looking_s": round(looked, 3),
        "making_room_s": round(made, 3),
        "dropped": dropped,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(*(f"{name}={value}" for name, value in found.items()), flush=True)
    return found


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
