"""Our client against a real installation: its README, its command line, and a restart in the middle of a watch."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from plait import Client, Update
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT, tiny_encoders
from support.installation import Installation, installation
from support.stack import ROOT

README = (ROOT / "client" / "README.md").read_text()
#: What a spec without towers names; here they are tiny.
DEFAULTS = {
    IMAGE: "google/mobilenet_v2_1.0_224",
    AUDIO: "openai/whisper-tiny.en",
    TEXT: "sentence-transformers/all-MiniLM-L6-v2",
}


def block(language: str, containing: str) -> str:
    """The README's code in `language` that has `containing` in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    [code] = [code for code in found if containing in code]
    return str(code)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mirror = tmp_path_factory.mktemp("encoders")
    for name, folder in tiny_encoders(mirror).items():
        if name in DEFAULTS:
            shutil.copytree(folder, mirror / DEFAULTS[name])
    return mirror


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory, encoders: Path) -> Iterator[Installation]:
    data = tmp_path_factory.mktemp("installation") / "data"
    with installation(data, encoders=str(encoders)) as made:
        yield made


@pytest.fixture
def desk(plait: Installation, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with data/ as the README has it, and the environment of someone who works there."""
    with zipfile.ZipFile(tiny_av(tmp_path)) as archive:
        archive.extractall(tmp_path / "data")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    known = {"PLAIT_BASE_URL": plait.about["base_url"], "PLAIT_API_KEY": plait.about["api_key"]}
    return tmp_path, os.environ | known | {"PATH": path}


def run(command: list[str], desk: tuple[Path, dict[str, str]]) -> "subprocess.CompletedProcess[str]":
    folder, env = desk
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
def test_the_python_of_the_readme_runs_as_it_is_written(
    plait: Installation, desk: tuple[Path, dict[str, str]]
) -> None:
    done = run([sys.executable, "-c", block("python", "client.predictions.create")], desk)

    assert done.returncode == 0, (done.stderr, plait.logs)
    assert "succeeded" in done.stdout
    assert "class-" in done.stdout.splitlines()[-1]
    assert {"config.json", "model.safetensors", "README.md"} <= set(os.listdir(desk[0] / "model"))


@pytest.mark.slow
def test_the_commands_of_the_readme_run_as_they_are_written(
    plait: Installation, desk: tuple[Path, dict[str, str]]
) -> None:
    folder, _ = desk
    (folder / "spec.yaml").write_text(block("yaml", "training_file"))

    done = run(["bash", "-euo", "pipefail", "-c", block("sh", "plait predict")], desk)

    assert done.returncode == 0, (done.stdout, done.stderr, plait.logs)
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [f"r{n}" for n in range(48)]
    assert {answer["error"] for answer in answers} == {None}
    assert "model.safetensors" in os.listdir(folder / "digits")


@pytest.mark.slow
def test_a_watch_goes_on_through_a_restart_with_each_event_once_and_in_order(
    tmp_path: Path, encoders: Path
) -> None:
    data = tmp_path / "data"
    hyper = {"n_epochs": 600, "eval_steps": 50}
    spec: dict[str, Any] = {"towers": {"image": {"encoder": IMAGE}}, "hyperparameters": hyper}
    watched: list[Update] = []
    trains = threading.Event()

    def watch(client: Client, job_id: str) -> None:
        for update in client.jobs.watch(job_id):
            watched.append(update)
            if any(event.type == "metrics" for event in update.events):
                trains.set()

    with installation(data, encoders=str(encoders)) as plait:
        about = plait.about
        client = Client(base_url=about["base_url"], api_key=about["api_key"])
        file = client.files.push(tiny_av(tmp_path))
        job = client.jobs.create({"model": "late-fusion", "training_file": file.id, "multimodal": spec})
        watcher = threading.Thread(target=watch, args=(client, job.id))
        watcher.start()
        assert trains.wait(60), plait.logs
    with installation(data, port=urlsplit(about["base_url"]).port or 0, encoders=str(encoders)) as plait:
        watcher.join(150)
        assert not watcher.is_alive(), plait.logs
        every = [event.id for event in client.jobs.events(job.id)][::-1]
    client.close()

    assert watched[-1].job.status == "succeeded", watched[-1].job.error
    seen = [event for update in watched for event in update.events]
    assert [event.id for event in seen] == every
    assert [event.raw["name"] for event in seen].count("job.claimed") == 3, "validated, trained, trained on"
