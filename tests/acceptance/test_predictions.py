"""Predictions the whole way: the stock client and ours ask a model that was fine-tuned a moment ago."""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

import plait as sdk
from support.datasets import png, shape, tiny_av, tone, wav
from support.encoders import AUDIO, IMAGE, TEXT, tiny_encoders
from support.installation import Installation, installation

TOWERS = {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO}, "text": {"encoder": TEXT}}
CLASSES = {"class-0", "class-1", "class-2"}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    tiny_encoders(folder / "encoders")
    with installation(folder / "data", encoders=str(folder / "encoders")) as made:
        yield made


@pytest.fixture(scope="module")
def ours(plait: Installation) -> Iterator[sdk.Client]:
    with sdk.Client(base_url=plait.about["base_url"], api_key=plait.about["api_key"]) as made:
        yield made


@pytest.fixture
def stock(plait: Installation) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=plait.about["base_url"], api_key=plait.about["api_key"]) as made:
        yield made


@pytest.fixture(scope="module")
def model(ours: sdk.Client, plait: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = ours.files.push(tiny_av(tmp_path_factory.mktemp("data")))
    spec = {"towers": TOWERS, "hyperparameters": {"n_epochs": 2}}
    job = ours.jobs.create({"model": "late-fusion", "training_file": file.id, "multimodal": spec})
    *_, (last, _) = ours.jobs.watch(job.id)
    assert last.fine_tuned_model, (last.error, plait.logs)
    return last.fine_tuned_model


@pytest.fixture(scope="module")
def media() -> dict[str, bytes]:
    """A picture that lies in the row, and a sound that is too large for it."""
    rng = np.random.default_rng(0)
    return {"image": png(shape(1, 32, rng)), "audio": wav(tone(1, rng, seconds=4.0))}


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def test_the_stock_client_asks_with_any_subset_of_modalities(
    stock: openai.OpenAI, model: str, media: dict[str, bytes]
) -> None:
    picture, sound = data_url(media["image"], "image/png"), data_url(media["audio"], "audio/wav")
    file = stock.files.create(file=("a.wav", media["audio"]), purpose="user_data")
    rows: list[dict[str, Any]] = [
        {"id": "all", "image": picture, "audio": sound, "text": "a green shape"},
        {"image": picture},
        {"audio": {"file_id": file.id}},
        {"text": "a green shape with 4 corners", "image": None},
        {},
        {"image": "data:image/png;base64,aGVsbG8="},
        {"text": "fine", "image": "https://example.com/cat.png"},
        {"colour": "green"},
    ]

    answer: Any = stock.post(
        "/predictions",
        body={"model": model, "inputs": rows, "top_k": 3, "return_embeddings": True},
        cast_to=object,
    )

    assert answer["status"] == "succeeded", answer
    told = answer["predictions"]
    assert [row["id"] for row in told] == ["all", *map(str, range(1, 8))]
    assert [row["modalities"]["used"] for row in told[:4]] == [
        ["audio", "image", "text"],
        ["image"],
        ["audio"],
        ["text"],
    ]
    for row in told[:4]:
        assert row["error"] is None
        assert row["label"] in CLASSES
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert row["top"][0]["label"] == row["label"]
        assert sum(row["modalities"]["weights"].values()) == pytest.approx(1, abs=1e-4)
        assert len(row["embedding"]) > 1
    errors = [(row["error"]["code"], row["error"]["param"]) for row in told[4:]]
    assert errors == [
        ("all_modalities_missing", None),
        ("unreadable_media", "image"),
        ("url_not_allowed", "image"),
        ("unknown_column", "colour"),
    ]
    assert answer["usage"]["queue_ms"] >= 0
    assert answer["usage"]["batch_size"] == 8


def test_a_bad_cell_may_count_as_missing(stock: openai.OpenAI, model: str) -> None:
    row = {"text": "a green shape", "image": "data:image/png;base64,@@"}

    answer: Any = stock.post(
        "/predictions", body={"model": model, "inputs": [row], "on_bad_input": "mask"}, cast_to=object
    )

    (told,) = answer["predictions"]
    assert told["error"] is None
    assert told["modalities"]["used"] == ["text"]
    assert told["modalities"]["failed"] == ["image"]
    assert told["warnings"]


def test_the_stock_client_asks_now_and_reads_later(stock: openai.OpenAI, model: str) -> None:
    body = {"model": model, "inputs": [{"text": "a green shape"}], "background": True}

    answer: Any = stock.post("/predictions", body=body, cast_to=object)
    later: Any = stock.get(
        f"/predictions/{answer['id']}", cast_to=object, options={"headers": {"Prefer": "wait=60"}}
    )
    listed: Any = stock.get("/predictions", cast_to=object)

    assert later["status"] == "succeeded"
    assert answer["id"] in [entry["id"] for entry in listed["data"]]
    with pytest.raises(openai.ConflictError):
        stock.post(f"/predictions/{answer['id']}/cancel", cast_to=object)


def test_our_client_sends_files_of_any_size(
    ours: sdk.Client, model: str, media: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(media["image"])
    (tmp_path / "a.wav").write_bytes(media["audio"])

    run = ours.predictions.create(
        model,
        [
            {"image": tmp_path / "a.png", "audio": tmp_path / "a.wav"},
            {"audio": media["audio"], "text": "a green shape"},
        ],
    )

    assert run.status == "succeeded"
    assert [sorted(row.modalities.used) for row in run.predictions] == [["audio", "image"], ["audio", "text"]]
    assert {row.label for row in run.predictions} <= CLASSES
