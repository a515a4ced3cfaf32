"""The whole way with the stock client and with ours: upload, submit, watch, a model at the end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import plait as sdk
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT, tiny_encoders
from support.installation import Installation, installation
from support.stack import until

FINAL = ("succeeded", "failed", "cancelled")


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
def client(plait: Installation) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=plait.about["base_url"], api_key=plait.about["api_key"]) as made:
        yield made


@pytest.fixture
def multimodal() -> dict[str, Any]:
    return {
        "towers": {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO}, "text": {"encoder": TEXT}},
        "hyperparameters": {"n_epochs": 3},
    }


def test_the_stock_client_fine_tunes_a_model_of_three_modalities(
    plait: Installation, client: openai.OpenAI, tmp_path: Path, multimodal: dict[str, Any]
) -> None:
    data = tiny_av(tmp_path, missing=0.2)

    with data.open("rb") as stream:
        file = client.files.create(file=stream, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="late-fusion",
        training_file=file.id,
        suffix="tiny",
        metadata={"team": "a"},
        extra_body={"multimodal": multimodal},
    )
    done = until(
        lambda: client.fine_tuning.jobs.retrieve(job.id),
        lambda j: j.status in FINAL,
        limit_s=120,
        about=lambda: plait.logs,
    )

    assert done.status == "succeeded", (done.error, plait.logs)
    assert done.fine_tuned_model in [model.id for model in client.models.list()]
    assert 0.0 <= done.metrics["test_accuracy"] <= 1.0  # type: ignore[attr-defined]
    names = {client.files.retrieve(i).filename: i for i in done.result_files}
    assert {"results.csv", "report.json"} <= set(names)
    assert "train_loss" in client.files.content(names["results.csv"]).text
    report = json.loads(client.files.content(names["report.json"]).text)
    assert len(report["test"]["confusion_matrix"]) == 3
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert len(messages) > 4


def test_our_client_watches_a_job_to_its_end(
    plait: Installation, tmp_path: Path, multimodal: dict[str, Any]
) -> None:
    with sdk.Client(base_url=plait.about["base_url"], api_key=plait.about["api_key"]) as client:
        file = client.files.push(tiny_av(tmp_path))

        job = client.jobs.create({"model": "late-fusion", "training_file": file.id, "multimodal": multimodal})
        *_, (last, _) = client.jobs.watch(job.id)

    assert last.status == "succeeded", last.error


def test_a_bad_row_fails_the_job_with_its_line_in_the_error(
    plait: Installation, client: openai.OpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "bad.jsonl"
    rows = [json.dumps({"text": f"row {n}", "label": "ab"[n % 2]}) for n in range(20)]
    rows[16] = '{"text": "broken'
    path.write_text("\n".join(rows) + "\n")

    with path.open("rb") as stream:
        file = client.files.create(file=stream, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="late-fusion", training_file=file.id)
    done = until(
        lambda: client.fine_tuning.jobs.retrieve(job.id),
        lambda j: j.status in FINAL,
        limit_s=60,
        about=lambda: plait.logs,
    )

    assert done.status == "failed"
    assert done.error is not None
    assert done.error.code == "invalid_training_file"
    assert "line 17" in done.error.message


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
