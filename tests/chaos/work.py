"""What the clients ask for: many checks of real files, fine-tunes of bad ones, a few trainings; and what must come of it."""

import http.client
import json
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from support.datasets import png, shape, tiny_av, zip_of
from support.encoders import AUDIO, IMAGE, tiny_encoders

#: Name -> rows of the data set. The longer ones are still at work when a fault comes.
GOOD = {"short": 60, "middle": 800, "long": 4_000}
BAD = "bad"
TRAINED = "trained"


@dataclass(frozen=True)
class Task:
    """One job that a client wants, under its own key."""

    name: str
    tenant: str
    path: str
    body: Mapping[str, Any]
    #: What the job ends in when nobody cancels it and it does not die too often.
    ends: str
    #: How many result files it then has; None where that is not known beforehand.
    results: int | None

    def request(self, token: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "key": self.name,
            "path": self.path,
            "body": dict(self.body),
            "token": token,
        }


def make_files(folder: Path, *, training: bool) -> dict[str, Path]:
    """The data sets, by name; with `training` also tiny encoders in `folder/encoders`."""
    found = {name: _good(folder / f"{name}.zip", rows) for name, rows in GOOD.items()}
    found[BAD] = _bad(folder / f"{BAD}.zip")
    if training:
        tiny_encoders(folder / "encoders")
        (folder / TRAINED).mkdir()
        found[TRAINED] = tiny_av(folder / TRAINED)
    return found


def _good(path: Path, rows: int) -> Path:
    """Pictures that differ in bytes behind their end, so that thousands are made in no time."""
    rng = np.random.default_rng(0)
    kinds = [png(shape(kind, 32, rng)) for kind in range(3)]
    pictures = {f"{n}.png": kinds[n % 3] + n.to_bytes(4, "big") for n in range(rows)}
    lines = [
        {"image_file_name": f"{n}.png", "text": f"take {n}", "label": f"class-{n % 3}"} for n in range(rows)
    ]
    return zip_of(path, lines, pictures)


def _bad(path: Path) -> Path:
    """Every second row names a picture that is not there."""
    rng = np.random.default_rng(0)
    pictures = {f"{n}.png": png(shape(n % 2, 32, rng)) for n in range(0, 400, 2)}
    rows = [{"image_file_name": f"{n}.png", "label": f"class-{n % 2}"} for n in range(400)]
    return zip_of(path, rows, pictures)


def upload(port: int, token: str, path: Path) -> str:
    """The id of the stored file."""
    edge = secrets.token_hex(16)
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
    )
    body = head.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": f"multipart/form-data; boundary={edge}"}
    connection.request("POST", "/v1/files", body, headers)
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, told
    return str(told["id"])


def tasks(
    rng: random.Random,
    jobs: int,
    trainings: int,
    files: Mapping[tuple[str, str], str],
    tenants: tuple[str, ...],
) -> list[Task]:
    """`jobs` of them, `trainings` among these; `files` are ids by (tenant, name)."""
    made = [_small(rng, n, files, tenants) for n in range(jobs - trainings)]
    # Not among the last: they take seconds, and the faults are to find them.
    for n in range(trainings):
        tenant = rng.choice(tenants)
        made.insert(rng.randrange(max(1, len(made) * 2 // 3)), _training(n, tenant, files[tenant, TRAINED]))
    return made


def _small(
    rng: random.Random, number: int, files: Mapping[tuple[str, str], str], tenants: tuple[str, ...]
) -> Task:
    tenant, kind = rng.choice(tenants), rng.random()
    if kind < 0.15:
        body = {"model": "late-fusion", "training_file": files[tenant, BAD]}
        return Task(f"tune-{number}", tenant, "/v1/fine_tuning/jobs", body, "failed", 1)
    if kind < 0.35:
        path, results = f"/v1/files/{files[tenant, BAD]}/validate", 2
    else:
        name = rng.choices(list(GOOD), weights=(5, 4, 1))[0]
        path, results = f"/v1/files/{files[tenant, name]}/validate", 1
    return Task(f"check-{number}", tenant, path, {}, "succeeded", results)


def _training(number: int, tenant: str, file: str) -> Task:
    multimodal = {
        "towers": {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO, "max_seconds": 0.5}},
        "fusion": {"dim": 16},
        "hyperparameters": {"n_epochs": 12, "batch_size": 8, "save_steps": 10, "eval_steps": 50},
    }
    body = {"model": "late-fusion", "training_file": file, "multimodal": multimodal}
    return Task(f"training-{number}", tenant, "/v1/fine_tuning/jobs", body, "succeeded", None)
