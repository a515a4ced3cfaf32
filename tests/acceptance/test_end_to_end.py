"""The whole way with our own client: upload, submit, watch, a model at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import plait as sdk
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT, tiny_encoders
from support.installation import Installation, installation


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mirror = tmp_path_factory.mktemp("encoders")
    tiny_encoders(mirror)
    return mirror


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory, encoders: Path) -> Iterator[Installation]:
    data = tmp_path_factory.mktemp("installation") / "data"
    with installation(data, encoders=str(encoders)) as made:
        yield made


@pytest.fixture
def multimodal() -> dict[str, Any]:
    return {
        "towers": {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO}, "text": {"encoder": TEXT}},
        "hyperparameters": {"n_epochs": 3},
    }


def test_our_client_watches_a_job_to_its_end(
    plait: Installation, tmp_path: Path, multimodal: dict[str, Any]
) -> None:
    with sdk.Client(base_url=plait.about["base_url"], api_key=plait.about["api_key"]) as client:
        file = client.files.push(tiny_av(tmp_path))

        job = client.jobs.create({"model": "late-fusion", "training_file": file.id, "multimodal": multimodal})
        *_, (last, _) = client.jobs.watch(job.id)

    assert last.status == "succeeded", last.error


def test_a_misspelt_field_is_refused_at_once_with_what_is_allowed(plait: Installation) -> None:
    about = plait.about
    body = {
        "model": "late-fusion",
        "training_file": "file-x",
        "multimodal": {"towers": {"image": {"encodr": "a/b"}}},
    }

    answer = httpx.post(
        f"{about['base_url']}/fine_tuning/jobs",
        json=body,
        headers={"Authorization": f"Bearer {about['api_key']}"},
    )

    assert answer.status_code == 400
    problems = {p["path"]: p for p in answer.json()["errors"]}
    assert "encoder" in problems["multimodal.towers.image.encodr"]["allowed"]
