"""How well pictures and names of emoji that nobody trained on find each other: `python -m benchmarks.engine.quality.emoji`.

Three ways to train a dual encoder of MobileNetV2 (96 px) and MiniLM: both frozen, so that only the projections learn;
the upper half of MiniLM trained too; and the last layers of MobileNetV2 besides. R@10 both ways over the 250 test emoji, whose chance
is .04, each the mean over seeds. The split is the set's own.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from domain.specs import Multimodal
from engine.hub.mirror import resolve
from engine.samples import emoji
from engine.train.run import Finished, train

ROOT = Path(__file__).parents[3]
_TEXT = {"encoder": "sentence-transformers/all-MiniLM-L6-v2"}
_IMAGE = {"encoder": "google/mobilenet_v2_1.0_224", "image_size": 96}
_TUNED_TEXT = _TEXT | {"freeze": 0.5, "lr": 1e-4}
_LIVE = {"n_epochs": 10, "batch_size": 64}
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "frozen": ({"text": _TEXT, "image": _IMAGE}, {}),
    "text": ({"text": _TUNED_TEXT, "image": _IMAGE}, _LIVE),
    "both": ({"text": _TUNED_TEXT, "image": _IMAGE | {"freeze": 0.7, "lr": 5e-4}}, _LIVE),
}
TOLD = ("i2t_recall@1", "i2t_recall@10", "t2i_recall@1", "t2i_recall@10", "mrr")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--quick", action="store_true", help="few emoji, one seed: whether it runs at all")
    asked.add_argument("--arms", default="frozen,text", help=f"of {', '.join(ARMS)}")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--mirror", type=Path, default=ROOT / ".plait" / "encoders")
    asked.add_argument("--work", type=Path, help="keeps pictures and features for the next run")
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine" / "quality")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        data = emoji.build(work / "emoji", limit=100 if options.quick else None, progress=print)
        seeds = range(1 if options.quick else options.seeds)
        told = [
            measured(work, data, options.mirror, arm, seed)
            for arm in options.arms.split(",")
            for seed in seeds
        ]
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "emoji.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, told[0])
        writer.writeheader()
        writer.writerows(told)
    for arm in options.arms.split(","):
        rows = [row for row in told if row["arm"] == arm]
        print(arm, {name: round(mean(row[name] for row in rows), 3) for name in TOLD})


def measured(work: Path, data: Path, mirror: Path, arm: str, seed: int) -> dict[str, Any]:
    towers, hyper = ARMS[arm]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        ending = train(
            Multimodal.model_validate({"task": "contrastive", "towers": towers, "hyperparameters": hyper}),
            training=data,
            encoders=lambda name: resolve(name, mirror=mirror, allow_hub=False),
            cache=work / "cache",
            out=Path(out) / "run",
            seed=seed,
        )
    assert isinstance(ending, Finished)
    row = {"arm": arm, "seed": seed} | {name: round(ending.metrics[f"test_{name}"], 4) for name in TOLD}
    row |= {"steps": ending.steps, "seconds": round(time.monotonic() - began)}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
