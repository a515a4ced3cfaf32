"""The demo with films: fine-tunes a model of their frames, one of their sound and one of both through the public API, compares
them, and asks the one of both about three films that it never saw.

`python demo/video.py [ROWS]` takes that many films; 700 if not said.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import run
from rich.table import Table

from plait import Client, Job

ROWS = 700
SCHEMA = {"columns": {"clip": {"type": "video", "use_audio": True}}}
FRAMES = {
    "encoder": "google/mobilenet_v2_1.0_224",
    "image_size": 96,
    "num_frames": 8,
    "pool": "transformer",  # it alone sees the order of the frames, and so the direction
}
SOUND = {"encoder": "openai/whisper-tiny.en", "max_seconds": 1}
RUNS = {
    "frames": {"clip": FRAMES},
    "sound": {"clip.audio": SOUND},
    "frames+sound": {"clip": FRAMES, "clip.audio": SOUND},
}
#: Some training clips are silent: a model that only listens does without them.
OPTIONS = {"sound": {"on_bad_row": "skip", "max_bad_fraction": 0.2}}
#: What the model of both is given of a clip: one file, of which it reads all that it is not told to leave out.
VIEWS: dict[str, dict[str, bool]] = {
    "both": {"clip": True},
    "frames": {"clip": True, "clip.audio": False},
    "sound": {"clip.audio": True},
}
SAMPLES = 3


def main(rows: int) -> int:
    began = time.monotonic()
    run.console.print(
        "[bold]Plait demo[/]: films of written digits that move and are spoken. Which digit, and where to?\n"
    )
    run.server("encoders", "pull")
    folder = run.DATA / "datasets" / f"moving-av-digits-{rows}"
    run.server("datasets", "build", "moving-av-digits", "--out", str(folder), "--limit", str(rows))
    with run.service() as about:
        client = Client(base_url=about["base_url"], api_key=about["api_key"])
        file = run.push(client, folder.with_suffix(".zip"))
        jobs = {
            name: run.submit(client, file, name, towers, schema=SCHEMA, **OPTIONS.get(name, {}))
            for name, towers in RUNS.items()
        }
        done = run.follow(client, jobs)
        broken = {name: job.error for name, job in done.items() if job.status != "succeeded"}
        if broken:
            run.console.print(f"[red]Not every job succeeded:[/] {broken}")
            return 1
        scores = {name: measured(client, job) for name, job in done.items()}
        predictions = ask(client, done["frames+sound"], held_out(folder))
    show(summarise(scores, predictions, done, time.monotonic() - began))
    return 0


def measured(client: Client, job: Job) -> dict[str, float]:
    """What the job's report says of the test clips: F1 over all labels, over digits, over directions; all of it right."""
    files = (client.files.get(file_id) for file_id in job.result_files)
    report = json.loads(next(client.files.content(f.id) for f in files if f.filename.endswith("report.json")))
    labels = report["test"]["per_class"]
    digits = [label["f1"] for label in labels if label["class"].isdigit()]
    ways = [label["f1"] for label in labels if not label["class"].isdigit()]
    return {
        "f1_macro": job.metrics["test_f1_macro"],
        "digit_f1": sum(digits) / len(digits),
        "direction_f1": sum(ways) / len(ways),
        "exact_match": job.metrics["test_exact_match"],
    }


def held_out(folder: Path) -> list[dict[str, Any]]:
    """Some clips of the test split, spread over it: the same ones in every run."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    test = [row for row in rows if row["split"] == "test"]
    chosen = test[:: len(test) // SAMPLES][:SAMPLES]
    return [
        {"id": row["id"], "truth": row["label"], "clip": folder / row["clip_file_name"]} for row in chosen
    ]


def ask(client: Client, job: Job, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the job's model makes of each clip, and of each of its halves alone."""
    asked = [(sample, view) for sample in samples for view in VIEWS]
    inputs = [
        {column: sample["clip"] if is_given else None for column, is_given in VIEWS[view].items()}
        for sample, view in asked
    ]
    answer = client.predictions.create(str(job.fine_tuned_model), inputs=inputs, wait=run.PATIENCE_S)
    if answer.status != "succeeded":
        raise SystemExit(f"The predictions are {answer.status}: {answer.error or 'is an infer worker up?'}")
    told: dict[str, dict[str, Any]] = {s["id"]: {"id": s["id"], "truth": s["truth"]} for s in samples}
    for (sample, view), found in zip(asked, answer.predictions, strict=True):
        if found.error:
            raise SystemExit(f"{sample['id']} could not be predicted: {found.error.message}")
        told[sample["id"]][view] = found.labels
    return list(told.values())


def summarise(
    scores: dict[str, dict[str, float]],
    predictions: list[dict[str, Any]],
    done: dict[str, Job],
    seconds: float,
) -> dict[str, Any]:
    """The numbers of the demo, also written to `demo-video/summary.json` in the data folder."""
    f1 = {name: found["f1_macro"] for name, found in scores.items()}
    summary = {
        "test": scores,
        "fusion_gain": f1["frames+sound"] - max(f1["frames"], f1["sound"]),
        "cached_epoch_speedup": done["frames"].metrics["cached_epoch_speedup"],
        "predictions": predictions,
        "seconds": round(seconds, 1),
    }
    target = run.DATA / "demo-video" / "summary.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def show(summary: dict[str, Any]) -> None:
    columns = {"F1": "f1_macro", "digits' F1": "digit_f1", "directions' F1": "direction_f1"}
    columns |= {"both right": "exact_match"}
    table = Table("model", *columns, title="Held-out speakers' films")
    for name, found in summary["test"].items():
        table.add_row(name, *(f"{found[metric]:.3f}" for metric in columns.values()))
    run.console.print(table)
    gain, speedup = summary["fusion_gain"], summary["cached_epoch_speedup"]
    run.console.print(f"Fusion gains [bold]{gain:+.3f}[/] of F1 over the best single modality.")
    run.console.print(
        f"Epochs after the first, trained from cached frames, are {speedup:.0f} times faster.\n"
    )
    table = Table("film", "truth", *VIEWS, title="What the model of both makes of voices it never heard")
    for told in summary["predictions"]:
        table.add_row(told["id"], *(", ".join(told[view]) or "-" for view in ("truth", *VIEWS)))
    run.console.print(table)
    path = run.DATA / "demo-video" / "summary.json"
    run.console.print(f"All took {summary['seconds']:.0f} s. The numbers: {path}")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
