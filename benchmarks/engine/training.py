"""How long a training takes beside the obvious loop: `python -m benchmarks.engine.training [--rows 64] [--rounds 2]`.

Pairs of AV-digits through MobileNetV2 (96 px) and Whisper-tiny.en (1 s), concat and a head: `ours` is `engine.train.run.train`,
`plain` a loop as one writes it by hand - read, decode, encode, fuse and learn, each batch in each epoch - over the same network,
rows, batches and optimiser. Of ours validation, tests and files are left out, as the other has none. The arms take turns, and
`load` is what else ran, in cores: the load average less one.

`trained`: both encoders are trained; seconds of an epoch. `frozen`: none is; seconds of ten epochs, all encoding counted.
"""

import argparse
import csv
import io
import os
import shutil
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.engine.quality.av_digits import PICTURE, SOUND
from benchmarks.engine.quality.folds import read_rows, write_zip
from benchmarks.engine.quality.study import ROOT, find
from domain.manifest import Column, ColumnType, Schema
from domain.specs import Multimodal
from engine.models.build import build_model
from engine.models.multimodal import Live
from engine.models.multimodal import Multimodal as Network
from engine.samples import av_digits
from engine.train.run import Finished, train

BATCH, CLASSES = 16, 10
#: Of the trained case the first is a warm-up, for both.
EPOCHS = {"trained": 3, "frozen": 10}
TYPES = {"image": ColumnType.IMAGE, "audio": ColumnType.AUDIO}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rows", type=int, default=64)
    asked.add_argument("--rounds", type=int, default=2)
    asked.add_argument("--work", type=Path, default=ROOT / ".plait" / "quality")
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine")
    options = asked.parse_args()
    av_digits.build(options.work / "av-digits", progress=print)
    rows = [row | {"split": "train"} for row in read_rows(options.work / "av-digits")[: options.rows]]
    seconds: dict[tuple[str, str], list[float]] = {}
    loads: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.zip")
        write_zip(options.work / "av-digits", rows, data)
        for _ in range(options.rounds):
            for case in EPOCHS:
                seconds.setdefault((case, "plain"), []).append(plain(case, data, rows))
                loads.append(os.getloadavg()[0] - 1)
                seconds.setdefault((case, "ours"), []).append(ours(case, data, Path(folder)))
                print(case, {arm: seconds[case, arm][-1] for arm in ("plain", "ours")}, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "training.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        table.writerows(line(case, seconds, len(rows), median(loads)) for case in EPOCHS)


FIELDS = ("case", "rows", "plain_s", "ours_s", "ratio", "ratio_worst", "rounds", "cores", "threads", "load")


def line(case: str, seconds: dict[tuple[str, str], list[float]], rows: int, load: float) -> dict[str, Any]:
    """Medians, and the ratio of neighbours: what ran beside them was about the same."""
    theirs, own = seconds[case, "plain"], seconds[case, "ours"]
    ratios = [b / a for a, b in zip(theirs, own, strict=True)]
    numbers = (median(theirs), median(own), median(ratios), max(ratios))
    told = (len(ratios), os.cpu_count(), torch.get_num_threads(), round(load, 1))
    return dict(zip(FIELDS, (case, rows, *(round(number, 4) for number in numbers), *told), strict=True))


def spec_of(case: str) -> Multimodal:
    freezes = {} if case == "frozen" else {"freeze": False, "lr": 2e-5}
    towers = {"image": {**PICTURE, **freezes}, "audio": {**SOUND, **freezes}}
    # One evaluation and one checkpoint, at the end: they are not timed, and must not take turns with what is.
    hyper = {"n_epochs": EPOCHS[case], "batch_size": BATCH, "save_steps": 10_000, "logging_steps": 1}
    given = {"task": "classification", "towers": towers, "hyperparameters": hyper}
    return Multimodal.model_validate({**given, "hold_out": {"validation": 0.01}})


def ours(case: str, data: Path, folder: Path) -> float:
    """With empty caches."""
    for part in ("cache", "out"):
        shutil.rmtree(folder / part, ignore_errors=True)
    ending = train(spec_of(case), training=data, encoders=find, cache=folder / "cache", out=folder / "out")
    assert isinstance(ending, Finished)
    first, later = ending.metrics["first_epoch_seconds"], ending.metrics["epoch_seconds"]
    return later if case == "trained" else first + (EPOCHS[case] - 1) * later


def plain(case: str, data: Path, rows: list[dict[str, Any]]) -> float:
    """The loop by hand. One row less: ours holds one out for validation."""
    spec, rows = spec_of(case), rows[:-1]
    schema = Schema(columns={name: Column(type=kind) for name, kind in TYPES.items()})
    folders = {name: find(str(tower.encoder)) for name, tower in spec.towers.items()}
    torch.manual_seed(0)
    settled = {name: tower.settled(TYPES[name]) for name, tower in spec.towers.items()}
    model = build_model(spec.model_copy(update={"towers": settled}), schema, CLASSES, folders)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    times = []
    with zipfile.ZipFile(data) as archive:
        for _ in range(EPOCHS[case]):
            began = time.monotonic()
            model.train()
            for index in torch.randperm(len(rows)).split(BATCH):
                chosen = [rows[i] for i in index.tolist()]
                loss = step(model, archive, chosen, frozen=case == "frozen")
                loss.backward()
                torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
                optimiser.step()
                optimiser.zero_grad()
                loss.item()
            times.append(time.monotonic() - began)
    return median(times[1:]) if case == "trained" else sum(times)


def step(model: Network, archive: zipfile.ZipFile, rows: list[dict[str, Any]], frozen: bool) -> torch.Tensor:
    made: dict[str, Any] = {}
    with torch.set_grad_enabled(not frozen):
        for name, read in (("image", pixels), ("audio", samples)):
            inputs = model.encoder(name).prepare(
                [read(archive.read(row[f"{name}_file_name"])) for row in rows]
            )
            made[name] = model.encoder(name)(inputs) if frozen else Live(inputs, torch.arange(len(rows)))
    logits = model(made, torch.ones(len(rows), len(made), dtype=torch.bool))
    return functional.cross_entropy(logits, torch.tensor([int(row["label"]) for row in rows]))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def samples(data: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]


if __name__ == "__main__":
    main()
