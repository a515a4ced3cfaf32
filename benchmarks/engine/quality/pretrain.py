"""Does pretraining on pairs without labels help where labels are few? `python -m benchmarks.engine.quality.pretrain`.

Moving AV-digits: of the training films all are seen without labels (frames and sound), and a tenth with them. The same
fine-tune of that tenth runs from the encoders alone (`cold`) and from the pretrained model (`warm`); both measure the
test films, whose voices nobody trained on. Encoders are frozen: what pretraining leaves are the projections. Each seed
draws its own tenth.
"""

import argparse
import csv
import json
import random
import tempfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from domain.specs import Multimodal
from engine.hub.mirror import resolve
from engine.samples import moving_av_digits
from engine.train.run import Finished, train

ROOT = Path(__file__).parents[3]
SCHEMA = {"columns": {"clip": {"type": "video", "use_audio": True}}}
TOWERS = {
    "clip": {"encoder": "google/mobilenet_v2_1.0_224", "image_size": 96, "num_frames": 8},
    "clip.audio": {"encoder": "openai/whisper-tiny.en", "max_seconds": 1},
}
FUSIONS = ("concat", "mean")
SHARE = 0.1


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--quick", action="store_true", help="few films, one seed: whether it runs at all")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--mirror", type=Path, default=ROOT / ".plait" / "encoders")
    asked.add_argument("--work", type=Path, help="keeps films and features for the next run")
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "engine" / "quality")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        limit, seeds = (200, 1) if options.quick else (None, options.seeds)
        run = partial(_trained, work=work, mirror=options.mirror)
        told = [row for seed in range(seeds) for row in measured(work, seed, limit, run)]
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "pretrain.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, told[0])
        writer.writeheader()
        writer.writerows(told)
    for fusion in FUSIONS:
        arms = {
            arm: [r["test_accuracy"] for r in told if (r["fusion"], r["arm"]) == (fusion, arm)]
            for arm in ("cold", "warm")
        }
        print(fusion, {arm: round(mean(values), 4) for arm, values in arms.items()})


def measured(work: Path, seed: int, limit: int | None, run: Any) -> Iterator[dict[str, Any]]:
    whole = moving_av_digits.build(work / "films", moving_av_digits.Recipe(0, limit, "digit"), progress=print)
    unlabelled, few = tables(whole, work / f"seed-{seed}", seed)
    with tempfile.TemporaryDirectory() as out:
        before, taught = run(unlabelled, Path(out) / "pretrained", seed, task="contrastive")
        for fusion in FUSIONS:
            for arm, start in (("cold", None), ("warm", taught)):
                found, _ = run(few, Path(out) / f"{fusion}-{arm}", seed, start=start, fusion={"type": fusion})
                row = {"seed": seed, "labelled_share": SHARE, "fusion": fusion, "arm": arm}
                row |= {"test_accuracy": round(found["test_accuracy"], 4)}
                row |= {"pretrain_valid_mrr": round(before["valid_mrr"], 4) if start else ""}
                print(row, flush=True)
                yield row


def tables(whole: Path, folder: Path, seed: int) -> tuple[Path, Path]:
    """The training films without labels, and a tenth of them with; validation and test films are in both."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(whole) as archive:
        rows = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        training = [row["id"] for row in rows if row["split"] == "train"]
        kept = set(random.Random(seed).sample(training, round(SHARE * len(training))))
        kept |= {row["id"] for row in rows if row["split"] != "train"}
        without = [{name: cell for name, cell in row.items() if name != "label"} for row in rows]
        few = [row for row in rows if row["id"] in kept]
        return (
            _zipped(folder / "unlabelled.zip", without, archive),
            _zipped(folder / "few.zip", few, archive),
        )


def _zipped(target: Path, rows: list[dict[str, Any]], media: zipfile.ZipFile) -> Path:
    with zipfile.ZipFile(target, "w") as out:
        out.writestr("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            out.writestr(row["clip_file_name"], media.read(row["clip_file_name"]))
    return target


def _trained(
    data: Path, out: Path, seed: int, *, work: Path, mirror: Path, start: Path | None = None, **spec: Any
) -> tuple[dict[str, float], Path]:
    ending = train(
        Multimodal.model_validate({"schema": SCHEMA, "towers": TOWERS, **spec}),
        training=data,
        encoders=lambda name: resolve(name, mirror=mirror, allow_hub=False),
        cache=work / "cache",
        out=out,
        seed=seed,
        start=start,
    )
    assert isinstance(ending, Finished)
    return ending.metrics, out / "model"


if __name__ == "__main__":
    main()
