"""The demo: fine-tunes a picture-only, a sound-only and a fused model through the public API, compares them, and
asks the fused one about three samples that it never saw.

Uses nothing but the `plait` client and the `plait-server` command, as a user would.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from plait import Client, Job

DATA = Path(os.environ.get("PLAIT_DATA", ".plait"))
SERVER = Path(sys.executable).parent / "plait-server"
IMAGE = {"encoder": "google/mobilenet_v2_1.0_224", "image_size": 96}
AUDIO = {"encoder": "openai/whisper-tiny.en", "max_seconds": 1}
RUNS = {
    "image": {"image": IMAGE},
    "audio": {"audio": AUDIO},
    "image+audio": {"image": IMAGE, "audio": AUDIO},
}
#: What the fused model is given of a held-out sample.
VIEWS = {"both": ("image", "audio"), "picture": ("image",), "sound": ("audio",)}
SAMPLES = 3
#: Seconds for nine predictions, of which the first loads the model.
PATIENCE_S = 120

console = Console()


def main() -> int:
    began = time.monotonic()
    console.print("[bold]Plait demo[/]: written digits + spoken digits, each made hard to read alone.\n")
    server("encoders", "pull")
    server("datasets", "build", "av-digits", "--out", str(DATA / "datasets" / "av-digits"))
    with service() as about:
        client = Client(base_url=about["base_url"], api_key=about["api_key"])
        file = push(client, DATA / "datasets" / "av-digits.zip")
        jobs = {name: submit(client, file, name, towers) for name, towers in RUNS.items()}
        done = follow(client, jobs)
        broken = {name: job.error for name, job in done.items() if job.status != "succeeded"}
        if broken:
            console.print(f"[red]Not every job succeeded:[/] {broken}")
            return 1
        predictions = ask(client, done["image+audio"], held_out(SAMPLES))
    summary = summarise(done, predictions, time.monotonic() - began)
    show(summary, done)
    return 0


def server(*arguments: str) -> None:
    """Runs a command of the server's to its end."""
    subprocess.run([SERVER, *arguments], check=True, env=os.environ | {"PLAIT_DATA": str(DATA)})


@contextlib.contextmanager
def service() -> Iterator[dict[str, Any]]:
    """The running service's address and key: one that is up already, else our own until the end."""
    described = DATA / "plait.json"
    if described.exists() and (about := json.loads(described.read_text())) and is_alive(about):
        console.print(f"Using the service that is up at {about['base_url']}.")
        yield about
        return
    described.unlink(missing_ok=True)
    log = (DATA / "demo.log").open("ab")
    process = subprocess.Popen([SERVER, "up", "--data", str(DATA), "--port", "0"], stdout=log, stderr=log)
    try:
        while not described.exists():
            if process.poll() is not None:
                raise SystemExit(f"The service did not start; see {DATA / 'demo.log'}.")
            time.sleep(0.1)
        about = json.loads(described.read_text())
        console.print(f"The service is up at {about['base_url']} (embedded broker, SQLite).")
        yield about
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        log.close()


def is_alive(about: dict[str, Any]) -> bool:
    try:
        os.kill(about["pids"]["supervisor"], 0)
    except OSError:
        return False
    return True


def push(client: Client, path: Path) -> str:
    """Uploads the data set; the same bytes pushed again are the same file."""
    file = client.files.push(path)
    console.print(f"Pushed {path.name} ({path.stat().st_size / 1e6:.0f} MB) as {file.id}.\n")
    return file.id


def submit(client: Client, file: str, name: str, towers: dict[str, Any], **options: Any) -> str:
    """Submits a job over these columns; `options` are more of the spec. The job's id."""
    body = {
        "model": "late-fusion",
        "training_file": file,
        "seed": 0,
        "suffix": name.replace("+", "-"),
        "metadata": {"demo": name},
        "multimodal": {"towers": towers, **options},
    }
    return client.jobs.create(body).id


def follow(client: Client, jobs: dict[str, str]) -> dict[str, Job]:
    """Watches the jobs to their ends, a bar each; the finished jobs by name."""
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]:46}"),
        TimeElapsedColumn(),
    )
    done = {}
    with Progress(*columns, console=console) as bars:
        rows = {name: bars.add_task(name, total=1.0, note="queued", start=False) for name in jobs}
        for name, job_id in jobs.items():
            bars.start_task(rows[name])
            for update in client.jobs.watch(job_id):
                done[name] = update.job
                share, note = standing(update.job)
                bars.update(rows[name], completed=share, note=note)
            bars.stop_task(rows[name])
    return done


