"""Families over tokens the whole way: files, training, checkpoint, model folder, prediction. With tiny encoders."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from domain.errors import EngineError
from domain.families import TOKEN_FUSIONS
from domain.specs import Multimodal
from engine import infer
from engine.models.store import load_model
from engine.train.run import Finished, Progress, Stopped, train
from support.datasets import png, shape, tone, wav, zip_of
from support.encoders import AUDIO, IMAGE, TEXT, VIT
from support.moving import moving

TOWERS: dict[str, Any] = {
    "image": {"encoder": IMAGE},
    "audio": {"encoder": AUDIO, "max_seconds": 0.5, "max_tokens": 6},
    "text": {"encoder": TEXT},
    "price": {},
    "shop": {},
}
SCHEMA = {"columns": {"shop": {"type": "category"}, "text": {"type": "text"}}}
EACH = ["mm-bert", *(pytest.param(family, marks=pytest.mark.slow) for family in ("vilbert", "mult"))]
KINDS = ("a", "b", "c")


class Place:
    """Rows of every kind of column, some cells missing or of several files, and runs over them."""

    def __init__(self, folder: Path, encoders: dict[str, Path], rows: int = 30) -> None:
        self.folder, self.encoders = folder, encoders
        self.said: list[Progress] = []
        rng = np.random.default_rng(0)
        self.rows: list[dict[str, Any]] = []
        self.media: dict[str, bytes] = {}
        for n in range(rows):
            pictures = [f"{n}-{k}.png" for k in range(1 + n % 2)]
            self.media |= {name: png(shape(n % 3, 32, rng)) for name in pictures}
            self.media[f"{n}.wav"] = wav(tone(n % 3, rng, seconds=0.1 + 0.1 * (n % 4)))
            row = {
                "image_file_names": pictures,
                "audio_file_name": f"{n}.wav",
                "text": f"a {KINDS[n % 3]} " + "word " * (n % 4),
                "price": float(n % 3 + n % 2),
                "shop": ("north", "south")[n % 2],
                "label": KINDS[n % 3],
                "split": ("train", "train", "validation", "train", "test")[n // 3 % 5],
            }
            gone = [(), ("image_file_names",), ("audio_file_name", "price"), ("text",), ("shop",)][n % 5]
            self.rows.append(row | dict.fromkeys(gone))
        self.data = self.table(self.rows)

    def table(self, rows: list[dict[str, Any]], name: str = "rows.zip") -> Path:
        named = {file for row in rows for cell in row.values() for file in _files(cell)}
        return zip_of(self.folder / name, rows, {k: v for k, v in self.media.items() if k in named})

    def train(self, family: str, out: str = "out", **options: Any) -> Finished | Stopped:
        hyper = {"n_epochs": 2, "batch_size": 6, "logging_steps": 1, **options.pop("hyper", {})}
        spec = {
            "family": family,
            "towers": options.pop("towers", TOWERS),
            "schema": options.pop("schema", SCHEMA),
            "fusion": {"dim": 16, **options.pop("fusion", {})},
            "hyperparameters": hyper,
        }
        return train(
            Multimodal.model_validate(spec),
            **{"training": self.data, "seed": 1, **options},
            cache=self.folder / "cache",
            encoders=self.encoders.__getitem__,
            out=self.folder / out,
            report=self.said.append,
        )

    @property
    def losses(self) -> list[float]:
        return [p.metrics["train_loss"] for p in self.said if p.metrics and "train_loss" in p.metrics]

    def encoded(self) -> int:
        """Inputs that the runs so far had to encode."""
        begins = [p for p in self.said if p.stage == "encoding" and p.message]
        return sum(p.total_steps or 0 for p in begins)

    def weights(self, out: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = load_file(self.folder / out / "model" / "model.safetensors")
        return found

    def cells(self, row: dict[str, Any]) -> dict[str, Any]:
        """As a prediction is given them."""
        pictures = [self.media[name] for name in row["image_file_names"] or ()]
        sound = row["audio_file_name"] and self.media[row["audio_file_name"]]
        plain = {name: row[name] for name in ("text", "price", "shop")}
        return {"image": pictures or None, "audio": sound, **plain}


def _files(cell: Any) -> list[str]:
    return [name for name in (cell if isinstance(cell, list) else [cell]) if isinstance(name, str)]


@pytest.fixture
def place(tmp_path: Path, encoders: dict[str, Path]) -> Place:
    return Place(tmp_path, encoders)


def _log_loss(answers: list[infer.Prediction], labels: list[str]) -> float:
    found = [answer.probabilities or {} for answer in answers]
    return -float(np.mean([math.log(p[label]) for p, label in zip(found, labels, strict=True)]))


@pytest.mark.parametrize("family", TOKEN_FUSIONS)
def test_a_model_folder_answers_the_test_rows_as_training_evaluated_them(place: Place, family: str) -> None:
    ending = place.train(family)

    assert isinstance(ending, Finished)
    assert ending.resolved["fusion"]["type"] == TOKEN_FUSIONS[family]
    tested = [row for row in place.rows if row["split"] == "test"]
    model = infer.load(place.folder / "out" / "model", encoders=place.encoders.__getitem__)
    answers = model.predict([place.cells(row) for row in tested])
    loss = _log_loss(answers, [row["label"] for row in tested])
    assert loss == pytest.approx(ending.metrics["test_log_loss"], abs=1e-4)
    for answer in answers:
        weights = answer.modalities.weights or {}
        assert answer.modalities.weights_by == "leave_one_out"
        assert set(weights) == set(answer.modalities.used)
        assert sum(weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("family", EACH)
def test_a_row_is_answered_alike_alone_and_among_others(place: Place, family: str) -> None:
    place.train(family, hyper={"n_epochs": 1})
    model = infer.load(place.folder / "out" / "model", encoders=place.encoders.__getitem__)
    rows = [place.cells(row) for row in place.rows[:5]] + [
        {"text": "a"},
        {"price": 1.0},
        {"image": b"no picture"},
    ]

    together = model.predict(rows)
    alone = [model.predict([row])[0] for row in rows]

    assert together[-1].error is not None
    for one, other in zip(together[:-1], alone[:-1], strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def _trained(family: str) -> dict[str, Any]:
    return TOWERS | {"text": {"encoder": TEXT, "freeze": False, "lr": 1e-3}}


@pytest.mark.parametrize("family", EACH)
@pytest.mark.parametrize("live", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(place: Place, family: str, live: bool) -> None:
    towers = _trained(family) if live else TOWERS
    place.train(family, "whole", towers=towers)
    whole = place.losses
    place.said.clear()

    stopped = place.train(
        family, "first", towers=towers, should_stop=lambda: "drain" if len(place.losses) == 4 else None
    )
    torch.manual_seed(99)
    place.train(family, "second", towers=towers, resume=place.folder / "first/checkpoints/step-4")

    assert stopped == Stopped(4, "drain")
    assert len(whole) == 6
    assert place.losses == whole
    one, other = place.weights("whole"), place.weights("second")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_tokens_are_encoded_once_for_all_families_and_apart_from_vectors(place: Place) -> None:
    place.train("late-fusion", "vectors", towers={"image": {"encoder": IMAGE}, "text": {"encoder": TEXT}})
    vectors = place.encoded()
    place.said.clear()

    towers = {"image": {"encoder": IMAGE}, "text": {"encoder": TEXT}}
    place.train("mm-bert", "one", towers=towers)
    tokens = place.encoded()
    place.train("vilbert", "other", towers=towers)

    assert vectors == tokens == place.encoded() > 0


def test_a_run_does_not_go_on_from_a_checkpoint_of_another_family(place: Place) -> None:
    place.train("vilbert", "one", hyper={"n_epochs": 1})

    with pytest.raises(EngineError, match=r"multimodal.family"):
        place.train("mult", "other", resume=place.folder / "one/checkpoints/step-3")


@pytest.mark.parametrize("family", EACH)
def test_numbers_are_learned_in_their_own_unit(place: Place, family: str) -> None:
    rows = [row | {"label": 100.0 + 10 * n} for n, row in enumerate(place.rows)]

    ending = place.train(family, training=place.table(rows, "numbers.zip"), hyper={"n_epochs": 1})

    assert isinstance(ending, Finished)
    assert "test_rmse" in ending.metrics
    model = infer.load(place.folder / "out" / "model", encoders=place.encoders.__getitem__)
    assert abs((model.predict([{"text": "a"}])[0].value or 0.0) - 245) < 500


def test_several_labels_may_hold_at_once(place: Place) -> None:
    rows = [row | {"label": [k for k in KINDS if k in str(row["text"]).split()]} for row in place.rows]

    ending = place.train("mm-bert", training=place.table(rows, "labels.zip"), hyper={"n_epochs": 1})

    assert isinstance(ending, Finished)
    assert ending.resolved["task"] == "multilabel"
    assert "valid_f1_macro" in ending.metrics


@pytest.mark.parametrize("family", EACH)
def test_films_are_read_frame_by_frame(tmp_path: Path, encoders: dict[str, Path], family: str) -> None:
    place = Place(tmp_path, encoders, rows=0)
    place.rows = [
        {"film_file_name": f"{n}.mp4" if n % 5 else None, "text": f"film {n}", "label": "ab"[n % 2]}
        for n in range(12)
    ]
    place.media = {f"{n}.mp4": moving(("left", "right")[n % 2], frames=2 + n % 3, seed=n) for n in range(12)}
    towers = {"film": {"encoder": VIT, "num_frames": 3}, "text": {"encoder": TEXT}}

    ending = place.train(
        family, training=place.table(place.rows), towers=towers, schema=None, hyper={"n_epochs": 1}
    )

    assert isinstance(ending, Finished)
    model = infer.load(place.folder / "out" / "model", encoders=encoders.__getitem__)
    answers = model.predict([{"film": place.media["1.mp4"]}, {"text": "film 3"}])
    assert [answer.error for answer in answers] == [None, None]


def test_a_trained_tower_learns_through_its_tokens(place: Place) -> None:
    place.train("mult", towers=_trained("mult"), hyper={"n_epochs": 1})

    model, _ = load_model(place.folder / "out/model", place.encoders.__getitem__)
    names = [name for name in place.weights("out") if name.startswith("encoders.4.network.")]
    assert model.names[4] == "text"
    assert any("embeddings" in name for name in names)


def test_half_precision_trains_a_family_too(place: Place) -> None:
    ending = place.train("vilbert", towers=_trained("vilbert"), hyper={"precision": "bf16", "n_epochs": 1})

    assert isinstance(ending, Finished)
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in place.weights("out").values())
