"""The preset video-audio-clip, trained whole with tiny encoders in the places of its own."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import EngineError
from domain.specs import Multimodal
from engine.hub.mirror import resolve
from engine.infer import load
from engine.train.run import Finished, train
from support.datasets import tone, wav, zip_of
from support.encoders import RESNET, TEXT
from support.moving import moving

KINDS = ("low", "high")
COLUMNS = ("words", "voice_file_name", "clip_file_name")


def _data(folder: Path, columns: tuple[str, ...] = COLUMNS, rows: int = 40) -> Path:
    """What is said, how it sounds and what is seen tell the label; a fifth of the cells is missing."""
    rng, lines, media = np.random.default_rng(0), [], {}
    for n in range(rows):
        kind = KINDS[n % 2]
        cells = {
            "words": f"a {kind} one, number {n}",
            "voice_file_name": f"{n}.wav",
            "clip_file_name": f"{n}.mp4",
        }
        media[f"{n}.wav"] = wav(tone(n % 2 * 4, rng))
        media[f"{n}.mp4"] = moving("left", frames=4, seed=n, px=(32, 64)[n % 2])
        kept = int(rng.integers(len(columns)))
        row: dict[str, Any] = {
            name: cells[name] if place == kept or rng.random() > 0.3 else None
            for place, name in enumerate(columns)
        }
        split = ("train", "train", "train", "validation", "test")[n // 2 % 5]
        lines.append({"id": str(n), **row, "label": kind, "split": split})
    return zip_of(folder / "data.zip", lines, media)


def _trained(
    folder: Path, data: Path, found: dict[str, Path], **spec: Any
) -> tuple[Finished, dict[str, Any]]:
    decided: list[dict[str, Any]] = []
    hyper = {"n_epochs": 30, "batch_size": 8, "learning_rate": 3e-3}
    asked = {
        "preset": "video-audio-clip",
        "fusion": {"dim": 32},
        "hyperparameters": hyper,
        "schema": {"columns": {"words": {"type": "text"}}},
        **spec,
    }
    ending = train(
        Multimodal.model_validate(asked),
        training=data,
        encoders=found.__getitem__,
        cache=folder / "cache",
        out=folder / "out",
        decided=decided.append,
    )
    assert isinstance(ending, Finished)
    return ending, decided[0]


@pytest.fixture
def found(encoders: dict[str, Path]) -> dict[str, Path]:
    """Tiny ones under the ids of the preset's own."""
    return {
        **encoders,
        "google-bert/bert-base-uncased": encoders[TEXT],
        "microsoft/resnet-50": encoders[RESNET],
    }


def test_the_preset_learns_from_words_sounds_and_films_of_which_any_may_be_missing(
    tmp_path: Path, found: dict[str, Path]
) -> None:
    data = _data(tmp_path)

    towers = {"voice": {"max_seconds": 0.5}, "clip": {"num_frames": 2}}
    ending, decided = _trained(tmp_path, data, found, towers=towers)
    model = load(tmp_path / "out" / "model", found.__getitem__)
    with zipfile.ZipFile(data) as archive:
        sound, film = archive.read("1.wav"), archive.read("1.mp4")
    answers = model.predict([{"words": "a high one"}, {"voice": sound}, {"clip": film}])

    assert ending.metrics["test_accuracy"] > 0.7
    assert decided["preset"] is None
    assert {name: tower["encoder"] for name, tower in decided["towers"].items()} == {
        "words": "google-bert/bert-base-uncased",
        "voice": "microsoft/resnet-50",
        "clip": "microsoft/resnet-50",
    }
    assert all(answer.error is None for answer in answers)
    kept = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert (kept["spec"]["preset"], sorted(kept["towers"])) == (None, ["clip", "voice", "words"])


def test_a_modality_may_be_absent_from_the_data_and_an_encoder_may_be_another(
    tmp_path: Path, found: dict[str, Path]
) -> None:
    data = _data(tmp_path, ("words", "voice_file_name"), rows=20)

    _, decided = _trained(
        tmp_path,
        data,
        found,
        towers={"words": {"encoder": TEXT}},
        hyperparameters={"n_epochs": 1},
    )

    assert {name: tower["encoder"] for name, tower in decided["towers"].items()} == {
        "words": TEXT,
        "voice": "microsoft/resnet-50",
    }


def test_without_its_encoders_a_training_says_how_they_are_fetched(tmp_path: Path) -> None:
    data = _data(tmp_path, ("words",), rows=20)
    spec = {"preset": "video-audio-clip", "schema": {"columns": {"words": {"type": "text"}}}}

    with pytest.raises(EngineError, match="encoders pull google-bert/bert-base-uncased") as refused:
        train(
            Multimodal.model_validate(spec),
            training=data,
            encoders=lambda name: resolve(name, mirror=tmp_path / "none", allow_hub=False),
            cache=tmp_path / "cache",
            out=tmp_path / "out",
        )

    assert refused.value.code == "encoder_unavailable"