def standing(job: Job) -> tuple[float, str]:
    """How far a job is (0..1) and a few words."""
    if job.status == "succeeded":
        told = {"test accuracy": "test_accuracy", "test F1": "test_f1_macro"}
        words = next(
            (f"{words} {job.metrics[m]:.3f}" for words, m in told.items() if m in job.metrics), "done"
        )
        return 1.0, words
    progress = job.progress
    total = progress.get("total_steps") or 0
    share = min(1.0, (progress.get("step") or 0) / total) if total else 0.0
    eta = f", {progress['eta_s']:.0f} s left" if progress.get("eta_s") else ""
    return share, f"{progress.get('stage') or job.status}{eta}"


def held_out(count: int) -> list[dict[str, Any]]:
    """`count` samples of the test split, spread over it: the same ones in every run."""
    folder = DATA / "datasets" / "av-digits"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    test = [row for row in rows if row["split"] == "test"]
    chosen = test[:: len(test) // count][:count]
    return [
        {
            "id": row["id"],
            "truth": row["label"],
            "image": folder / row["image_file_name"],
            "audio": folder / row["audio_file_name"],
        }
        for row in chosen
    ]


def ask(client: Client, job: Job, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the job's model makes of each sample, and of each of its halves alone."""
    asked = [(sample, view) for sample in samples for view in VIEWS]
    inputs = [{column: sample[column] for column in VIEWS[view]} for sample, view in asked]
    run = client.predictions.create(str(job.fine_tuned_model), inputs=inputs, wait=PATIENCE_S)
    if run.status != "succeeded":
        raise SystemExit(
            f"The predictions are {run.status}, not done: {run.error or 'is an infer worker up?'}"
        )
    told: dict[str, dict[str, Any]] = {s["id"]: {"id": s["id"], "truth": s["truth"]} for s in samples}
    for (sample, view), found in zip(asked, run.predictions, strict=True):
        if found.error:
            raise SystemExit(f"{sample['id']} could not be predicted: {found.error.message}")
        told[sample["id"]][view] = {"label": found.label, "score": found.score}
    return list(told.values())


def summarise(done: dict[str, Job], predictions: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The numbers of the demo, also written to `demo/summary.json` in the data folder."""
    accuracy = {name: job.metrics["test_accuracy"] for name, job in done.items()}
    summary = {
        "test_accuracy": accuracy,
        "fusion_gain": accuracy["image+audio"] - max(accuracy["image"], accuracy["audio"]),
        "cached_epoch_speedup": done["audio"].metrics["cached_epoch_speedup"],
        "predictions": predictions,
        "seconds": round(seconds, 1),
    }
    target = DATA / "demo" / "summary.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def show(summary: dict[str, Any], done: dict[str, Job]) -> None:
    table = Table("model", "test accuracy", "fine-tuned model", title="Held-out speakers' digits")
    for name, value in summary["test_accuracy"].items():
        table.add_row(name, f"{value:.3f}", done[name].fine_tuned_model)
    console.print(table)
    console.print(f"Fusion gains [bold]{summary['fusion_gain']:+.3f}[/] over the best single modality.")
    console.print(
        f"Epochs after the first, trained from cached features, are {summary['cached_epoch_speedup']:.0f} times faster.\n"
    )
    show_predictions(summary["predictions"])
    console.print(f"All took {summary['seconds']:.0f} s. The numbers: {DATA / 'demo' / 'summary.json'}")
    console.print(f"Data, models and logs: {DATA.absolute()}\n")
    console.print("Go on:\n  make up                       start the service and leave it running")
    console.print(
        "  .venv/bin/plait jobs list     see these jobs\n  .venv/bin/plait --help        bring your own data"
    )


def show_predictions(predictions: list[dict[str, Any]]) -> None:
    table = Table("sample", "truth", *VIEWS, title="What the fused model makes of voices it never heard")
    for told in predictions:
        answers = (told[view] for view in VIEWS)
        words = [
            f"{'✓' if a['label'] == told['truth'] else '✗'} {a['label']} ({a['score']:.2f})" for a in answers
        ]
        table.add_row(told["id"], told["truth"], *words)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
