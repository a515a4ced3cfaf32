"""How long a training with a trained tower waits for its data: `python -m benchmarks.engine.data_wait [--quick]`.

Whole trainings by `engine.train.run.train`, on pictures like AV-digits' and on films of four seconds, with a
MobileNetV2 of random weights. Each is run without caches (`none`), with empty ones (`empty`), and again with what that
left (`full`); the arms take turns. Of each epoch: rows a second, and the share of its time that the loop waited.
"""

import argparse
import csv
import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from transformers import MobileNetV2Config, MobileNetV2Model
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
from transformers.utils import logging

from domain.specs import Multimodal
from engine.train import watch
from engine.train.run import train

ROOT = Path(__file__).parents[2]
ENCODER, PX, CLASSES = "random/mobilenet_v2", 96, 5
ARMS = ("none", "empty", "full")
TRAINED = {"encoder": ENCODER, "freeze": False, "lr": 1e-4}
CASES: dict[str, dict[str, Any]] = {
    "pictures": {"image": TRAINED},
    "films": {"video": {**TRAINED, "num_frames": 4}},
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--quick", action="store_true", help="few rows, one round: whether it runs at all")
    asked.add_argument("--rounds", type=int, default=2)
    asked.add_argument("--rows", type=int, default=96)
    asked.add_argument("--arms", default=",".join(ARMS))
    asked.add_argument("--note", default="", help="what else to say of the run, as a column")
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine")
    options = asked.parse_args()
    rounds, rows, epochs = (1, 16, 2) if options.quick else (options.rounds, options.rows, 4)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        told = measured(Path(folder), rows, rounds, epochs, options.arms.split(","))
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "data_wait.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, [*told[0], "note"])
        writer.writeheader()
        writer.writerows({**row, "note": options.note} for row in told)


def measured(folder: Path, rows: int, rounds: int, epochs: int, arms: Sequence[str]) -> list[dict[str, Any]]:
    made = encoder(folder / "encoder")
    data = {name: dataset(folder / f"{name}.zip", name, rows) for name in CASES}
    runs: dict[tuple[str, str], list[list[tuple[float, float]]]] = {}
    for number in range(rounds):
        for case in CASES:
            for arm in arms:
                cache = folder / f"cache-{case}-{number}"
                epoch_times = run(CASES[case], data[case], made, cache, folder / "out", arm, epochs)
                runs.setdefault((case, arm), []).append(epoch_times)
    return [row(case, arm, found, rows) for (case, arm), found in runs.items()]


def row(case: str, arm: str, runs: list[list[tuple[float, float]]], rows: int) -> dict[str, Any]:
    first = [run[0] for run in runs]
    later = [epoch for run in runs for epoch in run[1:]]
    made = {
        "case": case,
        "caches": arm,
        "rows": rows,
        "first_epoch_rows_per_s": round(median(rows / seconds for seconds, _ in first), 1),
        "first_epoch_wait": round(median(waited / seconds for seconds, waited in first), 4),
        "later_rows_per_s": round(median(rows / seconds for seconds, _ in later), 1),
        "later_wait": round(median(waited / seconds for seconds, waited in later), 4),
        "later_wait_worst": round(max(waited / seconds for seconds, waited in later), 4),
        "runs": len(runs),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(*(f"{name}={value}" for name, value in made.items()), flush=True)
    return made


def run(
    towers: dict[str, Any], data: Path, encoder: Path, cache: Path, out: Path, arm: str, epochs: int
) -> list[tuple[float, float]]:
    """Seconds and waited seconds of each epoch."""
    hyper = {"n_epochs": epochs, "batch_size": 8, "early_stopping_patience": None, "eval_steps": 10**6}
    spec = {"towers": towers, "fusion": {"dim": 64}, "hyperparameters": hyper}
    heard: list[tuple[watch.Watch, float]] = []
    with listening(heard):
        train(
            Multimodal.model_validate(spec),
            training=data,
            encoders=lambda _: encoder,
            cache=cache.with_name(f"{cache.name}-none-{time.monotonic_ns()}") if arm == "none" else cache,
            out=out / str(time.monotonic_ns()),
            **({"cache_bytes": 0} if arm == "none" else {}),
        )
    memory = heard[-1][0]._memory
    waits = [0.0] * len(memory.epoch_seconds)
    for epoch, waited in ((int(at), waited) for at, waited in _by_epoch(heard)):
        waits[min(epoch, len(waits) - 1)] += waited
    return list(zip(memory.epoch_seconds, waits, strict=True))


def _by_epoch(heard: list[tuple[watch.Watch, float]]) -> Iterator[tuple[int, float]]:
    for number, (one, waited) in enumerate(heard):
        yield number // (one._plan.steps_per_epoch + 1), waited


class listening:
    """Each wait of the loop, while the block runs; the end of an epoch is one, too."""

    def __init__(self, heard: list[tuple[watch.Watch, float]]) -> None:
        self._heard, self._real = heard, watch.Watch.waiting

    def __enter__(self) -> None:
        heard, real = self._heard, self._real

        def waiting(one: watch.Watch, items: Iterable[Any]) -> Iterator[Any]:
            before = one._memory.waited_seconds
            for item in real(one, items):
                heard.append((one, one._memory.waited_seconds - before))
                yield item
                before = one._memory.waited_seconds
            heard.append((one, one._memory.waited_seconds - before))

        watch.Watch.waiting = waiting  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        watch.Watch.waiting = self._real  # type: ignore[method-assign]


def encoder(folder: Path) -> Path:
    torch.manual_seed(0)
    MobileNetV2Model(MobileNetV2Config(image_size=PX)).eval().save_pretrained(folder)
    MobileNetV2ImageProcessorPil(
        size={"shortest_edge": PX}, crop_size={"height": PX, "width": PX}
    ).save_pretrained(folder)
    return folder


def dataset(path: Path, case: str, rows: int) -> Path:
    """Rows with a picture or a film, and a label that it tells."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as out:
        lines = []
        # A fifth more, which validates.
        for number in range(rows + rows // 5):
            split, label = "validation" if number >= rows else "train", number % CLASSES
            row: dict[str, Any] = {"label": f"class-{label}", "split": split}
            name = f"media/{number}.{'png' if case == 'pictures' else 'mp4'}"
            row["image_file_name" if case == "pictures" else "video_file_name"] = name
            out.writestr(name, picture(label, rng) if case == "pictures" else film(label, rng))
            lines.append(json.dumps(row))
        out.writestr("metadata.jsonl", "\n".join(lines))
    return path


def picture(label: int, rng: np.random.Generator) -> bytes:
    """Squares of 12 pixels, as AV-digits draws its digits."""
    coarse = rng.integers(0, 100, (8, 8, 3)) + np.arange(3) * label * 12
    buffer = io.BytesIO()
    Image.fromarray(np.kron(coarse, np.ones((12, 12, 1))).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def film(label: int, rng: np.random.Generator, seconds: int = 4) -> bytes:
    coarse = rng.integers(0, 100, (30, 40, 3)) + np.arange(3) * label * 12
    ground = np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(25 * seconds):
            seen = np.ascontiguousarray(ground[number:, 2 * number :][:240, :320])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(seen, "rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()


if __name__ == "__main__":
    main()
